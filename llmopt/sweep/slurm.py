"""Workers as the tasks of a Slurm array, started with submitit (extra ``slurm``).

Nobody hands out cells here: each worker goes through all of them, beginning at a place of its own,
and takes what is neither done nor held by another. So it does not matter how many there are, which
of them die, and whether the process that submitted them still lives. A worker whose time is up is
put back into the queue and goes on from the folders.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from llmopt._optional import require
from llmopt.errors import ConfigError, ServiceError
from llmopt.spend.events import Watch
from llmopt.spend.files import keeping, write_text
from llmopt.sweep.attempt import PATIENCE, Attempts, Ended
from llmopt.sweep.engine import Report, Resources, use_threads
from llmopt.sweep.purse import Purse
from llmopt.sweep.room import CELLS, Room
from llmopt.sweep.work import Job, Known

if TYPE_CHECKING:
    import submitit

POLL: Final = 5.0  # seconds between two looks at the folders
ROUNDS: Final = 5
"""Times that workers are submitted while cells are left which nobody has tried."""
_TIMEOUTS: Final = 1_000  # of one worker; each goes on where the last one ended
_SUBMITTED: Final = "submitted.json"


@dataclass(frozen=True)
class SlurmEngine:
    """Runs cells on a Slurm cluster, whose nodes share this file system and Python.

    Attributes:
        jobs: workers at a time, the cap of the array.
        each: what a worker is given.
        minutes: until a worker is put back into the queue.
        options: of ``sbatch``, such as ``partition`` and ``account``.
        cluster: ``local`` starts the workers on this machine instead, to try it out.
    """

    jobs: int = 1
    each: Resources = field(default_factory=Resources)
    minutes: int = 60
    options: Mapping[str, str] = field(default_factory=dict)
    cluster: Literal["slurm", "local"] = "slurm"

    def run(
        self, jobs: Sequence[Job], known: Known, purse: Purse, watch: Watch, report: Report
    ) -> None:
        """Run what can be run.

        Raises:
            ConfigError: submitit or Slurm is not here, or an option is wrong.
            KeyboardInterrupt: after Ctrl-C or SIGTERM; what was submitted is cancelled.
            ServiceError: the workers end, and cells are left that none of them has tried.
        """
        sweep = _Submissions(self, known.root)
        left, rounds = {job.key: job for job in jobs}, 0
        try:
            while True:
                alive = sweep.alive()
                for one in _ended(left.values(), known, sweep.name):
                    del left[one.job.key]
                    report(one)
                if not left:
                    return
                if not alive:
                    if (rounds := rounds + 1) > ROUNDS:
                        raise ServiceError(
                            f"{len(left)} cells were left by {ROUNDS} rounds of Slurm jobs; why "
                            f"those ended stands in {sweep.folder}; the same command goes on"
                        )
                    number = sweep.submit(list(left.values()), purse)
                    watch.note(f"submitted {number} workers; what they say goes to {sweep.folder}")
                time.sleep(POLL)
        except KeyboardInterrupt:
            watch.note("interrupted: cancelling what was submitted")
            sweep.cancel()
            raise

    def script(self, root: Path, cells: int) -> str:
        """What is given to ``sbatch`` for so many cells.

        Raises:
            ConfigError: submitit is not here, or an option is wrong.
        """
        slurm = require("submitit.slurm.slurm", "slurm", "--engine slurm")
        folder = (root / CELLS / "slurm").resolve()
        python, place = shlex.quote(sys.executable), shlex.quote(str(folder))
        made: str = slurm._make_sbatch_string(
            command=f"{python} -u -m submitit.core._submit {place}",
            folder=folder,
            map_count=min(self.jobs, cells),
            **self.parameters(),
        )
        return made

    def parameters(self) -> dict[str, Any]:
        """As submitit takes them; options that it does not know go to ``sbatch`` as they are.

        Raises:
            ConfigError: an option is one that llmopt sets itself.
        """
        slurm = require("submitit.slurm.slurm", "slurm", "--engine slurm")
        own: dict[str, Any] = {
            "job_name": "llmopt",
            "time": self.minutes,
            "array_parallelism": self.jobs,
            "stderr_to_stdout": True,
            "cpus_per_task": self.each.cpus and max(1, round(self.each.cpus)),
            "gpus_per_node": self.each.gpus and max(1, round(self.each.gpus)),
            "mem": self.each.memory and f"{max(1, round(self.each.memory * 1024))}MB",
        }
        given = {name.replace("-", "_"): value for name, value in self.options.items()}
        if taken := given.keys() & {*own, "array", "map_count"}:
            raise ConfigError(
                f"--slurm {min(taken)}=… is set by --jobs, --worker-cpus, --worker-gpus, "
                "--worker-memory or --worker-minutes; leave it out"
            )
        known = slurm._get_default_parameters().keys() - {"setup", "teardown", "srun_args"}
        found = {name: value for name, value in {**own, **given}.items() if value}
        others = {k.replace("_", "-"): v for k, v in found.items() if k not in known}
        found = {name: value for name, value in found.items() if name in known}
        return found | ({"additional_parameters": others} if others else {})


def _ended(jobs: Any, known: Known, sweep: str) -> list[Ended]:
    """Cells that are over, as their folders tell."""
    known.refresh()
    found = []
    for job in jobs:
        folder = known.last(job.key)
        if folder is not None and known.finished(folder):
            found.append(Ended(job, folder))
        elif error := Room(known.root, job.key).error(sweep):
            found.append(Ended(job, error=error))
    return found


class _Submissions:
    """What was submitted for the cells below a folder, by this process or one that is gone.

    Attributes:
        folder: of submitit's files and of what the workers say.
        name: tells what fails now from what failed in an earlier sweep.
    """

    def __init__(self, engine: SlurmEngine, root: Path) -> None:
        require("submitit", "slurm", "--engine slurm")
        self._engine, self._root = engine, root
        self.folder = root / CELLS / "slurm"
        self.name = uuid.uuid4().hex
        self._jobs: list[submitit.Job[None]] = []
        if engine.cluster == "slurm":
            self._adopt()

    def alive(self) -> bool:
        """Whether a worker runs or waits for its turn."""
        self._jobs = [job for job in self._jobs if not job.done(force_check=True)]
        return bool(self._jobs)

    def submit(self, jobs: Sequence[Job], purse: Purse) -> int:
        """Start workers for these cells; how many.

        Raises:
            ConfigError: there is no Slurm here, or it refuses an option.
        """
        import submitit

        self.folder.mkdir(parents=True, exist_ok=True)
        number = min(self._engine.jobs, len(jobs))
        works = [
            Work(jobs, self._root, purse, self.name, start=place * len(jobs) // number)
            for place in range(number)
        ]
        try:
            if self._engine.cluster == "local":
                executor: Any = submitit.LocalExecutor(self.folder, max_num_timeout=_TIMEOUTS)
                executor.update_parameters(timeout_min=self._engine.minutes)
            else:
                executor = submitit.SlurmExecutor(self.folder, max_num_timeout=_TIMEOUTS)
                executor.update_parameters(**self._engine.parameters())
            with executor.batch():
                self._jobs = [executor.submit(work) for work in works]
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise ConfigError(
                f"Slurm cannot be used from here: {error}; see --engine slurm --print, and "
                "--slurm for options of sbatch"
            ) from error
        with keeping(self.folder):
            kept = {"sweep": self.name, "jobs": [job.job_id for job in self._jobs]}
            write_text(self.folder / _SUBMITTED, json.dumps(kept))
        return number

    def cancel(self) -> None:
        """End all workers."""
        for job in self._jobs:
            job.cancel(check=False)

    def _adopt(self) -> None:
        """Take up what an earlier process has submitted, if it still runs."""
        import submitit

        try:
            kept = json.loads((self.folder / _SUBMITTED).read_bytes())
            ids, name = [str(one) for one in kept["jobs"]], str(kept["sweep"])
            self._jobs = [submitit.SlurmJob(folder=self.folder, job_id=one) for one in ids]
        except (OSError, RecursionError, ValueError, KeyError, TypeError):
            return
        if self.alive():
            self.name = name


@dataclass(frozen=True)
class Work:
    """What a worker does.

    Attributes:
        jobs: all cells.
        root: where run folders are.
        purse: what all of them may spend.
        sweep: the name of the submission.
        start: the cell it begins with.
    """

    jobs: Sequence[Job]
    root: Path
    purse: Purse
    sweep: str
    start: int = 0

    def __call__(self) -> None:
        """Take cells until all are done, failed, or held by others."""
        if threads := os.environ.get("SLURM_CPUS_PER_TASK"):
            use_threads(int(threads))
        known = Known(self.root)
        attempts = Attempts(known, self.purse, _Log(), self.sweep, patience=0)
        queue = [*self.jobs[self.start :], *self.jobs[: self.start]]
        while queue:
            short = []
            for job in queue:
                if Room(self.root, job.key).error(self.sweep):
                    continue
                one = attempts.run(job)
                if one.interrupted:
                    return
                if one.short:
                    short.append(job)
                else:
                    print(f"{job.title}: {_told(one)}", flush=True)
            queue = short
            if queue:
                time.sleep(PATIENCE)

    def checkpoint(self) -> Any:
        """The same again, once there is time: submitit calls this when there is none left."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _told(one: Ended) -> str:
    if one.busy:
        return "somebody is at it"
    return str(one.error or one.folder)


class _Log(Watch):
    """Writes notes and warnings to the worker's log."""

    def note(self, text: str) -> None:
        print(text, flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {text}", flush=True)
