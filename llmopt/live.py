"""What a run looks like while it runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from llmopt.errors import ContextOverflow, LlmoptError, ServiceError
from llmopt.figures import percent
from llmopt.screen import Screen, shorten
from llmopt.spend.currency import CAPS, amount
from llmopt.spend.events import Progress, Watch
from llmopt.spend.ledger import Ledger

if TYPE_CHECKING:
    from llmopt.data.benchmarks.fetch import Progress as FileProgress

WIDEST = 100  # cells of the live view, however wide the terminal is
PLAIN_EVERY = 5.0  # seconds between plain lines when nothing new was found


@contextlib.contextmanager
def watching(*, quiet: bool = False, verbose: bool = False) -> Iterator[Watch]:
    """The right watch for where stderr goes.

    What ends a run that has a folder gets a note of how to go on.
    """
    console = Screen(stderr=True)
    watch: _Watch
    if quiet:
        watch = _Quiet(console)
    elif _can_redraw(console):
        watch = _Live(console)
    else:
        watch = _Plain(console, verbose)
    try:
        with watch.live if isinstance(watch, _Live) else contextlib.nullcontext():
            yield watch
    except BaseException as end:
        # A model that has no room for the first question has none on resume.
        mistake = isinstance(end, LlmoptError) and not isinstance(end, ServiceError)
        if watch.folder is not None and not isinstance(end, ContextOverflow) and not mistake:
            other = ", or ask another model there: --llm NAME" * ("--llm" in str(end))
            end.add_note(f"go on with 'llmopt resume {watch.folder}'{other}")
            vars(end)["run_folder"] = watch.folder
        raise


def interactive() -> bool:
    """Whether somebody sees what is drawn: a terminal, or a notebook that can show widgets."""
    return _can_redraw(Console(stderr=True))


def _can_redraw(console: Console) -> bool:
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal


class _Watch(Watch):
    """What all have in common: which run it is, and how long it will still take.

    Attributes:
        folder: the run's; None before there is one.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self.folder: Path | None = None
        self._ledger: Ledger | None = None
        self._step: tuple[float, int] | None = None
        self._paces: list[float] = []
        self._end: float | None = None

    def started(self, folder: Path, ledger: Ledger) -> None:
        self.folder, self._ledger = folder, ledger
        self._step = self._end = None
        self._paces = []

    def progress(self, progress: Progress) -> None:
        """Expect the end of the search at its median pace so far, or at the cap on time."""
        now = time.monotonic()
        since, last = self._step = self._step or (now, progress.step)
        if progress.step > last:
            self._step = now, progress.step
            self._paces.append((now - since) / (progress.step - last))  # one that hangs is one
            self._end = now + median(self._paces) * (progress.steps - progress.step)
            ledger = self._ledger
            if ledger is not None and ledger.caps.seconds is not None:
                self._end = min(self._end, now + ledger.caps.seconds - ledger.seconds())

    def _spend(self, *, all: bool = True) -> list[tuple[str, str]]:
        """What was spent of each kind, beside its cap; or only money and what has a cap."""
        ledger, shown = self._ledger, []
        for name, one in CAPS.items() if ledger is not None else ():
            assert ledger is not None
            spent = ledger.seconds() if name == "seconds" else ledger.spent(name)
            cap = getattr(ledger.caps, name)
            wanted = (all and name != "seconds") or one.unit == "USD" or cap is not None
            if spent and wanted:
                of = "" if cap is None else f" of {amount(name, cap)}"
                shown.append((one.label, f"{amount(name, spent)}{of}"))
        return shown

    def _time_left(self) -> str:
        """Hours, minutes and seconds; empty while it is not known."""
        if self._end is None:
            return ""
        return str(timedelta(seconds=round(max(0.0, self._end - time.monotonic()))))


class _Quiet(_Watch):
    """Says nothing but warnings."""

    def warn(self, text: str) -> None:
        self._console.print(Text(f"warning: {text}"), soft_wrap=True)


class _Plain(_Watch):
    """One line for each thing that happens."""

    def __init__(self, console: Console, verbose: bool) -> None:
        super().__init__(console)
        self._verbose = verbose
        self._best = ""
        self._last = 0.0

    def started(self, folder: Path, ledger: Ledger) -> None:
        super().started(folder, ledger)
        self._say(f"run folder {folder}")

    def stage(self, text: str) -> None:
        self._say(text)

    def images(self, done: int, total: int) -> None:
        if total and (done == total or self._verbose):
            self._say(f"encoded {done} of {total} images")

    def progress(self, progress: Progress) -> None:
        super().progress(progress)
        now = time.monotonic()
        if progress.best == self._best and now - self._last < PLAIN_EVERY and not self._verbose:
            return
        self._best, self._last = progress.best, now
        figures = [f"{name} {text}" for name, text in _figures(progress)]
        figures += [progress.note] if progress.note else []
        figures += [f"{name} {text}" for name, text in self._spend(all=False)]
        if left := self._time_left():
            figures.append(f"{left} left")
        self._say(f"[{progress.step}/{progress.steps}] {progress.best} ({', '.join(figures)})")

    def note(self, text: str) -> None:
        self._say(text)

    def warn(self, text: str) -> None:
        self._say(f"warning: {text}")

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class _Live(_Watch):
    """A panel that is drawn again as the search goes on."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("preparing", total=None)
        self._progress: Progress | None = None
        self.live = Live(get_renderable=self._draw, console=console, transient=True)

    def started(self, folder: Path, ledger: Ledger) -> None:
        super().started(folder, ledger)
        self.note(f"run folder {folder}")

    def stage(self, text: str) -> None:
        self._bar.update(self._task, description=text, completed=0, total=None)

    def images(self, done: int, total: int) -> None:
        self._bar.update(self._task, description="encoding images", completed=done, total=total)

    def progress(self, progress: Progress) -> None:
        super().progress(progress)
        self._progress = progress
        self._bar.update(
            self._task,
            description="searching",
            completed=progress.step,
            total=progress.steps,
        )

    def note(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        self._console.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)

    def _draw(self) -> RenderableType:
        if self._progress is None:
            return self._bar
        width = min(self._console.width, WIDEST)
        room = width - 4  # the frame
        rows = [("best", self._progress.best), *_figures(self._progress), *self._spend()]
        if self._progress.note:
            rows.append(("now", self._progress.note))
        if left := self._time_left():
            rows.append(("time left", left))
        label = max(cell_len(name) for name, _ in rows)
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, text in rows:
            style = "bold" if name == "best" else ""
            table.add_row(name, Text(shorten(text, room - label - 2), style=style))
        return Panel(Group(table, self._bar), title="llmopt", title_align="left", width=width)


def _figures(progress: Progress) -> list[tuple[str, str]]:
    """Where the best so far stands, beside the start."""
    shown = []
    if progress.train_accuracy is not None:
        start = progress.start_accuracy
        beside = "" if start is None else f" (start {percent(start)})"
        shown.append(("train", f"{percent(progress.train_accuracy)}{beside}"))
    if progress.val_accuracy is not None:
        shown.append(("val", percent(progress.val_accuracy)))
    if progress.score is not None:
        shown.append(("score", f"{progress.score:.3f}"))
    return shown


@contextlib.contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar for (done, total), on a terminal only."""
    console = Screen(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bar(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def downloading(*, quiet: bool = False) -> Iterator[Callable[[FileProgress], None]]:
    """A bar for each file; a line for each stage of it elsewhere than on a terminal."""
    console = Screen(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[tuple[str, str], TaskID] = {}
    plain = not console.is_terminal and not quiet
    with Bar(*columns, console=console, disable=quiet or not console.is_terminal) as bar:

        def report(progress: FileProgress) -> None:
            key = progress.file, progress.stage
            if key not in tasks:
                tasks[key] = bar.add_task(f"{progress.stage} {progress.file}", total=None)
                if plain:
                    console.print(Text(f"{progress.stage} {progress.file}"), soft_wrap=True)
            bar.update(tasks[key], completed=progress.done, total=progress.total)

        yield report
