"""Descriptions are taken where the shots say that they help, class by class, and not elsewhere."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from describer import Describer
from typer.testing import CliRunner

import llmopt
from llmopt.cli.app import app
from llmopt.data.shapes import ShapesDataset
from llmopt.errors import ConfigError
from llmopt.export.formats import export
from llmopt.figures import percent
from llmopt.runs.folder import read_result
from llmopt.search.text.describing import parse_captions
from llmopt.search.text.weighing import Shots
from llmopt.task import FewShot, Task
from llmopt.testing.world import make_task, stage
from llmopt.vision.base import Access, BlackBox, BoxInfo

pytestmark = pytest.mark.usefixtures("shared_cache")

SHAPES = ShapesDataset("shapes-solid").classnames
CODES = [f"class_{k:02d}" for k in range(len(SHAPES))]


def task(names: Sequence[str] = CODES, shots: int = 2) -> Task:
    data = ShapesDataset("shapes-solid")
    (images, labels), (more, marks) = data.split("train"), data.split("test")
    train = [i for k in range(len(names)) for i in np.flatnonzero(np.asarray(labels) == k)[:shots]]
    return Task.from_images(
        [images[i] for i in train],
        [int(labels[i]) for i in train],
        names,
        test=(list(more[:200]), [int(k) for k in marks[:200]]),
    )


def told(wrong: Sequence[int] = ()) -> dict[str, list[str]]:
    """Of each code what it stands for; of some of them something else."""
    true = {
        k: (SHAPES[(k + 1) % len(SHAPES)] if k in wrong else SHAPES[k]) for k in range(len(CODES))
    }
    return {
        code.replace("_", " "): [f"a photo of a {true[k]}.", f"a picture of a {true[k]}."]
        for k, code in enumerate(CODES)
    }


def test_codes_are_described_by_a_model(tmp_path: Path) -> None:
    model = Describer(said=told())
    run = llmopt.run(
        model="shapes-tiny",
        task=task(),
        optimizer="describe",
        llm=model,
        settings={"batch": 5},
        runs=tmp_path,
    )
    assert run.result["baseline"]["test_accuracy"] < 0.3
    assert run.result["best"]["test_accuracy"] > 0.45
    assert run.result["optimizer"]["summary"]["classes_described"] == len(CODES)
    assert run.ledger["llm_calls"] <= 2 * 3 + 1
    assert "a photo of a class 00." in model.seen[0]


def test_what_hurts_a_class_goes_back_to_the_template(tmp_path: Path) -> None:
    names = list(SHAPES)
    said = {n: [f"a photo of a {n}, a {n}."] for n in names}
    said[names[0]] = [f"a {names[0]}, no, a photo of a {names[1]}, a {names[1]}, a {names[1]}."]
    run = llmopt.run(
        model="shapes-tiny",
        task=task(names, shots=4),
        optimizer="describe",
        llm=Describer(said=said),
        settings={"contrast": 0},
        runs=tmp_path,
    )
    best = run.result["best"]
    assert best["test_accuracy"] >= run.result["baseline"]["test_accuracy"] - 0.02


def test_nonsense_is_not_taken(tmp_path: Path) -> None:
    said = {code: [f"{code} in nothing at all."] for code in told()}
    run = llmopt.run(
        model="shapes-tiny",
        task=task(),
        optimizer="describe",
        llm=Describer(said=said),
        runs=tmp_path,
    )
    assert run.result["best"]["fallback"] or run.gain >= 0
    rotated = told(wrong=range(len(CODES)))
    run = llmopt.run(
        model="shapes-tiny",
        task=task(),
        optimizer="describe",
        llm=Describer(said=rotated),
        runs=tmp_path,
    )
    assert run.result["best"]["test_accuracy"] >= run.result["baseline"]["test_accuracy"] - 0.05


@pytest.fixture(scope="module")
def filed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filed")
    (folder / "d.json").write_text(json.dumps({"pets": told(), "x": {"y": ["z"]}}))
    run = llmopt.run(
        model="shapes-tiny",
        task=task(),
        optimizer="describe",
        descriptions=str(folder / "d.json"),
        runs=folder,
    )
    assert run.result["best"]["test_accuracy"] > 0.45
    assert run.ledger["llm_calls"] == 0
    return Path(run.folder)


def test_exports_hold_the_prompts_of_each_class(filed: Path) -> None:
    (cupl,) = export(filed, "cupl").files.values()
    lists = json.loads(cupl)
    assert set(lists) == {code.replace("_", " ") for code in CODES}
    assert f"a photo of a {SHAPES[0]}." in lists["class 00"]
    again = export(filed, "clip-benchmark", key="mine").files["templates.json"]
    assert json.loads(again)["mine"] == lists
    (ours,) = export(filed, "json").files.values()
    weights = [sum(p["weight"] for p in own) for own in json.loads(ours)["by_class"]]
    assert weights == pytest.approx([1.0] * len(CODES))
    (script,) = export(filed, "openclip").files.values()
    found: dict[str, Any] = {}
    exec(script.decode(), found)  # noqa: S102 (our own export)
    assert found["TEMPLATES"][0](0) == lists["class 00"][0]
    with pytest.raises(ConfigError, match=r"these have: .*cupl"):
        export(filed, "txt")


def test_the_report_tells_of_the_prompts_of_each_class(filed: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(filed)])
    assert done.exit_code == 0, done.output
    shown = (filed / "report.html").read_text()
    first = read_result(filed)["per_class"][0]
    recalls = f"{percent(first['start_recall'])} → {percent(first['recall'])}"
    assert f'{CODES[0]}</bdi> <span class="note">{recalls}</span>' in shown
    assert f"a photo of a {SHAPES[0]}. (0.5" in shown


def test_a_run_is_loaded_and_scored_again(filed: Path) -> None:
    run = llmopt.load(filed)
    assert "descriptions of 12" in run.predictor_.describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "describe", "llm": "builtin"}, "built-in rewriter does not know"),
        ({"optimizer": "chat", "descriptions": "x"}, "is for --optimizer auto and describe"),
        ({"optimizer": "describe", "settings": {"profile": "file"}}, "--descriptions FILE"),
        ({"optimizer": "describe", "descriptions": "/no/file"}, "No such file"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        llmopt.run(dataset="shapes-small", runs=tmp_path, **options)


@pytest.mark.parametrize(
    "reply",
    [
        "cat:\n- a cat with whiskers\n- a striped cat\n\ndog:\n- a dog",
        "## Cat\n1. a cat with whiskers\n2. a striped cat\n## Dog\n1. a dog",
        "1. **cat**:\n   * a cat with whiskers\n   * a striped cat\n2. **dog**:\n   * a dog",
        '```json\n{"cat": ["a cat with whiskers", "a striped cat"], "dog": "a dog"}\n```',
        '<think>cat: - no</think>cat: \n- "a cat with whiskers"\n- a striped cat\nDOG: a dog',
        "cat:\n- a cat with whiskers\n- a dog\n- a striped cat\nbird:\n- a bird\ndog:\n- a dog",
    ],
)
def test_replies_are_read(reply: str) -> None:
    assert parse_captions(reply, ["cat", "dog"]) == [
        ["a cat with whiskers", "a striped cat"],
        ["a dog"],
    ]


class Wide(BlackBox):
    """Random features as wide as a small CLIP's."""

    def image_features(self, images: Sequence[Any]) -> Any:
        return self.features(len(images))

    def text_features(self, prompts: Sequence[str]) -> Any:
        return self.features(len(prompts))

    def features(self, count: int) -> Any:
        drawn = np.random.default_rng(count).standard_normal((count, 256), dtype=np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    @property
    def info(self) -> BoxInfo:
        return BoxInfo("wide", "", Access.FEATURES, "0" * 64)


def test_many_descriptions_are_held_in_memory_once(tmp_path: Path) -> None:
    """Their features, that is; weighing them takes little beside."""
    world = make_task(shots=2)
    names = tuple(f"thing {k}" for k in range(200))
    few = FewShot((), np.zeros(0, np.int64))
    many = replace(
        world,
        classnames=names,
        train=FewShot(world.train.images, np.arange(len(world.train))),
        val=few,
    )
    prompts = [[f"a photo of a {name}, {n}." for n in range(100)] for name in names]
    held = 200 * 100 * 256 * 4
    with stage(tmp_path, many, Wide()) as held_stage:
        shots = Shots.of(held_stage.search)
        before = shots.plain(held_stage.search)
        tracemalloc.start()
        try:
            shots.weigh(held_stage.search, prompts, before)
            least, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert least < 1.5 * held
    assert most < 3 * held
