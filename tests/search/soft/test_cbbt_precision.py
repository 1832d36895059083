"""The released gradient estimate of ``cbbt`` in the precision that it runs in, against float64.

Its steps are a thousandth of a sphere, and a loss of which only six digits hold has no difference
left over them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_clip import write_model
from soft_box import Bench, SoftBox, make_task

from llmopt.errors import UserError
from llmopt.search.soft.cbbt_published import CbbtReleased, CbbtReleasedSettings, Training
from llmopt.search.soft.machinery.point import Array, Point
from llmopt.task import Task
from llmopt.vision.openclip import OpenClipBlackBox

VIT_B_32 = {"width": 512, "heads": 8, "layers": 12}
"""Text tower of the models that the paper tunes; with one token, eps is the thousandth part that
they are tuned with."""
SHORT = {"width": 256, "heads": 4, "layers": 2}


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(SoftBox(), shots=4)[0]


def estimate(
    model: str, precision: str, device: str, task: Task, folder: Path, directions: int
) -> Array:
    """The gradient that the first step of a run goes down."""
    found: list[Array] = []
    box = OpenClipBlackBox(model, precision=precision, device=device)
    settings = CbbtReleasedSettings(epochs=2, directions=directions)
    with pytest.MonkeyPatch.context() as patch, Bench(folder, task, box) as bench:  # type: ignore[arg-type]
        patch.setattr(Point, "descend", lambda point, gradient, *_: found.append(gradient))
        Training(settings, bench.search, 2)._batch(0, 0)
    return found[0]


@pytest.mark.parametrize(
    ("text", "directions", "device"),
    [
        (SHORT, 16, "cpu"),
        pytest.param(VIT_B_32, 256, "cpu", marks=pytest.mark.slow),
        pytest.param(VIT_B_32, 256, "cuda", marks=pytest.mark.gpu),
    ],
)
def test_the_estimate_is_that_of_float64(
    text: dict[str, int], directions: int, device: str, task: Task, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "model", scale=100.0, **text)
    exact = estimate(model, "fp64", "cpu", task, tmp_path / "exact", directions)
    found = estimate(model, "full", device, task, tmp_path / "found", directions)
    assert np.linalg.norm(exact) > 0
    cosine = found @ exact / np.linalg.norm(found) / np.linalg.norm(exact)
    assert cosine > 0.99


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_refused_for_it(precision: str, task: Task, tmp_path: Path) -> None:
    box = OpenClipBlackBox(write_model(tmp_path / "model"), precision=precision)
    with pytest.raises(UserError, match="use --precision full"):
        CbbtReleased(CbbtReleasedSettings()).check(box, task)
