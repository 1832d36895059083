from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from llmopt.errors import AccessError, TemplateError
from llmopt.images import Image
from llmopt.task import FloatArray
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox, pictures
from llmopt.vision.base import Access, BlackBox, BoxInfo

IMAGES = pictures("train", 2)
PROMPTS = [f"a photo of a {name}." for name in NAMES]


class Bare(BlackBox):
    """Offers nothing of what it declares."""

    def __init__(self, access: Access, bias: float = 0.0) -> None:
        self._info = BoxInfo("bare", "", access, "0" * 64, logit_scale=2.0, logit_bias=bias)

    @property
    def info(self) -> BoxInfo:
        return self._info


class OnlyFeatures(Bare):
    def image_features(self, images: Sequence[Image]) -> FloatArray:
        return np.eye(3, dtype=np.float32)[: len(images)]

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        return np.eye(3, dtype=np.float32)[[2, 0]][: len(prompts)]


def test_levels_include_the_ones_below() -> None:
    assert Access.LABELS < Access.SCORES < Access.FEATURES < Access.SOFT
    assert [str(level) for level in Access] == ["labels", "scores", "features", "soft"]


def test_scores_and_labels_follow_from_features() -> None:
    box = OnlyFeatures(Access.FEATURES, bias=-1.0)
    scores = box.scores(IMAGES.images[:3], ["a", "b"])
    assert scores.dtype == np.float32
    assert scores.tolist() == [[-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]
    assert box.labels(IMAGES.images[:3], ["a", "b"]).tolist() == [1, 0, 0]


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_logits_take_any_leading_batch(lead: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(5, 6)), rng.normal(size=(*lead, 7, 6))
    found = Bare(Access.FEATURES, bias=0.5).logits(images, texts)
    assert found.shape == (*lead, 5, 7)
    np.testing.assert_allclose(
        found[(0,) * len(lead)], 2.0 * images @ texts[(0,) * len(lead)].T + 0.5
    )


@pytest.mark.parametrize("level", list(Access))
def test_what_a_level_does_not_offer_says_so(level: Access) -> None:
    box = FakeBox(level)
    uses = {
        Access.LABELS: lambda: box.labels(IMAGES.images, PROMPTS),
        Access.SCORES: lambda: box.scores(IMAGES.images, PROMPTS),
        Access.FEATURES: lambda: (box.image_features(IMAGES.images), box.text_features(PROMPTS)),
        Access.SOFT: lambda: (box.embed_text("a photo"), box.embedding_std),
    }
    for needed, use in uses.items():
        if needed <= level:
            use()
            continue
        with pytest.raises(AccessError, match=rf"fake .* it offers '{level}'"):
            use()


@pytest.mark.parametrize("level", list(Access))
def test_the_base_class_refuses_what_is_not_overridden(level: Access) -> None:
    box = Bare(level)
    for use in (
        lambda: box.image_features(IMAGES.images),
        lambda: box.text_features(PROMPTS),
        lambda: box.soft_features(None, NAMES),  # type: ignore[arg-type]
        lambda: box.embed_text("a"),
        lambda: box.embedding_std,
    ):
        with pytest.raises(AccessError) as refused:
            use()
        said = str(refused.value)
        assert "bare" in said
        assert f"'{level}'" in said
        assert "llmopt models list" in said
        assert refused.value.exit_code == 2


def test_scores_of_a_box_of_labels_are_refused() -> None:
    with pytest.raises(AccessError, match="bare does not give scores: it offers 'labels'"):
        Bare(Access.LABELS).scores(IMAGES.images, PROMPTS)


def test_normal_forms_without_a_tokenizer_ignore_case_and_space() -> None:
    one, other, third = Bare(Access.SCORES).normal_forms(["A  cat", "a cat ", "a cat."])
    assert one == other != third


def test_length_is_checked_with_the_longest_class_name() -> None:
    box = FakeBox()
    template = Template("a " * 20 + "{}.")
    box.check(template, ["cat", "dog"])
    names = ["cat", "a class with quite a few words", "big dog"]
    with pytest.raises(TemplateError) as refused:
        box.check(template, names)
    said = str(refused.value)
    assert "3 tokens too long for fake" in said
    assert "a class with quite a few words" in said
    assert repr(template.text) in said


def test_templates_are_never_too_long_where_the_limit_is_not_known() -> None:
    Bare(Access.SCORES).check(Template("very " * 500 + "{}"), NAMES)
    Bare(Access.SCORES).check(Template("{}"), [])
