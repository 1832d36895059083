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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from llmopt.comparison.attempt import Attempts, Done, Task
from llmopt.comparison.grid import Known
from llmopt.errors import INTERRUPTED, LlmoptError, ServiceError
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger


def spread(
    tasks: Sequence[Task], known: Known, jobs: int, watch: Watch, report: Callable[[Done], None]
) -> None:
    """Run cells in up to ``jobs`` processes.

    Args:
        tasks: in order.
        known: the runs there are.
        jobs: processes.
        watch: told what they have to say.
        report: told of each cell that ended, and of each that is busy.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once all processes have ended: those in a
            search after the calls in flight; all of them at once if it comes again.
        ServiceError: a process ended before it could begin.
    """
    waiting = deque(tasks)
    workers = [_Worker(known, jobs) for _ in range(min(jobs, len(tasks)))]
    try:
        while waiting or any(worker.task for worker in workers):
            for worker in workers:
                if worker.idle and waiting:
                    worker.give(waiting.popleft())
            for worker in _speaking(workers):
                task = worker.task
                if (one := worker.hear(watch)) is None or task is None:
                    continue
                if one.interrupted:
                    raise KeyboardInterrupt
                report(one)
                if one.busy:
                    waiting.append(task)
                if not worker.alive:
                    workers.remove(worker)
                    workers.append(_Worker(known, jobs))
    except KeyboardInterrupt:
        watch.note("interrupted: ending after the calls in flight (again to stop at once)")
        for worker in workers:
            worker.stop()
        while any(worker.task for worker in workers):
            for worker in _speaking(workers):
                one = worker.hear(Watch())
                if one is not None and one.folder is not None and not one.interrupted:
                    report(one)
        raise
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """One process, as its parent sees it.

    Attributes:
        task: what it is at.
        alive: as far as is known.
    """

    def __init__(self, known: Known, jobs: int) -> None:
        # Forked processes would share the locks of threads that torch has started.
        spawn = get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, known, jobs))
        with _unheard(signal.SIGINT):  # inherited: it has no handler while it imports
            self._process.start()
        theirs.close()
        self._ready = False
        self.task: Task | None = None
        self.alive = True

    @property
    def idle(self) -> bool:
        """Whether it can take a task."""
        return self._ready and self.alive and self.task is None

    def give(self, task: Task) -> None:
        """Hand it a task."""
        self.task = task
        with contextlib.suppress(OSError):  # it died; hear() will tell
            self.pipe.send(task)

    def hear(self, watch: Watch) -> Done | None:
        """The next thing it says; what became of its task, if it is that."""
        try:
            kind, said = self.pipe.recv()
        except (EOFError, OSError):
            return self._ended()
        if kind == "ready":
            self._ready = True
        elif kind == "done":
            assert isinstance(said, Done)
            assert self.task is not None
            one, self.task = dataclasses.replace(said, cell=self.task[0]), None
            return one
        else:
            {"note": watch.note, "warn": watch.warn}[kind](said)
        return None

    def stop(self) -> None:
        """End it soon, or at once where nothing is lost by that."""
        if self.task is None:
            self.kill()
        else:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self.alive = False
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _ended(self) -> Done:
        self.kill()
        code, task, self.task = self._process.exitcode, self.task, None
        why = ServiceError(
            f"a process of --jobs ended with exit code {code} (-9: killed, often for its memory); "
            "the same command goes on from there"
        )
        if task is None:
            raise why
        return Done(task[0], error=why, interrupted=code == INTERRUPTED)


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


def _work(pipe: Connection, known: Known, jobs: int) -> None:
    """Run what comes through the pipe, until there is nobody at its other end."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    voice = _Voice(pipe)

    def leave(number: int, frame: Any) -> None:
        if not voice.stopping:  # Ctrl-C reaches us twice: from the terminal and from the parent
            os._exit(INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)  # while a search runs, it has a gentler way
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    attempts = Attempts(known, voice)
    voice.say("ready")
    while True:
        try:
            task: Task = pipe.recv()
        except EOFError:
            return
        voice.title = task[0].title
        done = attempts.run(task)
        if done.error is not None:
            done = dataclasses.replace(done, error=_portable(done.error))
        voice.say("done", done)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _portable(error: LlmoptError) -> LlmoptError:
    """The error with its exit code, in a form any process can read."""
    plain = LlmoptError(str(error))
    plain.exit_code = error.exit_code
    return plain
