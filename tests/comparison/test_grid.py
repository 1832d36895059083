"""What a comparison runs, what it reuses, and what equal cost means."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_runs import paper_run, reconfigure
from typer.testing import CliRunner

from llmopt.cli.app import app
from llmopt.comparison import execute as execution
from llmopt.comparison.execute import Done
from llmopt.comparison.grid import (
    Arm,
    Cell,
    hold_equal,
    left,
    make_grid,
    parse_arm,
    parse_numbers,
)
from llmopt.comparison.records import read_record
from llmopt.comparison.table import compare
from llmopt.comparison.transfer import parse_model
from llmopt.errors import INTERRUPTED, ConfigError, ServiceError
from llmopt.runs import engine
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import ModelChoice, Setup, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.same import key
from llmopt.spend.currency import CAPS
from llmopt.spend.events import Watch
from llmopt.sweep import attempt
from llmopt.sweep.local import LocalEngine
from llmopt.sweep.purse import Purse
from llmopt.sweep.room import Room
from llmopt.sweep.work import Job, Known


def test_arms_are_parsed() -> None:
    assert parse_arm("chat") == Arm("chat", "chat")
    arm = parse_arm("both=craft, max-queries=500,budget=40,after=chat")
    assert (arm.name, arm.optimizer, arm.after) == ("both", "craft", "chat")
    config = arm.config(RunConfig())
    assert (config.max_queries, config.settings) == (500, {"budget": "40"})
    assert parse_arm("chat,restarts=1").name == "chat,restarts=1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chatt", "did you mean 'chat'"),
        ("chat,restarts", "KEY=VALUE"),
        ("chat,restart=2", "did you mean 'restarts'"),
        ("zeroshot,seed=7", "give --seed to compare"),
        ("zeroshot,shots=2", "give --shots to compare"),
        ("zeroshot,dataset=eurosat", "give --dataset to compare"),
        ("zeroshot,runs=elsewhere", "give --runs to compare"),
        ("zeroshot,data-root=elsewhere", "give --data-root to compare"),
    ],
)
def test_wrong_arms_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_arm(text).config(RunConfig())


def test_numbers_are_lists_or_spans() -> None:
    assert parse_numbers("1,2,8", "shots") == (1, 2, 8)
    assert parse_numbers("1-3,2", "seed") == (1, 2, 3)
    with pytest.raises(ConfigError, match="--seed 'x'"):
        parse_numbers("x", "seed")
    with pytest.raises(ConfigError, match="--seed '5,3-1': the span 3-1 is empty; say 1-3"):
        parse_numbers("5,3-1", "seed")


def test_a_head_is_the_runs_in_every_arm() -> None:
    for optimizer in ("craft", "zip", "chat"):
        config = parse_arm(f"{optimizer},head=ridge").config(RunConfig())
        assert (config.head, config.settings) == ("ridge", {})
    done = CliRunner().invoke(app, ["compare", "--help"], env={"COLUMNS": "200"})
    assert "--head of run" in " ".join(done.output.replace("│", " ").split())


def test_a_grid_orders_what_depends_on_what() -> None:
    arms = [parse_arm("both=craft,after=chat"), parse_arm("chat")]
    cells = make_grid(RunConfig(), arms, ["shapes-small"], [1, 2], [1, 2])
    assert len(cells) == 8
    assert [cell.arm.name for cell in cells[:2]] == ["chat", "both"]
    with pytest.raises(ConfigError, match="two arms are called 'chat'"):
        make_grid(RunConfig(), [parse_arm("chat")] * 2, ["shapes-small"], [1], [1])
    with pytest.raises(ConfigError, match="not among the arms"):
        make_grid(RunConfig(), arms[:1], ["shapes-small"], [1], [1])
    circle = [parse_arm("a=chat,after=b"), parse_arm("b=chat,after=a")]
    with pytest.raises(ConfigError, match="circle"):
        make_grid(RunConfig(), circle, ["shapes-small"], [1], [1])


def test_equal_arms_share_the_least_bound_or_the_cap_asked_for() -> None:
    arms = [parse_arm("zeroshot"), parse_arm("chat,probes=0,iterations=1"), parse_arm("random")]
    cells, note = hold_equal(make_grid(RunConfig(), arms, ["shapes-small"], [1], [1]), "queries")
    (cap,) = {cell.config.max_queries for cell in cells}
    assert cap is not None
    assert 24 < cap < 1200
    assert f"{cap:,}" in note
    base = RunConfig(max_llm_calls=7)
    cells, _ = hold_equal(make_grid(base, arms, ["shapes-small"], [1], [1]), "llm_calls")
    assert {cell.config.max_llm_calls for cell in cells} == {7}
    with pytest.raises(ConfigError, match="did you mean 'queries'"):
        hold_equal(cells, "querys")
    with pytest.raises(ConfigError, match="needs --max-seconds"):
        hold_equal(cells, "seconds")


def test_a_key_says_what_was_asked_not_where() -> None:
    config = RunConfig(settings={"restarts": 2}).resolved()
    same = dataclasses.replace(config, settings={}, runs="elsewhere", device="cuda")
    assert key(config) == key(same)
    assert key(config) != key(dataclasses.replace(config, settings={"restarts": 3}))
    assert key(config) != key(dataclasses.replace(config, seed=2))


def test_finished_runs_are_known_again(tmp_path: Path) -> None:
    folder = paper_run(tmp_path)
    unfinished = paper_run(tmp_path)
    (unfinished / "result.json").unlink()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.toml").write_text("optimizer = 'none such'")
    known = Known(tmp_path)
    assert known.find(key(run_folder.read_run_config(folder))) == folder
    assert known.find("none such") is None
    later = paper_run(tmp_path, seed=7)
    assert known.find(key(run_folder.read_run_config(later))) == later


class Engine:
    """Writes runs instead of making them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.started: list[RunConfig] = []
        self.fails: str = ""

    def start(self, setup: Setup, watch: Watch) -> dict[str, Any]:
        config = setup.config
        if config.optimizer == self.fails:
            raise ServiceError("the service is gone")
        self.started.append(config)
        labels = np.arange(30) % 3
        folder = paper_run(
            self.root, optimizer=config.optimizer, seed=config.seed, start=config.template,
            before=labels * 0, spent={"text_encodings": 100}, labels=labels,
        )  # fmt: skip
        reconfigure(folder, config.to_toml())
        return {"status": "complete", "run": str(folder)}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine(tmp_path)
    monkeypatch.setattr(engine, "start", fake.start)
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: object())
    return fake


def run(cells: list[Cell], root: Path, watch: Watch | None = None, jobs: int = 1) -> list[Done]:
    done, _ = execution.execute(cells, root, LocalEngine(jobs), watch or Watch())
    return done


def grid(arms: list[str], root: Path, **changes: Any) -> list[Cell]:
    base = RunConfig(runs=str(root), llm="builtin", **changes)
    return make_grid(base, [parse_arm(arm) for arm in arms], ["shapes-small"], [1], [1, 2])


def test_equal_runs_are_reused(fake: Engine, tmp_path: Path) -> None:
    cells = grid(["zeroshot", "random"], tmp_path)
    assert not any(d.reused for d in run(cells, tmp_path))
    again = run(cells, tmp_path)
    assert all(d.reused for d in again)
    more = run(grid(["zeroshot", "chat"], tmp_path), tmp_path)
    assert [d.reused for d in more] == [True, False, True, False]
    assert len(fake.started) == 6


def test_an_arm_starts_from_the_best_of_another(fake: Engine, tmp_path: Path) -> None:
    cells, _ = hold_equal(
        grid(["chat", "both=random,after=chat"], tmp_path, max_queries=150), "queries"
    )
    done = run(cells, tmp_path)
    assert {config.template for config in fake.started if config.optimizer == "random"} == {
        "a small {}."
    }
    assert {c.max_queries for c in fake.started if c.optimizer == "random"} == {50}
    records = [read_record(d.folder, d.cell.arm.name) for d in done if d.folder]
    both = next(row for row in compare(records).rows if row.arm == "both")
    assert both.spend["text_encodings"] == 200  # the earlier search was paid for too
    assert both.gain.difference.mean == pytest.approx(2 / 3)  # over the very first start
    assert both.seconds == 24.0


def test_what_is_left_of_each_cap() -> None:
    spent: Mapping[str, float | None] = {
        "text_encodings": 5, "soft_prompt_encodings": 10, "llm_calls": 1,
        "llm_tokens_in": 7, "llm_tokens_out": 3, "llm_usd": 0.25,
    }  # fmt: skip
    config = RunConfig(max_queries=20, max_llm_calls=1, max_tokens=5, max_usd=1.0, max_seconds=9.0)
    given = {name: cap for name, cap in CAPS.items() if getattr(config, cap.option) is not None}
    found = {name: left(config, cap, spent, 4.0) for name, cap in given.items()}
    assert found == {
        "queries": 5, "llm_calls": 0, "llm_tokens": 0, "llm_usd": 0.75, "seconds": 5.0
    }  # fmt: skip


def test_a_failure_stops_neither_the_others_nor_the_table(fake: Engine, tmp_path: Path) -> None:
    fake.fails = "chat"
    asked = ["compare", "--optimizer", "chat", "--optimizer", "random", "--seed", "1,2"]
    asked += ["--optimizer", "both=random,after=chat", "--runs", str(tmp_path), "--llm", "builtin"]
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, ServiceError)
    assert "the service is gone" in done.output
    assert "which it starts from, failed" in done.output
    assert "random" in done.output


def test_the_command_line_shows_every_format(fake: Engine, tmp_path: Path) -> None:
    asked = ["compare", "--optimizer", "random", "--seed", "1", "--runs", str(tmp_path), "-q"]
    for format, said in (("table", "random"), ("csv", "dataset,"), ("latex", "\\begin"),
                         ("markdown", "| arm"), ("json", '"schema": 1')):  # fmt: skip
        done = CliRunner().invoke(app, [*asked, "--format", format, "--published"])
        assert done.exit_code == 0, done.output
        assert said in done.output
    for name, said in (("t.md", "| random |"), ("t", "| random |"), ("t.csv", "dataset,"),
                       ("t.tex", "\\begin"), ("t.JSON", '"schema": 1')):  # fmt: skip
        CliRunner().invoke(app, [*asked, "--out", str(tmp_path / name)])
        assert said in (tmp_path / name).read_text()
    assert isinstance(CliRunner().invoke(app, [*asked, "-f", "tsv"]).exception, ConfigError)


def test_an_interruption_says_where_the_comparison_stands(
    fake: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = fake.start

    def start(setup: Setup, watch: Watch) -> dict[str, Any]:
        if setup.config.seed == 2:
            (Path(begun(setup, watch)["run"]) / "result.json").unlink()
            raise KeyboardInterrupt
        return begun(setup, watch)

    monkeypatch.setattr(engine, "start", start)
    asked = ["compare", "--optimizer", "random", "--seed", "1-4", "--runs", str(tmp_path)]
    stopped = CliRunner().invoke(app, asked)
    assert stopped.exit_code == INTERRUPTED
    said = " ".join(stopped.output.split())
    assert "Interrupted: 1 of 4 runs done, 1 begun, 2 left; the same command goes on" in said
    assert "random" in said  # the table of what is done


def test_a_cell_that_another_process_runs_is_waited_for(
    fake: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "PATIENCE", 0.0)
    cells = grid(["random"], tmp_path)
    name = key(compose(cells[0].config).config)
    with contextlib.ExitStack() as other:
        other.enter_context(Room(tmp_path, name).locked())

        class Other(Watch):
            """The process that holds the first cell, and finishes it when it is waited for."""

            def stage(self, text: str) -> None:
                if text.startswith("waiting for another process"):
                    fake.start(compose(cells[0].config), self)
                    other.close()

        done = run(cells, tmp_path, Other())
    assert [(d.cell.config.seed, d.reused) for d in done] == [(1, True), (2, False)]
    assert len(fake.started) == 2


def test_a_run_that_is_being_resumed_is_left_alone(
    fake: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "PATIENCE", 0.0)
    (cell, _) = grid(["random"], tmp_path)
    job = Job(cell.title, compose(cell.config).config)
    folder = Path(fake.start(compose(cell.config), Watch())["run"])
    result = (folder / "result.json").read_text()
    (folder / "result.json").unlink()
    attempts = attempt.Attempts(Known(tmp_path), Purse(tmp_path), Watch())
    with run_folder.locked(folder):
        assert attempts.run(job).busy
    (folder / "result.json").write_text(result)
    assert attempts.run(job).reused


@pytest.mark.slow
def test_runs_share_the_machine(tmp_path: Path) -> None:
    """The real thing: processes of their own, and the same result as one after the other."""
    cells = grid(["zeroshot", "random,evaluations=10"], tmp_path)
    done = run(cells, tmp_path, Watch(), jobs=2)
    assert all(d.folder for d in done)
    alone = run(cells, tmp_path / "alone")
    hits = [{d.cell.title: read_record(d.folder).hits.sum() for d in found if d.folder}
            for found in (done, alone)]  # fmt: skip
    assert hits[0] == hits[1]


def test_transfer_is_a_table_of_runs_and_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    trusted: list[bool] = []

    def remeasure(
        folder: Path, changes: dict[str, Any], watch: Watch, *, trust_config: bool
    ) -> dict[str, Any]:
        asked.append(changes)
        trusted.append(trust_config)
        better = 0.2 if changes.get("model") else 0.1
        gain = {"test_accuracy": better, "p_value": better}
        return {"best_accuracy": 0.5 + better, "gain": gain}

    monkeypatch.setattr("llmopt.comparison.transfer.remeasure", remeasure)
    runs = [str(paper_run(tmp_path, seed=seed)) for seed in (1, 2)]
    words = ["evaluate", *runs, "--across", "shapes-tiny", "--across", "RN50@openai", "-q"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert asked == [{}, {"model": "RN50", "pretrained": "openai"}] * 2
    assert "60.0 % (+10.0, not significant)" in done.output
    assert trusted == [False] * 4
    table = json.loads(CliRunner().invoke(app, [*words, "--json", "--trust-config"]).output)
    assert trusted[4:] == [True] * 4
    assert table["scored_on"] == ["shapes-tiny", "RN50 openai"]
    assert len(table["cells"]) == 2


def test_models_are_parsed() -> None:
    assert parse_model("RN50@openai") == {"model": "RN50", "pretrained": "openai"}
    assert parse_model("shapes-tiny") == {"model": "shapes-tiny", "pretrained": ""}
    with pytest.raises(ConfigError, match="NAME@TAG"):
        parse_model("@openai")
