"""How long a run may take, by what earlier ones took."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper_runs import paper_run

import llmopt
from llmopt.runs.config import RunConfig
from llmopt.runs.speed import Speed, measured

REPLY = ([["human", "more"]], "- a {}.")


def asked(root: Path, **options: object) -> RunConfig:
    values = {"llm": "builtin", "runs": str(root), **options}
    return RunConfig(**values).resolved()  # type: ignore[arg-type]


def test_seconds_of_earlier_runs_with_the_same_models(tmp_path: Path) -> None:
    spent = {"text_encodings": 300, "llm_calls": 2}
    paper_run(tmp_path, replies=[REPLY] * 2, spent=spent)
    paper_run(tmp_path, replies=[REPLY] * 2, spent={**spent, "text_encodings": 600}, seed=2)
    (paper_run(tmp_path, seed=3) / "result.json").write_text("broken")
    found = measured(asked(tmp_path))
    assert found == Speed(2, pytest.approx(18 / 900), pytest.approx(2 / 4))
    assert found.of(100, 10) == pytest.approx(2 + 5)
    assert found.of(0, 10) == pytest.approx(5)
    assert measured(asked(tmp_path, model="ViT-B-32")) == Speed(2, None, pytest.approx(0.5))
    assert measured(asked(tmp_path, llm="openai:gpt-5-mini")) == Speed(2, pytest.approx(0.02), None)
    assert measured(asked(tmp_path / "none")) == Speed(0, None, None)


def test_nothing_is_said_of_a_speed_nobody_measured() -> None:
    assert Speed(0, None, None).of(1, 0) is None
    assert Speed(1, 0.5, None).of(1, 1) is None
    assert Speed(1, 0.5, None).of(4, 0) == 2


def test_plan_says_how_long(tmp_path: Path) -> None:
    options = {"llm": "builtin", "runs": tmp_path, "max_queries": 1_000, "max_llm_calls": 4}
    before = llmopt.plan(**options)
    assert before.seconds is None
    assert any("not known before a first run" in note for note in before.notes)
    paper_run(tmp_path, spent={"text_encodings": 300, "llm_calls": 2})
    found = llmopt.plan(**options)
    assert found.seconds == pytest.approx(1_000 * 9 / 300 + 4 / 2)
    (note,) = [note for note in found.notes if note.startswith("Time")]
    assert "about 0:00:32 for the black box and the language model" in note
    assert "1 earlier run here (30.0 ms a prompt, 500.0 ms an LLM call)" in note
    assert llmopt.plan(**options, max_seconds=7).seconds == 7
    assert found.to_json()["seconds"] == found.seconds
