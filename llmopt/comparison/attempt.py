"""One cell of a comparison, run in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmopt.comparison.grid import Cell, Known, finished, key
from llmopt.errors import LlmoptError, ModelError, RunFolderError, RunFolderInUse
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch

if TYPE_CHECKING:
    from llmopt.vision.base import BlackBox

CELLS: Final = ".cells"
"""Below the run folders: a lock for each cell that a comparison has run."""

PATIENCE: Final = 1.0  # seconds until a cell that another process runs is looked at again

Task = tuple[Cell, RunConfig]
"""A cell, and its config with everything resolved."""


@dataclass(frozen=True)
class Done:
    """What became of a cell.

    Attributes:
        cell: which.
        folder: its run; None if it failed or was not begun.
        reused: it was finished before, or by somebody else meanwhile.
        error: why it failed.
        interrupted: the comparison was, before this cell ended.
        busy: another process is at it, and nothing was done here.
    """

    cell: Cell
    folder: Path | None = None
    reused: bool = False
    error: LlmoptError | None = None
    interrupted: bool = False
    busy: bool = False


class Attempts:
    """Runs cells one after the other, with one model for all that share it.

    A cell is locked by its key while it is looked up and run, so that of several comparisons at
    once one runs it and the others find it finished.
    """

    def __init__(self, known: Known, watch: Watch) -> None:
        self._known = known
        self._watch = watch
        self._boxes: dict[tuple[Any, ...], BlackBox | ModelError] = {}

    def run(self, task: Task) -> Done:
        """Reuse, resume or start the run of a cell."""
        cell, config = task
        name = key(config)
        try:
            with run_folder.locked(room(self._known.root, name)):
                folder = self._known.find(name)
                if folder is not None and finished(folder):
                    return Done(cell, folder, reused=True)
                if folder is not None:
                    with run_folder.locked(folder):
                        pass  # nobody resumes it: worth opening the model
                self._watch.stage(cell.title)
                result = self._run(config, folder)
        except RunFolderInUse:
            time.sleep(PATIENCE)
            return Done(cell, busy=True)
        except LlmoptError as error:
            return Done(cell, error=error)
        interrupted = result["status"] == "interrupted"
        return Done(cell, Path(result["run"]), interrupted=interrupted)

    def _run(self, config: RunConfig, folder: Path | None) -> dict[str, Any]:
        from llmopt.runs.compose import Given, choose_model, compose
        from llmopt.runs.engine import resume, start

        name = (config.model, config.pretrained, config.blackbox, config.device, config.precision)
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


def room(root: Path, name: str) -> Path:
    """A folder whose lock is that of the cell with this key."""
    folder = root / CELLS / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot write run folders below {root}: {error.strerror}; choose another --runs"
        ) from error
    return folder
