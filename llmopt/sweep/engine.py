"""What every engine is: it starts workers, and says what became of each cell.

What is done and what is not stands in the run folders alone, so any engine can finish what another
began, and several may work at one sweep.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Final, Protocol

from llmopt.errors import ConfigError
from llmopt.spend.events import Watch
from llmopt.sweep.attempt import Ended
from llmopt.sweep.purse import Purse
from llmopt.sweep.work import Job, Known

Report = Callable[[Ended], None]
"""Told of each cell that ended, and of each that is busy."""


ENDING: Final = "interrupted: ending after the calls in flight (again to stop at once)"


@dataclass(frozen=True)
class Resources:
    """What a worker is given; 0 leaves it to the engine.

    Attributes:
        cpus: cores; parts of one where the engine can do that.
        gpus: likewise.
        memory: GiB.
    """

    cpus: float = 0
    gpus: float = 0
    memory: float = 0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"--worker-{one.name} must be 0 or more, not {value}")


class Engine(Protocol):
    """Where cells are run."""

    def run(
        self, jobs: Sequence[Job], known: Known, purse: Purse, watch: Watch, report: Report
    ) -> None:
        """Run cells, none of which waits for another.

        Args:
            jobs: those of one model after the other (see :func:`llmopt.sweep.work.grouped`).
            known: the runs there are.
            purse: what all of them may spend.
            watch: told what the workers have to say.
            report: told of each cell once it has ended.

        Raises:
            KeyboardInterrupt: the sweep was interrupted, and its workers have ended.
        """


def use_threads(count: int) -> None:
    """Let this process compute with so many threads.

    What computes need not be loaded for that: behind a remote box nothing may.
    """
    os.environ["OMP_NUM_THREADS"] = str(count)  # read when torch is first imported
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)


class Queue:
    """Cells that wait for a worker."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = list(jobs)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, opened: Collection[object]) -> Job | None:
        """The next one for a worker that has opened these models; it may have to open another."""
        for place, job in enumerate(self._waiting):
            if job.model in opened:
                return self._waiting.pop(place)
        return self._waiting.pop(0) if self._waiting else None

    def put(self, job: Job) -> None:
        """At the end: somebody else is at it."""
        self._waiting.append(job)
