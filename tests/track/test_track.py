"""Trackers hear of a run, and never touch it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from paper_runs import paper_run

from llmopt.errors import ConfigError
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Progress, Watch, Watches
from llmopt.spend.ledger import Ledger
from llmopt.track.base import Tracker, Tracking
from llmopt.track.services import TensorBoardTracker, settings, track


class Ear(Watch):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def started(self, folder: Path, ledger: Ledger) -> None:
        self.heard.append("started")

    def progress(self, progress: Progress) -> None:
        self.heard.append(progress.step)

    def stage(self, text: str) -> None:
        self.heard.append(text)

    def note(self, text: str) -> None:
        self.heard.append(text)

    def images(self, done: int, total: int) -> None:
        self.heard.append((done, total))

    def warn(self, text: str) -> None:
        self.heard.append(f"warning: {text}")


class Broken(Tracker):
    """Fails at once, or later."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.calls = 0

    def start(self, name: str, settings: Mapping[str, Any]) -> None:
        self._fail("start")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._fail("log")

    def finish(self, figures: Mapping[str, float], files: list[Path]) -> None:
        self._fail("finish")

    def _fail(self, where: str) -> None:
        self.calls += 1
        if where == self.at:
            raise RuntimeError("no network")


def drive(watch: Watch, folder: Path) -> None:
    """What a run tells its watch."""
    ledger = Ledger()
    watch.started(folder, ledger)
    watch.stage("searching")
    watch.images(1, 2)
    watch.note("hm")
    for step in (1, 2):
        ledger.charge(text_encodings=12)
        watch.progress(Progress(step, 2, "a {}.", 0.5, 0.25, -0.7))
    watch.finished(json.loads((folder / "result.json").read_text()))


@pytest.mark.parametrize("at", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_left_behind(at: str, tmp_path: Path) -> None:
    ear, broken = Ear(), Broken(at)
    drive(Watches([ear, Tracking(broken, ear.warn, "broken", {})]), paper_run(tmp_path))
    warnings = [h for h in ear.heard if str(h).startswith("warning")]
    assert warnings == ["warning: broken failed (RuntimeError: no network); "
                        "the run goes on without it"]  # fmt: skip
    assert broken.calls == {"start": 1, "log": 2, "finish": 4}[at]
    rest = [h for h in ear.heard if h not in warnings]
    assert rest == ["started", "searching", (1, 2), "hm", 1, 2]


def test_mlflow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    mlflow = ModuleType("mlflow")
    for name in ("set_experiment", "start_run", "log_params", "log_metrics", "log_artifact",
                 "end_run"):  # fmt: skip
        setattr(mlflow, name, lambda *a, _name=name, **k: calls.append((_name, (a, k))))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    config = RunConfig(settings={"restarts": 2})
    folder = paper_run(tmp_path)
    drive(track("mlflow", config, print), folder)
    named = [name for name, _ in calls]
    assert named[:3] == ["set_experiment", "start_run", "log_params"]
    assert calls[2][1][0][0]["settings.restarts"] == 2
    assert calls[3][1] == (
        ({"train_accuracy": 0.5, "val_accuracy": 0.25, "score": -0.7,
          "spent/text_encodings": 12.0},), {"step": 1},
    )  # fmt: skip
    artifacts = {Path(call[0][0]).name for name, call in calls if name == "log_artifact"}
    assert {"result.json", "journal.jsonl", "config.toml"} <= artifacts
    assert named[-1] == "end_run"


def test_wandb_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    run = SimpleNamespace(
        name="a run/1",
        log=lambda figures, step: logged.append((step, figures)),
        summary={},
        log_artifact=lambda artifact: logged.append(artifact.files),
        finish=lambda: logged.append("finished"),
    )
    wandb = ModuleType("wandb")
    wandb.init = lambda **options: run  # type: ignore[attr-defined]

    class Artifact:
        def __init__(self, name: str, type: str) -> None:
            assert name == "a-run-1"
            self.files: list[str] = []

        def add_file(self, path: str) -> None:
            self.files.append(Path(path).name)

    wandb.Artifact = Artifact  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    drive(track("wandb", RunConfig(), print), paper_run(tmp_path))
    assert [entry[0] for entry in logged[:2]] == [1, 2]
    assert "result.json" in logged[2]
    assert logged[3] == "finished"
    assert run.summary["best/test_accuracy"] == 1.0


def test_tensorboard_writes_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'tensorboard' is not installed")
    folder = paper_run(tmp_path)
    tracker = TensorBoardTracker(tmp_path / "board")
    drive(Tracking(tracker, print, "tensorboard", settings(RunConfig())), folder)
    assert list((tmp_path / "board" / folder.name).glob("events.*"))


def test_unknown_and_absent_trackers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mlflow'"):
        track("mlfow", RunConfig(), print)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'llmopt\[mlflow\]'"):
        track("mlflow", RunConfig(), print)


def test_settings_are_flat() -> None:
    flat = settings(RunConfig(settings={"k": 3}, max_queries=5))
    assert flat["settings.k"] == 3
    assert flat["max_queries"] == 5
    assert "blackbox" not in flat
