"""What every black box must do. A new one passes by a line in ``BOXES``."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeBox, pictures
from PIL import Image as PillowImage

from llmopt.errors import AccessError, TemplateError
from llmopt.spend.ledger import Ledger
from llmopt.template import Template
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.function import FunctionBox
from llmopt.vision.metered import MeteredBox
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.server.app import BlackBoxServer
from llmopt.vision.services.http import HttpBlackBox

NAMES = ("circle", "big_star", "ring")
PROMPTS = [
    "a photo of a circle.",
    "a small big star.",
    "itap of a ring",
    "猫 100% {x} <end_of_text>",
]
IMAGES = pictures("test", 2)


@contextmanager
def served(access: Access) -> Iterator[BlackBox]:
    """A box behind HTTP."""
    server = BlackBoxServer(FakeBox(Access.SOFT), ("127.0.0.1", 0), access)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    box = HttpBlackBox(f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield box
    finally:
        box.close()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def here(make: Callable[[], BlackBox]) -> Iterator[BlackBox]:
    """A box in this process."""
    yield make()


def likeness(images: list[PillowImage.Image], prompts: list[str]) -> torch.Tensor:
    """Logits that are mean brightness by length of the prompt, less its square."""
    light = torch.tensor([np.asarray(image).mean() for image in images], requires_grad=True)
    words = torch.tensor([len(" ".join(p.split())) for p in prompts])
    return torch.outer(light, words) - words**2


BOXES: dict[str, Callable[[], Any]] = {
    **{f"fake {level}": lambda level=level: here(lambda: FakeBox(level)) for level in Access},
    **{f"http {level}": lambda level=level: served(level) for level in Access},
    "shapes-tiny": lambda: here(lambda: OpenClipBlackBox("shapes-tiny", device="cpu")),
    "function scores": lambda: here(lambda: FunctionBox("a function", likeness)),
    "function labels": lambda: here(
        lambda: FunctionBox("a function", lambda i, p: likeness(i, p).argmax(1), access="labels")
    ),
}


@pytest.fixture(scope="module", params=list(BOXES))
def box(request: pytest.FixtureRequest) -> Iterator[BlackBox]:
    with BOXES[request.param]() as one:
        yield one


def needs(box: BlackBox, level: Access) -> None:
    if box.info.access < level:
        pytest.skip(f"offers '{box.info.access}'")


def test_it_says_what_it_is(box: BlackBox) -> None:
    info = box.info
    assert info.name
    assert isinstance(info.access, Access)
    assert len(info.weights_sha256) == 64
    assert info.logit_scale > 0
    assert box.info == info
    json.dumps(dataclasses.asdict(info))
    assert "\n" not in info.detail


def test_labels_are_places_among_the_prompts(box: BlackBox) -> None:
    labels = box.labels(IMAGES.images, PROMPTS)
    assert labels.shape == (len(IMAGES),)
    assert labels.dtype == np.int64
    assert set(labels.tolist()) <= set(range(len(PROMPTS)))
    assert box.labels(IMAGES.images, PROMPTS[:1]).tolist() == [0] * len(IMAGES)


def test_scores_are_finite_logits_that_labels_follow(box: BlackBox) -> None:
    needs(box, Access.SCORES)
    scores = box.scores(IMAGES.images, PROMPTS)
    assert scores.shape == (len(IMAGES), len(PROMPTS))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert box.labels(IMAGES.images, PROMPTS).tolist() == scores.argmax(axis=1).tolist()


def test_asking_again_or_in_another_order_changes_nothing(box: BlackBox) -> None:
    needs(box, Access.SCORES)
    scores = box.scores(IMAGES.images, PROMPTS)
    np.testing.assert_array_equal(box.scores(IMAGES.images, PROMPTS), scores)
    turned = box.scores(IMAGES.images[::-1], PROMPTS[::-1])
    np.testing.assert_allclose(turned[::-1, ::-1], scores, rtol=1e-4, atol=1e-4)
    alone = np.concatenate([box.scores([image], [PROMPTS[1]]) for image in IMAGES.images[:3]])
    np.testing.assert_allclose(alone[:, 0], scores[:3, 1], rtol=1e-4, atol=1e-4)


def test_features_are_of_length_one_and_make_the_scores(box: BlackBox) -> None:
    needs(box, Access.FEATURES)
    visual, text = box.image_features(IMAGES.images), box.text_features(PROMPTS)
    assert visual.dtype == text.dtype == np.float32
    assert visual.shape[1] == text.shape[1]
    for rows in (visual, text):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    expected = box.info.logit_scale * visual @ text.T + box.info.logit_bias
    np.testing.assert_allclose(box.logits(visual, text), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(box.scores(IMAGES.images, PROMPTS), expected, rtol=1e-4, atol=1e-3)


def test_what_it_cannot_tell_apart_has_one_normal_form_and_one_feature(box: BlackBox) -> None:
    same = ["a photo of a ring.", "A  photo of a RING.", " a photo of a ring. "]
    first, *others = box.normal_forms([*same, "a photo of a cross."])
    assert others[:2] == [first, first]
    assert others[2] != first
    assert len({first, *others}) == 2
    if box.info.access >= Access.FEATURES:
        rows = box.text_features(same)
        np.testing.assert_allclose(rows, rows[:1].repeat(3, axis=0), atol=1e-6)


def test_templates_are_checked_with_the_longest_name(box: BlackBox) -> None:
    box.check(Template("a photo of a {}."), NAMES)
    endless = Template("very " * 200 + "{}.")
    if box.token_excess(endless.fill("ring")) > 0:
        with pytest.raises(TemplateError, match="too long"):
            box.check(endless, NAMES)
    else:
        box.check(endless, NAMES)  # it does not know its limit


def test_soft_prompts_made_of_words_are_those_words(box: BlackBox) -> None:
    needs(box, Access.SOFT)
    words = box.embed_text("a photo of a")
    assert words.dtype == np.float32
    assert words.ndim == 2
    assert box.embedding_std > 0
    contexts = torch.tensor(np.stack([words, 0.5 * words]))
    soft = box.soft_features(contexts, NAMES)
    assert soft.shape[:2] == (2, len(NAMES))
    assert soft.dtype == torch.float32
    text = box.text_features(Template("a photo of a {}.").fill_all(NAMES))
    np.testing.assert_allclose(soft[0], text, atol=1e-4)
    assert not np.allclose(soft[1], text, atol=1e-4)
    np.testing.assert_allclose(box.soft_features(contexts[1:], NAMES)[0], soft[1], atol=1e-5)
    own = contexts[0].expand(1, len(NAMES), *contexts.shape[1:])
    np.testing.assert_allclose(box.soft_features(own, NAMES)[0], soft[0], atol=1e-5)


def test_gradients_or_a_clear_no(box: BlackBox) -> None:
    needs(box, Access.SOFT)
    contexts = torch.tensor(box.embed_text("a photo of a"))[None].requires_grad_()
    try:
        features = box.soft_features(contexts, NAMES, grad=True)
    except AccessError as refused:
        message = str(refused)
    else:
        features[..., 0].sum().backward()
        assert contexts.grad is not None
        assert contexts.grad.abs().sum() > 0
        message = "gradients"
    assert "gradients" in message


def test_more_than_it_offers_is_an_access_error(box: BlackBox) -> None:
    beyond: list[tuple[Access, Callable[[], object]]] = [
        (Access.SCORES, lambda: box.scores(IMAGES.images, PROMPTS)),
        (Access.FEATURES, lambda: box.image_features(IMAGES.images)),
        (Access.FEATURES, lambda: box.text_features(PROMPTS)),
        (Access.SOFT, lambda: box.embed_text("a photo")),
        (Access.SOFT, lambda: box.embedding_std),
        (Access.SOFT, lambda: box.soft_features(torch.zeros(1, 2, 9), NAMES)),
    ]
    for level, use in beyond:
        if level > box.info.access:
            with pytest.raises(AccessError, match=f"'{box.info.access}'"):
                use()


def test_it_works_behind_the_meter(box: BlackBox) -> None:
    ledger = Ledger()
    metered = MeteredBox(box, ledger)
    templates = [Template("a photo of a {}."), Template("a small {}.")]
    scores = metered.score_templates(IMAGES, templates, NAMES)
    assert scores.shape == (2, len(IMAGES), len(NAMES))
    assert ledger["text_encodings"] == 2 * len(NAMES)
    assert ledger["image_encodings"] == len(IMAGES)
    again = metered.score_templates(IMAGES, templates, NAMES)
    np.testing.assert_array_equal(again, scores)
    assert ledger["text_encodings"] == 2 * len(NAMES)
