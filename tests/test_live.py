"""What a search looks like while it runs, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from llmopt import live
from llmopt.live import _Live, _Plain
from llmopt.spend.events import Progress
from llmopt.spend.ledger import Caps, Ledger


class Clock:
    """Stands still until it is set."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def terminal(width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def at(step: int, **figures: float) -> Progress:
    note = f"sigma 0.9, {100 - step} contexts left"
    return Progress(step, 100, "soft prompt", score=-1.25, note=note, **figures)


def panel(watch: _Live) -> str:
    console = terminal()
    console.print(watch._draw())
    return re.sub(" +", " ", console.file.getvalue())  # type: ignore[attr-defined]


def test_a_terminal_shows_the_figures_and_the_time_left(tmp_path: Path, clock: Clock) -> None:
    watch = _Live(terminal())
    watch.started(tmp_path, Ledger(Caps()))
    watch.progress(at(1, train_accuracy=0.5, val_accuracy=0.25))
    assert "time left" not in panel(watch)
    clock.now += 20
    watch.progress(at(11, train_accuracy=0.5, val_accuracy=0.25))
    text = panel(watch)
    for part in ("best soft prompt", "train 50.0 %", "val 25.0 %", "score -1.250",
                 "sigma 0.9, 89 contexts left", "11/100", "time left 0:02:58"):  # fmt: skip
        assert part in text
    clock.now += 10
    assert "time left 0:02:48" in panel(watch)


def test_one_step_that_hung_says_nothing_of_the_others(tmp_path: Path, clock: Clock) -> None:
    watch = _Live(terminal())
    watch.started(tmp_path, Ledger(Caps()))
    watch.progress(at(0))
    for step, seconds in enumerate((600, 2, 2), start=1):
        clock.now += seconds
        watch.progress(at(step))
    assert "time left 0:03:14" in panel(watch)


def test_the_time_left_ends_at_the_cap_and_begins_anew_with_a_run(
    tmp_path: Path, clock: Clock
) -> None:
    watch = _Live(terminal())
    watch.started(tmp_path, Ledger(Caps(seconds=60.0), clock=lambda: 50.0))
    for step in (1, 2):
        watch.progress(at(step))
        clock.now += 5
    assert "time left 0:00:05" in panel(watch)
    watch.started(tmp_path, Ledger(Caps()))
    watch.progress(at(1))
    assert "time left" not in panel(watch)


def test_plain_lines_have_the_figures_too(tmp_path: Path, clock: Clock) -> None:
    console = Console(file=io.StringIO(), highlight=False)
    watch = _Plain(console, verbose=False)
    watch.started(tmp_path, Ledger(Caps()))
    for step in range(1, 5):
        watch.progress(at(step))
        clock.now += 3
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[1:] == [
        "[1/100] soft prompt (score -1.250, sigma 0.9, 99 contexts left)",
        "[3/100] soft prompt (score -1.250, sigma 0.9, 97 contexts left, 0:04:51 left)",
    ]
