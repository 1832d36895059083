"""One cell of a sweep, run in this process."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmopt.errors import BudgetTooSmall, LlmoptError, ModelError, RunFolderInUse
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.sweep.purse import Purse
from llmopt.sweep.room import Room
from llmopt.sweep.work import Job, Known

if TYPE_CHECKING:
    from llmopt.vision.base import BlackBox

PATIENCE: Final = 1.0  # seconds until a cell that another process runs is looked at again


@dataclass(frozen=True)
class Ended:
    """What became of a cell.

    Attributes:
        job: which.
        folder: its run; None if it failed or was not begun.
        reused: it was finished before, or by somebody else meanwhile.
        error: why it failed.
        interrupted: the sweep was, before this cell ended.
        busy: it has to wait, and nothing was done here: another process is at it,
        short: or what is left of a cap may cover it once others are done.
    """

    job: Job
    folder: Path | None = None
    reused: bool = False
    error: LlmoptError | None = None
    interrupted: bool = False
    busy: bool = False
    short: bool = False


class Attempts:
    """Runs cells one after the other, with one model for all that share it.

    A cell is locked by its key while it is looked up and run, so that of several sweeps at once
    one runs it and the others find it finished.

    Args:
        known: the runs there are.
        purse: what all cells of the sweep may spend.
        watch: told how it goes.
        sweep: its name, where failures are to be told from earlier ones.
        patience: seconds to wait where another process is at a cell.
    """

    def __init__(
        self,
        known: Known,
        purse: Purse,
        watch: Watch,
        sweep: str = "",
        patience: float | None = None,
    ) -> None:
        self._known = known
        self._purse = purse
        self._watch = watch
        self._sweep = sweep
        self._patience = PATIENCE if patience is None else patience
        self._boxes: dict[tuple[Any, ...], BlackBox | ModelError] = {}

    def run(self, job: Job) -> Ended:
        """Reuse, resume or start the run of a cell."""
        room = Room(self._known.root, job.key)
        try:
            with room.locked():
                folder = self._known.find(job.key)
                if folder is not None and self._known.finished(folder):
                    room.forget()
                    return Ended(job, folder, reused=True)
                if folder is not None:
                    with run_folder.locked(folder):
                        pass  # nobody resumes it: worth opening the model
                try:
                    short = not self._purse.admit(job, self._known)
                except BudgetTooSmall as error:
                    if self._sweep:  # nobody hears of it otherwise
                        room.fail(error, self._sweep)
                    raise
                if not short:
                    return self._held(job, room, folder)
        except RunFolderInUse:
            short = False
        except LlmoptError as error:
            return Ended(job, error=error)
        time.sleep(self._patience)
        return Ended(job, busy=True, short=short)

    def _held(self, job: Job, room: Room, folder: Path | None) -> Ended:
        """Run a cell that is ours now."""
        room.begin()
        self._watch.stage(job.title)
        try:
            result = self._run(job.config, folder)
        except LlmoptError as error:
            if self._known.find(job.key) is None:
                self._purse.give_back(job)
            if not isinstance(error, RunFolderInUse):
                room.fail(error, self._sweep)
            raise
        return Ended(job, Path(result["run"]), interrupted=result["status"] == "interrupted")

    def _run(self, config: RunConfig, folder: Path | None) -> dict[str, Any]:
        from llmopt.runs.compose import Given, choose_model, compose
        from llmopt.runs.engine import resume, start

        if folder is not None:  # goes on with what it found out as it began
            kept = run_folder.read_run_config(folder)
            config = dataclasses.replace(config, blackbox_settings=kept.blackbox_settings)
        name = Job("", config).model
        if name not in self._boxes:
            try:
                self._boxes[name] = choose_model(config).open(self._watch)
            except ModelError as error:
                self._boxes[name] = error  # the same for each cell, without another try
        box = self._boxes[name]
        if isinstance(box, ModelError):
            raise box
        setup = compose(config, Given(box=box))
        if folder is None:
            return start(setup, self._watch)
        return resume(folder, setup, self._watch)
