"""What every black box must do, whichever it is."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from llmopt.errors import AccessError, TemplateError
from llmopt.spend.ledger import Ledger
from llmopt.template import Template
from llmopt.testing.world import pictures
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.metered import MeteredBox

NAMES = ("circle", "big_star", "ring")
PROMPTS = [
    "a photo of a circle.",
    "a small big star.",
    "itap of a ring",
    "猫 100% {x} <end_of_text>",
]
IMAGES = pictures("test", 2)


def needs(box: BlackBox, level: Access) -> None:
    """Pass over what lies beyond its level."""
    if box.info.access < level:
        pytest.skip(f"offers '{box.info.access}'")


class BlackBoxContract:
    """Give it the fixture ``box``, which every test asks for anew."""

    @pytest.fixture
    def box(self) -> BlackBox:
        """The black box."""
        raise NotImplementedError("override the fixture 'box'")

    def test_it_says_what_it_is(self, box: BlackBox) -> None:
        """What it says of itself can be written down, and stays the same."""
        info = box.info
        assert info.name
        assert isinstance(info.access, Access)
        assert re.fullmatch("[0-9a-f]{64}", info.weights_sha256)
        assert info.logit_scale > 0
        assert box.info == info
        json.dumps(dataclasses.asdict(info))
        assert "\n" not in info.detail

    def test_labels_are_places_among_the_prompts(self, box: BlackBox) -> None:
        """(N,) int64."""
        labels = box.labels(IMAGES.images, PROMPTS)
        assert labels.shape == (len(IMAGES),)
        assert labels.dtype == np.int64
        assert set(labels.tolist()) <= set(range(len(PROMPTS)))
        assert box.labels(IMAGES.images, PROMPTS[:1]).tolist() == [0] * len(IMAGES)

    def test_scores_are_finite_logits_that_labels_follow(self, box: BlackBox) -> None:
        """(N, M) float32."""
        needs(box, Access.SCORES)
        scores = box.scores(IMAGES.images, PROMPTS)
        assert scores.shape == (len(IMAGES), len(PROMPTS))
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        assert box.labels(IMAGES.images, PROMPTS).tolist() == scores.argmax(axis=1).tolist()

    def test_asking_again_or_in_another_order_changes_nothing(self, box: BlackBox) -> None:
        """Batches and their order do not matter."""
        needs(box, Access.SCORES)
        scores = box.scores(IMAGES.images, PROMPTS)
        np.testing.assert_array_equal(box.scores(IMAGES.images, PROMPTS), scores)
        turned = box.scores(IMAGES.images[::-1], PROMPTS[::-1])
        np.testing.assert_allclose(turned[::-1, ::-1], scores, rtol=1e-4, atol=1e-4)
        # Of an image, only differences between prompts count, as in a softmax.
        two = np.concatenate([box.scores([image], PROMPTS[1:3]) for image in IMAGES.images[:3]])
        gaps = scores[:3, 1] - scores[:3, 2]
        np.testing.assert_allclose(two[:, 0] - two[:, 1], gaps, rtol=1e-4, atol=1e-3)

    def test_features_are_of_length_one_and_make_the_scores(self, box: BlackBox) -> None:
        """Scale, product and bias are those it declares."""
        needs(box, Access.FEATURES)
        visual, text = box.image_features(IMAGES.images), box.text_features(PROMPTS)
        assert visual.dtype == text.dtype == np.float32
        assert visual.shape[1] == text.shape[1]
        for rows in (visual, text):
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
        expected = box.info.logit_scale * visual @ text.T + box.info.logit_bias
        np.testing.assert_allclose(box.logits(visual, text), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            box.scores(IMAGES.images, PROMPTS), expected, rtol=1e-4, atol=1e-3
        )

    def test_what_it_cannot_tell_apart_has_one_normal_form_and_one_feature(
        self, box: BlackBox
    ) -> None:
        """White space at least, and case but where it says that it reads capitals."""
        same = ["a photo of a ring.", " a  photo of a ring. "]
        if not box.reads_capitals:
            same.append("A  photo of a RING.")
        first, *others, another = box.normal_forms([*same, "a photo of a cross."])
        assert others == [first] * len(others)
        assert another != first
        if box.info.access >= Access.FEATURES:
            rows = box.text_features(same)
            np.testing.assert_allclose(rows, rows[:1].repeat(len(same), axis=0), atol=1e-6)

    def test_templates_are_checked_with_the_longest_name(self, box: BlackBox) -> None:
        """What would be cut short is refused."""
        box.check(Template("a photo of a {}."), NAMES)
        endless = Template("very " * 200 + "{}.")
        if box.token_excess(endless.fill("ring")) > 0:
            with pytest.raises(TemplateError, match="too long"):
                box.check(endless, NAMES)
        else:
            box.check(endless, NAMES)  # it does not know its limit

    def test_soft_prompts_made_of_words_are_those_words(self, box: BlackBox) -> None:
        """One context for all classes, several at once, or one a class."""
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

    def test_gradients_or_a_clear_no(self, box: BlackBox) -> None:
        """A box that cannot carry them says so."""
        needs(box, Access.SOFT)
        contexts = torch.tensor(box.embed_text("a photo of a"))[None].requires_grad_()
        try:
            features = box.soft_features(contexts, NAMES, grad=True)
        except AccessError as refused:
            message = str(refused)
        else:
            (gradient,) = torch.autograd.grad(features[..., 0].sum(), contexts)
            assert gradient.abs().sum() > 0
            message = "gradients"
        assert "gradients" in message

    def test_more_than_it_offers_is_an_access_error(self, box: BlackBox) -> None:
        """What lies beyond its level is refused by name."""
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

    def test_it_works_behind_the_meter(self, box: BlackBox) -> None:
        """What was asked once is not paid for again."""
        ledger = Ledger()
        metered = MeteredBox(box, ledger)
        templates = [Template("a photo of a {}."), Template("a small {}.")]
        received, texts = len(IMAGES), len(templates) * len(NAMES)
        if box.info.access < Access.FEATURES:
            texts *= -(-len(IMAGES) // box.images_per_call)
            received = box.to_send(IMAGES.images) * (1 if box.holds_images else len(templates))
        scores = metered.score_templates(IMAGES, templates, NAMES)
        assert scores.shape == (2, len(IMAGES), len(NAMES))
        assert ledger["text_encodings"] == texts
        assert ledger["image_encodings"] == received
        again = metered.score_templates(IMAGES, templates, NAMES)
        np.testing.assert_array_equal(again, scores)
        assert ledger["text_encodings"] == texts
