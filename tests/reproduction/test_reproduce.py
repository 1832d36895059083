"""Every table in miniature: small random models, generated images in the true layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from miniatures import KEYS, build
from small_clip import write_model
from typer.testing import CliRunner

import llmopt
from llmopt.cli.app import app
from llmopt.errors import INTERRUPTED, UNFINISHED, ConfigError, DatasetError, ModelError
from llmopt.reproduction import choice as choosing
from llmopt.reproduction.run import Reproduction
from llmopt.reproduction.spec import Backbone, backbones, read_table, table_names
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import ModelChoice
from llmopt.spend.events import Event, Stage
from llmopt.vision.openclip import OpenClipBlackBox

pytestmark = pytest.mark.usefixtures("shared_cache")

CAPS = {"max_queries": 40, "max_llm_calls": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All benchmarks in miniature."""
    root = tmp_path_factory.mktemp("data")
    for key in KEYS:
        build(key, root)
    return root


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OpenClipBlackBox]:
    """Two random models, open, by name."""
    root = tmp_path_factory.mktemp("models")
    names = [write_model(root / str(seed), seed) for seed in (0, 1)]
    return {name: OpenClipBlackBox(name, device="cpu", precision="fp32") for name in names}


@pytest.fixture
def small(boxes: dict[str, OpenClipBlackBox], monkeypatch: pytest.MonkeyPatch) -> None:
    """These models in the papers' models' place, under their names, and never opened again."""
    first, second = boxes
    found = {
        name: Backbone(name=name, model=second if place else first)
        for place, name in enumerate(backbones())
    }
    monkeypatch.setattr(choosing, "backbones", lambda: found)
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: self.box or boxes[self.model])


def part(table: str) -> dict[str, Any]:
    """A part of a table with nearly all of its arms, that takes no time."""
    grids = read_table(table).grids
    known = sorted({shots for grid in grids for shots in grid.shots})
    arms = [arm.name for arm in read_table(table).arms]
    return {
        "arm": [name for name in arms if name != "Tip-Adapter-F"],  # seconds of training
        "dataset": "imagenet" if table == "craft-robustness" else "eurosat",
        "seed": 1,
        "shots": known if len(known) < 3 else 1,
        "model": grids[-1].backbones[0] if len(grids) < 3 else "RN50",
    }


def reproduce(table: str, data: Path, runs: Path, only: Any = None, **options: Any) -> Reproduction:
    options = {**CAPS, "llm": "builtin", "data_root": data, "runs": runs} | options
    return llmopt.reproduce(table, only=only or part(table), progress=False, **options)


def stop_after(events: int) -> Callable[[Event], None]:
    """Ctrl-C when so many things have been told."""
    left = [events]

    def hear(event: Event) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    return hear


@pytest.mark.parametrize("table", table_names())
def test_a_table_interrupted_and_resumed(
    table: str, data: Path, tmp_path: Path, small: None
) -> None:
    runs = tmp_path / "runs"
    first = reproduce(table, data, runs, callbacks=[stop_after(3)])
    assert first.interrupted
    assert first.finished < first.total
    found = reproduce(table, data, runs)
    assert not found.interrupted
    assert table == "craft-robustness" or not found.failed
    assert found.finished == found.total == len(run_folder.find(runs))
    # ImageNetV2's miniature has classes that ImageNet's lacks.
    whole = [row for row in found.rows if row.verdict != "failed"]
    assert {row.place.on for row in found.rows if row not in whole} <= {"imagenetv2"}
    for row in whole:
        assert row.interval is not None
        assert row.verdict == "not comparable"
        assert any("in the published set" in why for why in row.reasons)
    again = reproduce(table, data, runs, status=True)
    assert [row for row in again.rows if row.seeds] == whole
    json.dumps(found.to_json(), allow_nan=False)


def test_what_is_scored_elsewhere_is_scored_once(data: Path, tmp_path: Path, small: None) -> None:
    only = {"arm": "Zero-shot CLIP", "model": "RN50"}
    heard: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Stage) and ": on " in event.text:
            heard.append(event.text)
            if len(heard) == 2:
                raise KeyboardInterrupt

    options: dict[str, Any] = {"only": only, "callbacks": [hear]}
    first = reproduce("craft-robustness", data, tmp_path, **options)
    assert first.interrupted
    assert [row.verdict for row in first.rows].count("not run") == 3
    second = reproduce("craft-robustness", data, tmp_path, **options)
    assert [row.accuracy is None for row in second.rows] == [False] * 5
    assert len(heard) == 5  # one of four had been scored, one was cut off
    assert reproduce("craft-robustness", data, tmp_path, **options).rows == second.rows
    assert len(heard) == 5


def test_prompts_are_carried_to_other_backbones(data: Path, tmp_path: Path, small: None) -> None:
    found = reproduce("llm-transfer", data, tmp_path)
    behind = {row.place.behind for row in found.rows if row.place.arm == "Chat as released"}
    assert behind == {"", "RN101", "ViT-B/32", "ViT-B/16"}
    assert all(row.accuracy is not None for row in found.rows)


def test_what_is_missing_is_listed_and_the_rest_is_run(tmp_path: Path, small: None) -> None:
    build("eurosat", tmp_path / "data")
    only = {"arm": "Zero-shot CLIP"}
    found = reproduce("craft-few-shot", tmp_path / "data", tmp_path / "runs", only=only)
    assert (found.finished, found.total, len(found.missing)) == (1, 11, 10)
    assert "llmopt datasets download dtd" in found.missing["dtd"]
    verdicts = {row.place.dataset: row.verdict for row in found.rows}
    assert verdicts.pop("eurosat") == "not comparable"
    assert set(verdicts.values()) == {"missing"}
    with pytest.raises(DatasetError, match="llmopt datasets download dtd"):
        reproduce("cbbt", tmp_path / "data", tmp_path / "runs", only={"dataset": "dtd"})
    assert reproduce("cbbt", tmp_path / "none", tmp_path, status=True).finished == 0


def test_a_model_that_is_not_here_fails_its_runs(data: Path, tmp_path: Path) -> None:
    found = reproduce("cbbt", data, tmp_path)
    assert [type(error) for error in found.failed.values()] == [ModelError] * 3
    assert {row.verdict for row in found.rows} == {"failed"}
    with pytest.raises(ConfigError, match="unknown name 'shotss'"):
        reproduce("cbbt", data, tmp_path, shotss=1)


# ------------------------------------------------------------------------------ the command line


def invoke(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["reproduce", *map(str, words)])


def test_list_and_plan_say_what_is_missing(data: Path) -> None:
    listed = json.loads(invoke("list", "--data-root", data, "--json").output)
    assert [one["table"] for one in listed] == list(table_names())
    assert all(need["here"] for one in listed for need in one["data"])
    assert "0 of 11" in invoke("list", "--data-root", data / "none").output
    only = "dataset=eurosat,shots=16,arm=CraFT"
    asked = ["plan", "craft-few-shot", "--only", only, "--data-root"]
    said = " ".join(invoke(*asked, data / "none").output.split())
    assert "llmopt datasets download eurosat" in said
    assert "llmopt models show RN50-quickgelu --pretrained openai" in said
    plan = json.loads(invoke(*asked, data, "--json").output)
    assert plan["runs"] == 3
    assert plan["data"] == [{"name": "eurosat", "here": True, "note": ""}]
    # 8,000 contexts of 10 classes and three more a generation, in each of three runs: methods of
    # the paper, not of the miniature.
    assert 3 * 8_000 * 10 < plan["upper_bounds"]["soft_prompt_encodings"] < 3 * 9_000 * 10
    assert 3 * 200 * 160 < plan["upper_bounds"]["image_encodings"] < 3 * 200 * 160 + 3 * 8_100 * 2
    double = json.loads(invoke(*asked, data, "--json", "--tflops", "20").output)
    assert plan["gpu_hours"] == pytest.approx(2 * double["gpu_hours"])


def test_plan_says_what_the_language_model_can_cost() -> None:
    asked = ["plan", "llm-ablation", "--only", "dataset=eurosat", "--llm", "openai:gpt-4o-mini"]
    plan = json.loads(invoke(*asked, "--max-usd", "0.01", "--json").output)
    assert plan["llm"]["name"] == "openai:gpt-4o-mini"
    assert plan["llm"]["runs"] == plan["runs"]
    assert 0 < plan["llm"]["usd"] <= 0.01 * plan["runs"]
    assert "cost at most $" in invoke(*asked).output


def test_run_shows_figures_with_reasons(data: Path, tmp_path: Path, small: None) -> None:
    asked = ["run", "cbbt", "--only", "dataset=eurosat", "--data-root", data, "--runs", tmp_path]
    asked += ["--max-queries", "40", "--quiet"]
    status = invoke(*asked, "--status")
    assert status.exit_code == UNFINISHED
    assert "not run" in status.output
    done = invoke(*asked)
    assert done.exit_code == 0, done.output
    for said in ("CBBT prompt alone", "not comparable (1)", "3 of 3 runs are finished",
                 "(1) no such figure could be read; 15 test images here, 8,100 in the published",
                 "known reason to differ:"):  # fmt: skip
        assert said in done.output
    shown = json.loads(invoke(*asked, "--json").output)
    assert shown["runs"] == {"finished": 3, "total": 3}
    assert {row["verdict"] for row in shown["rows"]} == {"not comparable"}
    assert shown["rows"][0]["tolerance"] == 1.5


def test_exit_codes(
    data: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["run", "cbbt", "--only", "dataset=eurosat", "--runs", tmp_path, "-q"]
    assert isinstance(invoke(*asked, "--data-root", data / "none").exception, DatasetError)
    from llmopt.runs import engine

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "start", stop)
    stopped = invoke(*asked, "--data-root", data)
    assert stopped.exit_code == INTERRUPTED
    assert "the same command goes on from here" in stopped.output
    assert isinstance(invoke("list", "-f", "csv").exception, ConfigError)


@pytest.mark.slow
@pytest.mark.parametrize("table", table_names())
def test_all_data_sets_of_a_table_end_as_undisturbed(
    table: str, data: Path, tmp_path: Path, small: None
) -> None:
    only = {"seed": 1}
    whole = reproduce(table, data, tmp_path / "whole", only=only)
    moments = 0
    while (found := reproduce(
        table, data, tmp_path / "cut", only=only, callbacks=[stop_after(60)]
    )).interrupted:  # fmt: skip
        moments += 1
    assert moments > 0
    assert list(whole.failed) == list(found.failed)
    assert [(r.place, r.accuracy, r.verdict) for r in whole.rows] == [
        (r.place, r.accuracy, r.verdict) for r in found.rows
    ]
