"""``--precision auto``: what decides it, that it is said, and that a run keeps it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import write_folder
from tiny_folders import write

import llmopt
from llmopt.errors import ConfigError, ModelError
from llmopt.runs.compose import Given, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.engine import start
from llmopt.runs.folder import read_run_config
from llmopt.runs.machine import machine
from llmopt.runs.plan import make_plan
from llmopt.spend.events import Note, Watch
from llmopt.task import FloatArray
from llmopt.testing.world import FakeBox, make_task
from llmopt.vision import openclip, precision
from llmopt.vision.base import BoxInfo
from llmopt.vision.feature_cache import FeatureCache
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.precision import MOST, by_rule, made_for_bf16, settle

MADE_FOR_IT = "flags : fpu avx512f avx512_bf16 amx_tile\n"


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What the kernel says of a processor made for bfloat16; to be written over."""
    file = tmp_path / "cpuinfo"
    file.write_text(MADE_FOR_IT)
    monkeypatch.setattr(precision, "_CPUINFO", file)
    return file


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    write(folder)
    return f"local-dir:{folder}"


@pytest.mark.parametrize(
    ("asked", "device", "embedded", "expected"),
    [
        ("auto", "cpu", False, "fp32"),
        ("auto", "cpu", True, "fp64"),
        ("auto", "cuda", False, "fp16"),
        ("auto", "cuda", True, "fp64"),
        ("auto", "mps", True, "fp32"),
        ("auto", "mps", False, "fp16"),
        ("full", "cpu", False, "fp32"),
        ("full", "cpu", True, "fp64"),
        ("full", "cuda", False, "fp32"),
        ("full", "mps", True, "fp32"),
        ("bf16", "cpu", True, "bf16"),
        ("fp64", "cuda", False, "fp64"),
    ],
)
def test_the_rule(asked: str, device: str, embedded: bool, expected: str) -> None:
    assert by_rule(asked, device, embedded) == expected


def test_an_unknown_precision_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"did you mean 'bf16'.*use auto, full, fp64"):
        by_rule("bf61", "cpu", False)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (MADE_FOR_IT, True),
        ("flags\t\t: amx_bf16 amx_tile", True),
        ("flags : avx2 avx512f avx512_bf16x", False),
        ("Features : fp asimd bf16", False),  # ARM, where it is not known to pay
        ("", False),
    ],
)
def test_what_the_kernel_says_of_a_processor(processor: Path, said: str, expected: bool) -> None:
    processor.write_text(said)
    assert made_for_bf16() is expected
    processor.unlink()
    assert not made_for_bf16()


# ------------------------------------------------------------------------------- the closer look


class Rounded(FakeBox):
    """As the fake one, but for the images it sees otherwise."""

    def __init__(self, mistaken: int = 0) -> None:
        super().__init__()
        self._mistaken = mistaken

    @property
    def info(self) -> BoxInfo:
        return dataclasses.replace(super().info, weights_sha256="e" * 64, precision="bf16")

    def image_features(self, images: Any) -> FloatArray:
        found = super().image_features(images) + np.float32(1e-3)
        found[: self._mistaken] *= -1
        return found


def looked(tmp_path: Path, other: Any, shots: int = 8) -> tuple[Any, str, FakeBox]:
    box = FakeBox()
    found, why = settle(box, other, make_task(shots=shots), FeatureCache(tmp_path))
    return found, why, box


@pytest.mark.usefixtures("processor")
def test_bf16_is_taken_where_every_image_is_predicted_alike(tmp_path: Path) -> None:
    other = Rounded()
    found, why, box = looked(tmp_path, lambda: other)
    assert found is other
    assert why.startswith("bf16: ")
    assert f"{MOST} labelled images are all predicted as in fp32" in why
    for one in (box, other):
        assert one.asked["image_encodings"] == MOST
        assert not any("test" in name for name in one.images)
    looked(tmp_path, lambda: other)
    assert other.asked["image_encodings"] == MOST  # the next run finds them on disk


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("mistaken", [1, 5])
def test_one_image_predicted_otherwise_decides_for_fp32(tmp_path: Path, mistaken: int) -> None:
    found, why, box = looked(tmp_path, lambda: Rounded(mistaken))
    assert found is box
    assert why == f"fp32: {mistaken} of {MOST} labelled images are predicted otherwise in bf16"


def no_box() -> Any:
    raise AssertionError("it is not opened")


@pytest.mark.usefixtures("processor")
def test_too_few_images_decide_nothing(tmp_path: Path) -> None:
    found, why, box = looked(tmp_path, no_box, shots=1)
    assert found is box
    assert "too few" in why


def test_a_processor_not_made_for_it(processor: Path, tmp_path: Path) -> None:
    processor.write_text("flags : avx2")
    found, why, box = looked(tmp_path, no_box)
    assert found is box
    assert not box.asked
    assert why == "fp32: this processor is not made for bfloat16"


@pytest.mark.usefixtures("processor")
def test_a_model_that_cannot_compute_in_it(tmp_path: Path) -> None:
    def broken() -> Any:
        raise ModelError("model 'x' cannot compute in bf16")

    found, why, box = looked(tmp_path, broken)
    assert found is box
    assert why == "fp32: model 'x' cannot compute in bf16"


# ------------------------------------------------------------------------------------- in a run


class Ears(Watch):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def tell(self, event: Any) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)


def config(tmp_path: Path, model: str, **options: Any) -> RunConfig:
    data = tmp_path / "data"
    if not data.exists():
        write_folder(data)
    common = {"dataset": f"folder:{data}", "shots": 2, "optimizer": "zeroshot", "device": "cpu"}
    return RunConfig(**{**common, "runs": str(tmp_path / "runs"), "model": model, **options})


def settled(tmp_path: Path, model: str, **options: Any) -> tuple[Any, list[str]]:
    ears = Ears()
    setup = compose(config(tmp_path, model, **options)).settled(ears)
    return setup, [note for note in ears.notes if note.startswith("precision")]


def alike(monkeypatch: pytest.MonkeyPatch, apart: int = 0) -> None:
    """Random weights see all images nearly alike: say how many are predicted otherwise."""

    def told(box: Any, in_bf16: Any, task: Any, features: Any) -> tuple[Any, str]:
        return (box, f"fp32: {apart} apart") if apart else (in_bf16(), "bf16: none apart")

    monkeypatch.setattr("llmopt.runs.compose.settle", told)


def test_a_run_says_and_keeps_what_was_decided(
    vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike(monkeypatch)
    ears = Ears()
    result = start(compose(config(tmp_path, vit)), ears)
    assert "precision bf16: none apart" in ears.notes
    assert result["machine"]["precision"] == "bf16"
    assert result["machine"]["precision_because"] == "bf16: none apart"
    assert not result["machine"]["same_elsewhere"]
    assert "thousandths" in result["machine"]["because"]
    folder = Path(result["run"])
    assert read_run_config(folder).precision == "bf16"

    monkeypatch.setattr("llmopt.runs.compose.settle", no_box)  # nobody looks again
    (folder / "result.json").unlink()
    again = llmopt.resume(folder).result
    assert again["machine"]["precision"] == "bf16"
    assert again["model"] == result["model"]
    assert again["best"] == result["best"]
    assert llmopt.load(folder)._box.info.precision == "bf16"
    found = llmopt.evaluate(folder)
    assert found["best_accuracy"] == result["best"]["test_accuracy"]


def test_fp32_is_what_the_rule_says_and_needs_no_keeping(
    vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike(monkeypatch, apart=3)
    ears = Ears()
    result = start(compose(config(tmp_path, vit)), ears)
    assert "precision fp32: 3 apart" in ears.notes
    assert result["machine"]["precision"] == "fp32"
    assert result["machine"]["precision_because"] == "fp32: 3 apart"
    assert read_run_config(Path(result["run"])).precision == "auto"


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("shapes-tiny", {}, "fp64"),
        ("shapes-tiny", {"precision": "bf16"}, "bf16"),
        ("", {"precision": "fp32"}, "fp32"),
        ("", {"precision": "bf16"}, "bf16"),
    ],
)
@pytest.mark.usefixtures("processor")
def test_who_asks_for_a_precision_gets_it_unasked(
    vit: str, tmp_path: Path, model: str, options: dict[str, str], expected: str
) -> None:
    setup, notes = settled(tmp_path, model or vit, **options)
    assert not notes
    assert setup.model.box.info.precision == expected
    assert setup.config.precision == options.get("precision", "auto")


@pytest.mark.usefixtures("processor")
def test_searches_that_need_full_precision_are_not_looked_at(vit: str, tmp_path: Path) -> None:
    setup, notes = settled(tmp_path, vit, optimizer="cbbt", settings={"profile": "released"})
    assert not notes
    assert (setup.config.precision, setup.model.box.info.precision) == ("full", "fp32")


def test_a_box_that_is_open_keeps_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that which the arms of a comparison share, so that all compute alike."""
    monkeypatch.setattr("llmopt.runs.compose.settle", no_box)
    shared = dataclasses.replace(FakeBox().info, precision="fp32")
    monkeypatch.setattr(FakeBox, "info", shared)
    setup = compose(config(tmp_path, "RN50"), Given(box=FakeBox())).settled(Ears())
    assert setup.config.precision == "auto"
    assert not setup.precision_why


def test_a_plan_says_what_auto_will_be(vit: str, tmp_path: Path, processor: Path) -> None:
    def said(model: str, **options: Any) -> str:
        return "\n".join(make_plan(compose(config(tmp_path, model, **options))).notes)

    assert "bf16, which this CPU is made for, if up to 32 labelled images" in said(vit)
    assert "Precision" not in said(vit, precision="fp32")
    assert "Precision" not in said("shapes-tiny")
    processor.write_text("flags : avx2")
    assert "fp32 on this CPU, which is not made for bfloat16" in said(vit)


def test_the_record_says_why_half_precision_may_end_elsewhere() -> None:
    exact = FakeBox().info
    for name in ("fp16", "bf16"):
        told = machine(dataclasses.replace(exact, precision=name), llm_repeats=True)
        assert told["precision"] == name
        assert name in told["because"]
        assert not told["same_elsewhere"]
    assert machine(exact, llm_repeats=True)["precision"] is None


def test_an_unknown_precision_is_refused_before_the_run(vit: str, tmp_path: Path) -> None:
    with pytest.raises((ModelError, ConfigError), match="fp8"):
        settled(tmp_path, vit, precision="fp8")


# ---------------------------------------------------------------------------------- memory format


def test_convolutions_are_channels_last_and_compute_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_task(shots=2).train.images
    fast = OpenClipBlackBox(device="cpu", precision="fp32")
    assert fast._format is torch.channels_last
    monkeypatch.setattr(openclip, "_format", lambda *_: torch.preserve_format)
    plain = OpenClipBlackBox(device="cpu", precision="fp32")
    assert fast.info.weights_sha256 == plain.info.weights_sha256
    apart = np.abs(fast.image_features(images) - plain.image_features(images)).max()
    assert apart < 1e-5


def test_what_gains_nothing_lies_as_it_did(vit: str) -> None:
    exact = OpenClipBlackBox(device="cpu")
    assert (exact._format, exact._batch.size) == (torch.preserve_format, 64)
    assert OpenClipBlackBox(vit, device="cpu", precision="bf16")._format is torch.preserve_format
    model: Any = exact._model
    for name, on_gpu, expected in (
        ("bf16", False, torch.channels_last),
        ("fp16", True, torch.channels_last),
        ("fp32", True, torch.preserve_format),
        ("fp64", False, torch.preserve_format),
    ):
        assert openclip._format(model, name, on_gpu) is expected


def test_a_given_batch_size_holds(vit: str) -> None:
    assert OpenClipBlackBox(vit, device="cpu")._batch.size == 16
    assert OpenClipBlackBox(vit, device="cpu", batch_size=3)._batch.size == 3
