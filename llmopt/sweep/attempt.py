"""One cell of a sweep, run in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmopt.errors import LlmoptError, ModelError, RunFolderInUse
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
        busy: another process is at it, and nothing was done here.
    """

    job: Job
    folder: Path | None = None
    reused: bool = False
    error: LlmoptError | None = None
    interrupted: bool = False
    busy: bool = False


class Attempts:
    """Runs cells one after the other, with one model for all that share it.

    A cell is locked by its key while it is looked up and run, so that of several sweeps at once
    one runs it and the others find it finished.
    """

    def __init__(self, known: Known, purse: Purse, watch: Watch) -> None:
        self._known = known
        self._purse = purse
        self._watch = watch
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
                self._purse.admit(job, self._known)
                room.begin()
                self._watch.stage(job.title)
                try:
                    result = self._run(job.config, folder)
                except LlmoptError as error:
                    if self._known.find(job.key) is None:
                        self._purse.give_back(job)
                    if not isinstance(error, RunFolderInUse):
                        room.fail(error)
                    raise
        except RunFolderInUse:
            time.sleep(PATIENCE)
            return Ended(job, busy=True)
        except LlmoptError as error:
            return Ended(job, error=error)
        interrupted = result["status"] == "interrupted"
        return Ended(job, Path(result["run"]), interrupted=interrupted)

    def _run(self, config: RunConfig, folder: Path | None) -> dict[str, Any]:
        from llmopt.runs.compose import Given, choose_model, compose
        from llmopt.runs.engine import resume, start

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
