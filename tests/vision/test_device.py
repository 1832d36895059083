"""Models on devices that this machine may lack, and devices whose memory does not suffice."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_folders
import torch
from stand_in_card import stand_in
from tiny_clip import families, tiny, tokenizer_for

import llmopt
from llmopt.data.shapes import ShapesDataset
from llmopt.errors import ModelError
from llmopt.vision import device
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.text_engine.engine import TextEngine

IMAGES = ShapesDataset("shapes-small").split("test")[0][:5]
NAMES = ["circle", "big_star", "jack-o'-lantern"]
TEXTS = [f"a photo of a {name}." for name in NAMES] + ["a small circle on the left."]
TOLERANCE = {"fp64": 1e-6, "fp32": 1e-4, "fp16": 5e-3, "bf16": 3e-2}


def features(box: OpenClipBlackBox) -> list[Any]:
    """Of images, texts and soft prompts, and a token's vectors."""
    found = [box.image_features(IMAGES), box.text_features(TEXTS), box.embed_text("a small")]
    if box.engine.path == "trie":
        generator = torch.manual_seed(0)
        contexts = torch.randn(5, 4, found[2].shape[1], generator=generator)
        found.append(box.soft_features(contexts, NAMES).cpu().numpy())
        found.append(box.vocabulary.vectors([3, 5]).cpu().numpy())
    return found


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    return features(OpenClipBlackBox(device="cpu"))


PLACES = [(where, precision) for where in ("cuda:0", "mps:0") for precision in TOLERANCE]


@pytest.mark.parametrize(
    ("where", "precision"),
    [
        pytest.param(*place, marks=[] if place in (PLACES[2], PLACES[4]) else pytest.mark.slow)
        for place in PLACES
    ],
)
def test_the_embedded_model_elsewhere(where: str, precision: str, expected: list[Any]) -> None:
    with stand_in(where):
        if (where, precision) == ("mps:0", "fp64"):
            with pytest.raises(ModelError, match=r"cannot compute in fp64 on mps:0.*--precision"):
                OpenClipBlackBox(device=where, precision=precision)
            return
        box = OpenClipBlackBox(device=where, precision=precision)
        assert not box.info.repeatable
        assert (box.info.precision, box.device.type) == (precision, where[:-2])
        for found, own in zip(features(box), expected, strict=True):
            np.testing.assert_allclose(found, own, atol=TOLERANCE[precision])


@pytest.mark.parametrize("kind", tiny_folders.KINDS)
@pytest.mark.slow
def test_every_kind_of_tower_on_a_card(kind: str, tmp_path: Path) -> None:
    name = tiny_folders.write(tmp_path / "model", kind)
    own = OpenClipBlackBox(name, device="cpu", precision="fp32")
    with stand_in("cuda:0"):
        box = OpenClipBlackBox(name, device="cuda:0", precision="fp16")
        assert np.abs(box.image_features(IMAGES) - own.image_features(IMAGES)).max() < 2e-2
        assert np.abs(box.text_features(TEXTS) - own.text_features(TEXTS)).max() < 2e-2


def some(given: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """All of them, most of them slow: they go ways through the code that others go too."""
    return [pytest.param(x, marks=[] if x in fast else pytest.mark.slow) for x in given]


SEARCHES: dict[str, dict[str, Any]] = {
    "chat": {"iterations": 1},
    "random": {"evaluations": 10},
    "craft": {"budget": 40},
    "craft released": {"budget": 40},
    "craft paper": {"budget": 40},
    "cbbt": {"budget": 40},
    "cbbt own": {"budget": 40, "own": True},
    "zip": {"budget": 20},
    "zip released": {"budget": 20},
    "bbt": {"budget": 40},
    "bbt released": {"budget": 40},
    "bptvlm": {"budget": 40},
    "bptvlm released": {"budget": 40},
}


@pytest.fixture(scope="module")
def task() -> llmopt.Task:
    """Four images of each of three shapes, and twenty to test on."""
    dataset = ShapesDataset("shapes-small")
    images, labels = dataset.split("train")
    train = [i for k in range(3) for i in np.flatnonzero(labels == k)[:4]]
    test = np.flatnonzero(labels < 3)[-20:]

    def pictures(places: Any) -> Any:
        return [np.asarray(images[i].load()) for i in places], labels[places]

    return llmopt.Task.from_images(*pictures(train), dataset.classnames[:3], test=pictures(test))


def run(search: str, where: str, task: llmopt.Task, runs: Path) -> dict[str, Any]:
    """The result of a search."""
    optimizer, _, form = search.partition(" ")
    settings = dict(SEARCHES.get(search, {}))
    published = form in ("released", "paper")
    options = {"llm": "builtin", "head": "auto"} if search == "chat" else {}
    if not published and search != "chat":
        options["head"] = "none"
    if published:
        settings["profile"] = form
    return llmopt.run(
        task=task, model="shapes-tiny", optimizer=optimizer, settings=settings, device=where,
        precision="fp64", runs=runs, **options,
    ).result  # fmt: skip


@pytest.mark.parametrize("search", some(SEARCHES, ("chat", "craft released", "cbbt own")))
def test_a_run_on_a_card_ends_as_on_the_cpu(
    search: str, task: llmopt.Task, tmp_path: Path, shared_cache: None
) -> None:
    here = run(search, "cpu", task, tmp_path)
    with stand_in("cuda:0"):
        there = run(search, "cuda:0", task, tmp_path)
    for part in ("best", "baseline", "ledger", "evaluation"):
        assert there[part] == here[part]
    assert there["machine"] | {"precision": "fp64", "tf32": False} == there["machine"]


@pytest.mark.gpu
@pytest.mark.parametrize("search", [*SEARCHES, "coop", "coop released", "cbbt released"])
def test_a_run_on_a_true_card(
    search: str, task: llmopt.Task, tmp_path: Path, shared_cache: None
) -> None:
    here, there = (run(search, where, task, tmp_path) for where in ("cpu", "cuda"))
    assert there["ledger"] == here["ledger"]
    assert there["baseline"] == here["baseline"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_embedded_model_on_a_true_card(precision: str, expected: list[Any]) -> None:
    box = OpenClipBlackBox(device="cuda", precision=precision)
    for found, own in zip(features(box), expected, strict=True):
        np.testing.assert_allclose(found, own, atol=TOLERANCE[precision])


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there["mps"])
    assert device.choose("auto").type == "cuda"
    there["cuda"] = False
    assert device.choose("auto").type == "mps"
    there["mps"] = False
    assert device.choose("auto").type == "cpu"
    there.update(cuda=True, mps=True)
    embedded = OpenClipBlackBox()  # which repeats on the CPU only
    assert (embedded.device.type, embedded.info.repeatable) == ("cpu", True)


def test_convolutions_are_not_rounded_to_tf32() -> None:
    flags = torch.backends.cudnn
    before = flags.allow_tf32
    with device.whole_fp32():
        assert not flags.allow_tf32
    assert flags.allow_tf32 == before


class Full:
    """A device that has room for so much at once and no more."""

    def __init__(self, room: int) -> None:
        self.room, self.asked = room, []

    def take(self, size: int) -> None:
        self.asked.append(size)
        if size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_images_that_do_not_fit_go_in_smaller_batches(
    expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = OpenClipBlackBox(device="cpu", batch_size=4)
    card, own = Full(2), box._model.encode_image

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        card.take(len(pixels))
        return own(pixels)

    monkeypatch.setattr(box._model, "encode_image", encode)
    np.testing.assert_allclose(box.image_features(IMAGES), expected[0], atol=1e-6)
    assert card.asked == [4, 2, 2, 1]
    box.image_features(IMAGES)
    assert card.asked[4:] == [2, 2, 1]  # remembered
    card.room = 0
    with pytest.raises(ModelError, match=r"no memory for 1 image .*--device cpu"):
        box.image_features(IMAGES)


@pytest.mark.parametrize("kind", ["trie", "padded"])
def test_texts_that_do_not_fit_go_in_smaller_pieces(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ViT-B-32" if kind == "trie" else families_of_padded()
    engine = TextEngine(tiny(name), tokenizer_for(name), cache_bytes=0)
    assert engine.path == kind
    texts = [f"a {word} {name}" for word in ("small", "big", "old", "new") for name in NAMES * 9]
    contexts = torch.randn(6, 4, 16, generator=torch.manual_seed(0))
    own = engine.encode(texts)
    if kind == "trie":
        own_soft = engine.encode_soft(contexts, NAMES)
    card, step = Full(40 if kind == "trie" else 2), torch.nn.functional.layer_norm

    def norm(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        card.take(x.shape[:-1].numel() if kind == "trie" else len(x))
        return step(x, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "layer_norm", norm)
    torch.testing.assert_close(engine.encode(texts), own, atol=1e-6, rtol=0)
    assert max(card.asked) > card.room
    if kind == "trie":
        torch.testing.assert_close(engine.encode_soft(contexts, NAMES), own_soft, atol=1e-6, rtol=0)
    card.asked.clear()
    engine.encode(texts)
    assert max(card.asked) <= card.room
    card.room = 0
    with pytest.raises(ModelError, match="no memory for"):
        engine.encode(texts)


def families_of_padded() -> str:
    """A configuration whose tower is no tree and whose tokenizer needs no hub."""
    return next(names[0] for kind, names in families().items() if "coca" in kind)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_say_that_memory_is_full(error: Exception, full: bool) -> None:
    portion = device.Portion(8, 1, "image")
    if not full:
        with pytest.raises(type(error)), portion.halved_if_full():
            raise error
    else:
        with portion.halved_if_full():
            raise error
    assert portion.size == (4 if full else 8)


def test_a_card_too_small_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in("cuda:0") as card:
        card.largest = 1000
        with pytest.raises(ModelError, match="cannot compute in fp16 on cuda:0: CUDA out of mem"):
            OpenClipBlackBox(device="cuda:0", precision="fp16")
