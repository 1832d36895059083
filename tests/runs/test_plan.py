from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import write_folder

from llmopt.errors import BudgetTooSmall, ConfigError
from llmopt.runs.bounds import received
from llmopt.runs.compose import ModelChoice, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.plan import Bound, Plan, make_plan
from llmopt.search import OPTIMIZERS, make_optimizer
from llmopt.testing.world import NAMES, FakeBox, make_task, stage
from llmopt.vision.base import Access

K = len(NAMES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


@pytest.fixture(autouse=True)
def _opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a plan opens no model")

    monkeypatch.setattr(ModelChoice, "open", refuse)


def plan(data: Path, **options: Any) -> Plan:
    options = {"shots": 2, "llm": "builtin", **options}
    return make_plan(compose(RunConfig(dataset=f"folder:{data}", **options)))


def most(plan: Plan) -> dict[str, float | None]:
    return {row.name: row.most for row in plan.rows}


def test_a_plan_bounds_what_chat_may_spend(data: Path, tmp_path: Path) -> None:
    settings = {
        "probes": 0,
        "restarts": 2,
        "iterations": 3,
        "pool": 5,
        "proposals": 4,
        "polish": False,
    }
    found = plan(data, settings=settings)
    bounds = most(found)
    assert bounds["image_encodings"] == 2 * 2 * K
    assert bounds["text_encodings"] == bounds["queries"] == (5 + 2 * 3 * 4 + 17) * K
    assert bounds["llm_calls"] == 6
    assert found.needed == K
    assert found.config.model == "RN50-quickgelu"
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("name", ["zeroshot", "handcrafted", "random", "chat"])
@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
def test_no_run_spends_more_than_its_bounds(tmp_path: Path, name: str, access: Access) -> None:
    from llmopt.language.builtin import BuiltinRewriter

    small: dict[str, dict[str, Any]] = {
        "random": {"evaluations": 12},
        "chat": {"probes": 0, "restarts": 2, "iterations": 2, "pool": 4},
        "handcrafted": {"templates": "subset"},
    }
    kind = OPTIMIZERS.get(name)
    optimizer = make_optimizer(kind.name, small.get(name, {}))
    task = make_task(shots=2)
    chat = BuiltinRewriter() if kind.needs_chat else None
    with stage(tmp_path, task, FakeBox(access), chat=chat) as s:
        optimizer.run(s.search)
        bounds = received(optimizer.bounds(task), task, s.box)
        for currency in bounds:
            if currency in ("labelled_images", "cache_hits", "llm_tokens_in", "llm_tokens_out"):
                continue
            assert s.ledger[currency] <= bounds[currency], currency


def test_the_stages_of_auto_are_planned_one_by_one(data: Path) -> None:
    found = plan(data, optimizer="auto")
    assert list(found.stages) == ["rename", "chat", "by class", "describe", "head"]
    whole = most(found)
    for name in ("text_encodings", "llm_calls", "black_box_calls", "pairs_scored"):
        assert sum(one[name] for one in found.stages.values()) >= (whole[name] or 0)
    told = found.to_json()["stages"]
    assert told["chat"]["llm_calls"] == found.stages["chat"]["llm_calls"] > 0
    assert sum(one.under("llm_tokens") for one in found.stages.values()) == whole["llm_tokens"]
    assert told["describe"]["llm_tokens_out"] > 0
    assert "stages" not in plan(data).to_json()


def test_a_cap_below_the_start_template_is_refused(data: Path) -> None:
    plan(data, max_queries=K).refuse_unpayable()
    plan(data).refuse_unpayable()
    with pytest.raises(BudgetTooSmall, match=rf"--max-queries {K - 1} .* it takes {K}") as refused:
        plan(data, max_queries=K - 1).refuse_unpayable()
    assert refused.value.exit_code == 3


def test_caps_stand_beside_the_bounds(data: Path) -> None:
    found = plan(data, max_queries=100, max_llm_calls=3, max_tokens=5_000)
    caps = {row.name: row.cap for row in found.rows if row.cap is not None}
    assert caps == {"queries": 100, "llm_calls": 3, "llm_tokens": 5_000}
    assert any("ends this search before its last iteration" in note for note in found.notes)
    assert found.to_json()["caps"] == caps


def test_without_a_chat_model_none_is_planned(data: Path) -> None:
    found = plan(data, optimizer="random", settings={"evaluations": 10})
    assert "llm_calls" not in most(found)
    assert most(found)["text_encodings"] == (10 + 9) * K
    assert "with builtin" not in found.title


def test_mistakes_are_those_of_the_run(data: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'restarts'"):
        plan(data, settings={"restart": 3})
    with pytest.raises(ConfigError, match="unknown optimizer"):
        plan(data, optimizer="chit")


def test_money(data: Path) -> None:
    found = plan(data, llm="openai:gpt-4o-mini")
    row = next(row for row in found.rows if row.name == "llm_usd")
    assert row.most is not None
    assert row.most > 0
    assert row.cap == 1.0
    assert row.cap_text == "$1.0000"
    unknown = plan(data, llm="openai:made-up-model")
    assert next(row for row in unknown.rows if row.name == "llm_usd").most_text == "unknown"
    assert any("price of 'openai:made-up-model' is not known" in n for n in unknown.notes)


def test_rows_for_people() -> None:
    row = Bound("text_encodings", 12345.0, None)
    assert (row.label, row.most_text, row.cap_text) == ("text encodings", "12,345", "")


def test_for_machines(data: Path) -> None:
    import json

    found = plan(data, max_queries=100)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(told) == {
        "schema", "upper_bounds", "evaluation", "caps", "needed_queries", "seconds",
        "notes", "config",
    }  # fmt: skip
    assert told["upper_bounds"] == most(found)
    assert told["config"]["dataset"] == f"folder:{data}"


def test_a_key_that_is_set_buys_nothing_for_the_drawn_tasks(
    monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    drawn = compose(RunConfig())
    assert drawn.llm is not None
    assert drawn.llm.spec == "builtin"
    assert drawn.caps.llm_usd is None
    asked = compose(RunConfig(llm="openai:gpt-4o-mini"))
    assert asked.llm is not None
    assert (asked.llm.why, asked.caps.llm_usd) == ("asked for", 1.0)
    own = compose(RunConfig(dataset=f"folder:{data}"))
    assert own.llm is not None
    assert own.llm.spec.startswith("openai:")
    assert own.llm.why == "OPENAI_API_KEY is set"
