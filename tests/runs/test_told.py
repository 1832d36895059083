"""A gain that is not the language model's is not told as its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmopt
from llmopt.cli.show import print_result
from llmopt.comparison.records import read_record
from llmopt.report.sections import sentence
from llmopt.runs.told import counts, stages, unaided
from llmopt.search.base import Stage

pytestmark = pytest.mark.usefixtures("shared_cache")


def result(fallback: bool = False, source: str = "", **summary: Any) -> dict[str, Any]:
    return {
        "stop_reason": "iterations",
        "optimizer": {"llm": "openai:m", "summary": summary},
        "best": {"fallback": fallback, "source": source},
    }


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ({"refusals": 6, "scored": 0}, "it refused every question (6 asked)."),
        ({"calls": 6, "refusal": 6, "proposals": 6}, "it refused every question (6 asked)."),
        ({"calls": 2, "refusals": 4, "refusal": 2}, "it refused every question (6 asked)."),
        ({"calls": 3, "refusals": 3, "slots": 9}, "not one of its 3 replies held a new template."),
        ({"calls": 1, "scored": 1}, ""),
        ({"calls": 0}, ""),
        ({"gain_nats": 0.5}, ""),
    ],
)
def test_what_a_model_contributed(summary: dict[str, int], said: str) -> None:
    source = " What was found comes from the hand-crafted templates."
    nothing = f"openai:m contributed nothing: {said}" if said else ""
    found = result(source="the hand-crafted templates", **summary)
    if summary.get("scored"):
        nothing = "openai:m contributed nothing: none of its 1 new templates was better."
        assert unaided(found) == nothing + source
        assert unaided(result(source="the language model", **summary)) == ""
        return
    assert unaided(found) == (nothing + source if said else "")
    assert unaided(result(fallback=True, **summary)) == nothing


def test_a_model_that_was_not_asked() -> None:
    unasked = {**result(probes=300), "stop_reason": "nothing left to gain"}
    said = "openai:m was not asked: the probes left nothing to gain on the few shots."
    assert unaided(unasked) == said


def test_counts_under_names_for_people() -> None:
    found = counts(
        {"refusals": 2, "refusal": 4, "classname": 1, "too_long": 3, "slots": 0, "head": "x"}
    )
    assert found == {"refusals": 6, "naming a class": 1, "too long": 3, "head": "x"}


def test_stages_as_rows() -> None:
    held = Stage("chat", True, "likelier", 0.5, 0.125, (0.25, 1.0), {"text_encodings": 1200})
    summary = {"probes": 3, "stages": [held.to_json(), Stage("soft", False, "left out").to_json()]}
    assert stages(summary) == [
        ("chat", "yes", "25.0 % → 100.0 %", "1,200 prompts", "likelier: +0.50 ± 0.12 nats"),
        ("soft", "no", "", "", "left out"),
    ]
    assert counts(summary) == {"probes": 3}
    assert stages({}) == []


@pytest.mark.parametrize("optimizer", ["rename", "describe"])
def test_what_is_found_for_single_classes_is_told(
    optimizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {"dataset": "shapes-codes"}
    if optimizer == "describe":
        (tmp_path / "d.json").write_text('{"ring": ["a tiny ring.", "a small ring."]}')
        asked = {"dataset": "shapes-small", "descriptions": tmp_path / "d.json", "shots": 4}
    run = llmopt.run(optimizer=optimizer, runs=tmp_path, baselines="none", progress=False, **asked)
    best = run.result["best"]
    assert best["templates"][0]["text"] == run.result["baseline"]["template"]
    assert not best["fallback"]
    print_result(run.result)
    told, page = capsys.readouterr().out, sentence(read_record(run.folder))
    assert " kept “" not in page
    if optimizer == "rename":
        assert best["names"]["class_05"] == "ring"
        assert "names: class_00 → circle, " in told
        assert "(12 in all)" in told
        assert "found “a photo of a {}.” with other names for 12 classes: " in page
    else:
        assert best["described"] == {"classes": 1, "prompts": 2}
        assert "own:   2 prompts for 1 of the classes" in told
        assert "with 2 prompts of their own for 1 of the classes" in page
