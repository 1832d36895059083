"""Everything in one search: each stage is kept where it convinces, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from describer import Describer

import llmopt
from llmopt.data.shapes import ShapesDataset
from llmopt.data.worlds import open_world
from llmopt.search.text.auto import _is_code
from llmopt.search.text.described import DescribedPredictor
from llmopt.task import Task

pytestmark = pytest.mark.usefixtures("shared_cache")

SHAPES = ShapesDataset("shapes-small").classnames
CODES = [f"class_{k:02d}" for k in range(len(SHAPES))]


def task(names: list[str], shots: int = 4) -> Task:
    """Images of shapes-small, the first of each class; a third as many to validate."""
    data = ShapesDataset("shapes-small")
    (images, labels), (more, marks) = data.split("train"), data.split("test")
    places = [np.flatnonzero(np.asarray(labels) == k) for k in range(len(names))]
    train = [i for own in places for i in own[:shots]]
    return Task.from_images(
        [images[i] for i in train],
        [int(labels[i]) for i in train],
        names,
        test=(list(more[:120]), [int(k) for k in marks[:120]]),
    )


def run(runs: Path, names: list[str], **options: Any) -> llmopt.Run:
    options = {"llm": "builtin", "model": "shapes-tiny", "optimizer": "auto", **options}
    options.setdefault("settings", {"budget": 100})
    return llmopt.run(task=task(names), runs=runs, **options)


def test_codes_and_a_property_without_a_language_model(tmp_path: Path) -> None:
    found = run(tmp_path, CODES)
    assert found.result["baseline"]["test_accuracy"] < 0.2
    assert found.result["best"]["test_accuracy"] > 0.8
    stages = found.result["optimizer"]["summary"]["stages"]
    assert [stage["name"] for stage in stages] == ["rename", "chat", "by class", "describe", "head"]
    assert [stage["kept"] for stage in stages[:4]] == [True, True, False, False]
    assert "left out" in stages[3]["why"]
    assert "small" in found.templates[0].text
    assert found.predictor.innermost.classnames[0] == "circle"


def test_a_model_that_knows_describes(tmp_path: Path) -> None:
    said = {name: [f"a photo of a small {name}."] for name in SHAPES}
    found = run(tmp_path, list(SHAPES), llm=Describer(said=said))
    stages = found.result["optimizer"]["summary"]["stages"]
    assert stages[3]["name"] == "describe"
    assert stages[3]["spent"]["llm_calls"] >= 2
    assert found.result["best"]["test_accuracy"] >= found.result["baseline"]["test_accuracy"]


def test_a_file_knows_the_classes_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    said = {code: [f"a photo of a {name}."] for code, name in zip(CODES, SHAPES, strict=True)}
    path.write_text(json.dumps(said))
    settings = {"budget": 16, "rename": False}
    found = run(tmp_path, CODES, descriptions=str(path), settings=settings)
    stages = found.result["optimizer"]["summary"]["stages"]
    assert [stage["name"] for stage in stages] == ["chat", "by class", "describe", "head"]
    assert stages[2]["kept"]
    assert found.predictor.innermost.classnames == tuple(CODES)


def test_a_file_knows_classes_that_were_renamed_by_the_names_they_came_with(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text(json.dumps({code: ["a photo of a small {}."] for code in CODES}))
    found = run(tmp_path, CODES, descriptions=str(path), settings={"chat": False})
    rename, describe, _ = found.result["optimizer"]["summary"]["stages"]
    assert (rename["name"], rename["kept"]) == ("rename", True)
    assert (describe["name"], describe["kept"]) == ("describe", True)
    predictor = found.predictor.innermost
    assert isinstance(predictor, DescribedPredictor)
    assert predictor.classnames[:2] == ("circle", "square")
    assert predictor.prompts[0] == ("a photo of a small circle.",)
    assert found.result["best"]["test_accuracy"] > 0.9


def test_each_class_has_its_own_template_where_no_one_suits_all(tmp_path: Path) -> None:
    data = open_world("shapes-mixed")
    images, labels = data.split("test").images, data.split("test").labels
    few, rest = slice(0, 48), slice(48, 168)
    mixed = Task.from_images(
        images[few], labels[few].tolist(), SHAPES, test=(images[rest], labels[rest].tolist())
    )
    options: dict[str, Any] = {
        "llm": "builtin",
        "model": "shapes-tiny",
        "settings": {"budget": 200},
    }
    found = llmopt.run(task=mixed, optimizer="auto", head="none", runs=tmp_path, **options)
    stages = {one["name"]: one for one in found.result["optimizer"]["summary"]["stages"]}
    assert stages["by class"]["kept"]
    assert "text_encodings" not in stages["by class"]["spent"]
    assert found.result["gain"]["test_accuracy"] > 0.15
    best = found.predictor.by_class
    assert best is not None
    red = [sum(weight for text, weight in best[k].items() if "red" in text) for k in range(12)]
    assert min(red[1::2]) > max(red[::2])


def test_names_of_which_something_can_be_said() -> None:
    assert all(map(_is_code, ["class_07", "n01440764", "B-12", "737", "label 3"]))
    assert not any(map(_is_code, ["dog", "Boeing 737", "2012 BMW M3 Coupe", "犬", "fly", "ox"]))


@pytest.mark.parametrize("cap", [13, 300])
def test_a_cap_ends_it_with_the_best_so_far(tmp_path: Path, cap: int) -> None:
    found = run(tmp_path, CODES, max_queries=cap)
    assert min(cap, 200) <= found.ledger["text_encodings"] + len(CODES) <= cap + len(CODES)
    assert found.result["best"]["test_accuracy"] >= found.result["baseline"]["test_accuracy"] - 0.02
