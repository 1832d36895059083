"""What a run looks like while it runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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

from llmopt.cli.show import percent
from llmopt.optimizers.base import Progress
from llmopt.run.ledger import Ledger
from llmopt.run.watch import Watch

if TYPE_CHECKING:
    from llmopt.data.fetch import Progress as FileProgress

PLAIN_EVERY = 5.0  # seconds between plain lines when nothing new was found


@contextlib.contextmanager
def watching(*, quiet: bool = False, verbose: bool = False) -> Iterator[Watch]:
    """The right watch for where stderr goes."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield _Quiet(console)
    elif console.is_terminal:
        watch = _Live(console)
        with watch.live:
            yield watch
    else:
        yield _Plain(console, verbose)


class _Quiet(Watch):
    """Says nothing but warnings."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def warn(self, text: str) -> None:
        self._console.print(Text(f"warning: {text}"), soft_wrap=True)


class _Plain(Watch):
    """One line for each thing that happens."""

    def __init__(self, console: Console, verbose: bool) -> None:
        self._console = console
        self._verbose = verbose
        self._best = ""
        self._last = 0.0
        self._ledger: Ledger | None = None

    def started(self, folder: Path, ledger: Ledger) -> None:
        self._ledger = ledger
        self._say(f"run folder {folder}")

    def stage(self, text: str) -> None:
        self._say(text)

    def images(self, done: int, total: int) -> None:
        if total and (done == total or self._verbose):
            self._say(f"encoded {done} of {total} images")

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.best == self._best and now - self._last < PLAIN_EVERY and not self._verbose:
            return
        self._best, self._last = progress.best, now
        figures = f"train {percent(progress.train_accuracy)}"
        if progress.val_accuracy is not None:
            figures += f", val {percent(progress.val_accuracy)}"
        self._say(f"[{progress.step}/{progress.steps}] {progress.best} ({figures})")

    def note(self, text: str) -> None:
        self._say(text)

    def warn(self, text: str) -> None:
        self._say(f"warning: {text}")

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class _Live(Watch):
    """A panel that is drawn again as the search goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("preparing", total=None)
        self._progress: Progress | None = None
        self._ledger: Ledger | None = None
        self.live = Live(get_renderable=self._draw, console=console, transient=True)

    def started(self, folder: Path, ledger: Ledger) -> None:
        self._ledger = ledger
        self.note(f"run folder {folder}")

    def stage(self, text: str) -> None:
        self._bar.update(self._task, description=text, completed=0, total=None)

    def images(self, done: int, total: int) -> None:
        self._bar.update(self._task, description="encoding images", completed=done, total=total)

    def progress(self, progress: Progress) -> None:
        self._progress = progress
        self._bar.update(
            self._task,
            description=progress.note or "searching",
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
        table = Table.grid(padding=(0, 2))
        table.add_row("best", Text(self._progress.best, style="bold"))
        table.add_row("train", percent(self._progress.train_accuracy))
        table.add_row("val", percent(self._progress.val_accuracy))
        for name, text in self._spend():
            table.add_row(name, text)
        return Panel(Group(table, self._bar), title="llmopt", title_align="left")

    def _spend(self) -> list[tuple[str, str]]:
        ledger = self._ledger
        if ledger is None:
            return []
        caps = ledger.caps
        rows = [
            ("queries", ledger["text_encodings"] + ledger["soft_prompt_encodings"], caps.queries),
            ("LLM calls", ledger["llm_calls"], caps.llm_calls),
            ("LLM tokens", ledger["llm_tokens_in"] + ledger["llm_tokens_out"], caps.llm_tokens),
        ]
        shown = [
            (name, f"{int(spent):,}" + (f" of {cap:,}" if cap is not None else ""))
            for name, spent, cap in rows
            if spent
        ]
        if ledger["llm_usd"]:
            cap_text = f" of ${caps.llm_usd:.2f}" if caps.llm_usd is not None else ""
            shown.append(("spent", f"${ledger['llm_usd']:.4f}{cap_text}"))
        return shown


@contextlib.contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar for (done, total), on a terminal only."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def downloading(*, quiet: bool = False) -> Iterator[Callable[[FileProgress], None]]:
    """A bar for each file; a line for each stage of it elsewhere than on a terminal."""
    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}"),
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
