"""Cells in processes of their own, which never outlive this one.

A worker is told one cell at a time, so nothing is queued where nobody can call it back. It ends
with its parent however that dies: the operating system then closes what is open between them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from llmopt.errors import INTERRUPTED, ServiceError
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger
from llmopt.sweep.attempt import Attempts, Ended
from llmopt.sweep.engine import ENDING, Queue, Report, use_threads
from llmopt.sweep.purse import Purse
from llmopt.sweep.room import Room, portable
from llmopt.sweep.work import Job, Known


@dataclass(frozen=True)
class LocalEngine:
    """Runs cells on this machine: one after the other here, or in processes of their own.

    Attributes:
        jobs: runs at a time; ``auto`` is one for each GPU, or else for every two cores.
    """

    jobs: int | Literal["auto"] = 1

    def run(
        self, jobs: Sequence[Job], known: Known, purse: Purse, watch: Watch, report: Report
    ) -> None:
        """Run what can be run.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, once all processes have ended: those in a
                search after the calls in flight; all of them at once if it comes again.
            ServiceError: a process ended before it could begin.
        """
        at_once = min(auto_jobs(jobs) if self.jobs == "auto" else self.jobs, len(jobs))
        if at_once > 1:
            _spread(jobs, known, purse, at_once, watch, report)
            return
        attempts, queue = Attempts(known, purse, watch), Queue(jobs)
        while (job := queue.take(())) is not None:
            one = attempts.run(job)
            if one.interrupted:
                raise KeyboardInterrupt
            report(one)
            if one.busy:
                queue.put(job)


def auto_jobs(jobs: Sequence[Job]) -> int:
    """Workers that share this machine well."""
    return _cards(jobs) or max(1, (os.cpu_count() or 1) // 2)


def _spread(
    jobs: Sequence[Job], known: Known, purse: Purse, count: int, watch: Watch, report: Report
) -> None:
    queue, gpus = Queue(jobs), _gpus(jobs)

    def hire(number: int) -> _Worker:
        return _Worker(known, purse, count, gpus[number % len(gpus)] if gpus else "")

    workers = [hire(number) for number in range(count)]
    try:
        while queue or any(worker.job for worker in workers):
            for worker in workers:
                if worker.idle and (job := queue.take(worker.opened)) is not None:
                    worker.give(job)
            for worker in _speaking(workers):
                job = worker.job
                if (one := worker.hear(watch)) is None or job is None:
                    continue
                if one.interrupted:
                    raise KeyboardInterrupt
                report(one)
                if one.busy:
                    queue.put(job)
                if not worker.alive:
                    place = workers.index(worker)
                    workers[place : place + 1] = [hire(place)] if queue else []
    except KeyboardInterrupt:
        watch.note(ENDING)
        for worker in workers:
            worker.stop()
        while any(worker.job for worker in workers):
            for worker in _speaking(workers):
                one = worker.hear(Watch())
                if one is not None and one.folder is not None and not one.interrupted:
                    report(one)
        raise
    finally:
        for worker in workers:
            worker.kill()


def _cards(jobs: Sequence[Job]) -> int:
    """GPUs here, as far as these jobs are concerned."""
    if all(job.remote for job in jobs):
        return 0
    import torch

    return torch.cuda.device_count()


def _gpus(jobs: Sequence[Job]) -> list[str]:
    """GPUs to deal out, as ``CUDA_VISIBLE_DEVICES`` names them; none where there is but one."""
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        found = [name.strip() for name in chosen.split(",") if name.strip()]
    else:
        found = [str(number) for number in range(_cards(jobs))]
    return found if len(found) > 1 else []


class _Worker:
    """One process, as its parent sees it.

    Attributes:
        job: what it is at.
        opened: models it was given.
        alive: as far as is known.
    """

    def __init__(self, known: Known, purse: Purse, count: int, gpu: str) -> None:
        # Forked processes would share the locks of threads that torch has started.
        spawn = get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, known, purse, count, gpu))
        with _unheard(signal.SIGINT):  # inherited: it has no handler while it imports
            self._process.start()
        theirs.close()
        self._root = known.root
        self._ready = False
        self.job: Job | None = None
        self.opened: set[object] = set()
        self.alive = True

    @property
    def idle(self) -> bool:
        """Whether it can take a cell."""
        return self._ready and self.alive and self.job is None

    def give(self, job: Job) -> None:
        """Hand it a cell."""
        self.job = job
        self.opened.add(job.model)
        with contextlib.suppress(OSError):  # it died; hear() will tell
            self.pipe.send(job)

    def hear(self, watch: Watch) -> Ended | None:
        """The next thing it says; what became of its cell, if it is that."""
        try:
            kind, said = self.pipe.recv()
        except (EOFError, OSError):
            return self._ended()
        if kind == "ready":
            self._ready = True
        elif kind == "done":
            assert isinstance(said, Ended)
            assert self.job is not None
            one, self.job = dataclasses.replace(said, job=self.job), None
            return one
        else:
            {"note": watch.note, "warn": watch.warn}[kind](said)
        return None

    def stop(self) -> None:
        """End it soon, or at once where nothing is lost by that."""
        if self.job is None:
            self.kill()
        else:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self.alive = False
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _ended(self) -> Ended:
        self.kill()
        code, job, self.job = self._process.exitcode, self.job, None
        why = ServiceError(
            f"a process of --jobs ended with exit code {code} (-9: killed, often for its memory); "
            "the same command goes on from there"
        )
        if job is None:
            raise why
        if code != INTERRUPTED:
            Room(self._root, job.key).fail(why)
        return Ended(job, error=why, interrupted=code == INTERRUPTED)


def _speaking(workers: Sequence[_Worker]) -> list[_Worker]:
    """Those that have something to say, once there are any."""
    pipes = {worker.pipe: worker for worker in workers if worker.alive}
    return [pipes[pipe] for pipe in wait(list(pipes)) if isinstance(pipe, Connection)]


@contextlib.contextmanager
def _unheard(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal, where this thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


# --- in the worker -------------------------------------------------------------------------------


class _Voice(Watch):
    """Tells the parent what a person should know.

    Attributes:
        title: of the cell.
        stopping: the search of the cell was interrupted and is ending.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._turn = threading.Lock()
        self._ledger: Ledger | None = None
        self.title = ""

    @property
    def stopping(self) -> bool:
        return self._ledger is not None and self._ledger.stopped

    def started(self, folder: Path, ledger: Ledger) -> None:
        self._ledger = ledger

    def note(self, text: str) -> None:
        self.say("note", f"{self.title}: {text}")

    def warn(self, text: str) -> None:
        self.say("warn", f"{self.title}: {text}")

    def say(self, kind: str, said: Any = None) -> None:
        """Send something; several threads may."""
        with self._turn:
            self._pipe.send((kind, said))


def _work(pipe: Connection, known: Known, purse: Purse, count: int, gpu: str) -> None:
    """Run what comes through the pipe, until there is nobody at its other end."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first asked for
    threading.Thread(target=_end_with_parent, daemon=True).start()
    voice = _Voice(pipe)

    def leave(number: int, frame: Any) -> None:
        if not voice.stopping:  # Ctrl-C reaches us twice: from the terminal and from the parent
            os._exit(INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)  # while a search runs, it has a gentler way
    use_threads(max(1, (os.cpu_count() or 1) // count))
    attempts = Attempts(known, purse, voice)
    voice.say("ready")
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        voice.title = job.title
        done = attempts.run(job)
        if done.error is not None:
            done = dataclasses.replace(done, error=portable(done.error))
        voice.say("done", done)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
