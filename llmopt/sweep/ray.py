"""Workers as actors of Ray core (extra ``ray``), on a cluster or on this machine.

One actor is a worker with the models it has opened. It is told one cell at a time. If it dies with
its node, the cell goes to another after a while and is resumed from its folder; what a user has to
mend is not tried again. Actors end with this process, however that ends.

Where a node does not share the file system with this process, the folder of a cell is sent there
and comes back: every few seconds while it runs, and when it has ended. Its lock is held here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from llmopt._optional import require
from llmopt.errors import ConfigError, LlmoptError, RunFolderInUse, ServiceError
from llmopt.spend.events import Watch
from llmopt.spend.files import keeping, write_text
from llmopt.sweep.attempt import PATIENCE, Ended
from llmopt.sweep.engine import ENDING, Queue, Report, Resources
from llmopt.sweep.parcel import pack, unpack
from llmopt.sweep.purse import Purse
from llmopt.sweep.ray_worker import Answer, Place, Worker
from llmopt.sweep.room import CELLS, Room
from llmopt.sweep.work import Job, Known

LOSSES: Final = 5
"""Times that a cell is lost with its worker before it is given up."""
PULL: Final = 5.0  # seconds between two looks at a cell that runs on another file system
_BACKOFF: Final = 1.0  # seconds after the first loss; twice as long after each further one
_LONGEST: Final = 60.0
_SENT: Final = ("LLMOPT_", "HF_TOKEN")  # beginnings of variables that workers elsewhere get


@dataclass(frozen=True)
class RayEngine:
    """Runs cells on a Ray cluster.

    Attributes:
        jobs: workers; ``auto`` is as many as the cluster has room for.
        each: what each declares; by default one core. GPUs may be parts of one.
        address: of the cluster; by default one is started on this machine for the sweep.
    """

    jobs: int | Literal["auto"] = 1
    each: Resources = field(default_factory=Resources)
    address: str = ""

    def run(
        self, jobs: Sequence[Job], known: Known, purse: Purse, watch: Watch, report: Report
    ) -> None:
        """Run what can be run.

        Raises:
            ConfigError: Ray is not here, there is no such cluster, or no node has room for a
                worker.
            KeyboardInterrupt: after Ctrl-C or SIGTERM, once the calls in flight were answered.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray = require("ray", "ray", "--engine ray")
        with _connected(ray, self.address), _token(known.root) as (token, content):
            count = min(self._room(ray), len(jobs))
            if self.jobs != "auto":
                count = min(count, self.jobs)
            place = Place(
                known.root, Path.cwd(), token, content, purse, self._environment(),
                round(self.each.cpus),
            )  # fmt: skip
            _Sweep(ray, self._actor(ray), place, known, watch, report).run(jobs, count)

    def _room(self, ray: Any) -> int:
        """Workers that the nodes of the cluster hold together."""
        asked = {"CPU": self._cpus, "GPU": self.each.gpus, "memory": self.each.memory * 2**30}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(
            min(int(node.get(name, 0) / amount) for name, amount in asked.items() if amount)
            for node in nodes
        )
        if not room:
            most = {name: max((n.get(name, 0) for n in nodes), default=0) for name in asked}
            raise ConfigError(
                f"no node of the Ray cluster holds a worker: it asks for {self._cpus:g} cores, "
                f"{self.each.gpus:g} GPUs and {self.each.memory:g} GiB, and the most of a node is "
                f"{most['CPU']:g}, {most['GPU']:g} and {most['memory'] / 2**30:.1f}; see "
                "--worker-cpus, --worker-gpus and --worker-memory"
            )
        return room

    @property
    def _cpus(self) -> float:
        return self.each.cpus or 1

    def _actor(self, ray: Any) -> Any:
        # The second thread answers while the first runs a cell.
        return ray.remote(Worker).options(
            num_cpus=self._cpus,
            num_gpus=self.each.gpus or None,
            memory=int(self.each.memory * 2**30) or None,
            max_concurrency=2,
            max_restarts=0,
        )

    def _environment(self) -> dict[str, str]:
        """What workers of another cluster need of ours; those started from here have it."""
        if not self.address:
            return {}
        return {
            k: v for k, v in os.environ.items() if k.startswith(_SENT) or k.endswith("_API_KEY")
        }


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """The cluster; one that is there already stays."""
    if ray.is_initialized():
        yield
        return
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(include_dashboard=False, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"there is no Ray cluster at '{address or 'this machine'}': {error}; see --ray-address"
        ) from error
    # Ray prints what its nodes say, where a result may be read by a machine.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _token(root: Path) -> Iterator[tuple[Path, str]]:
    """A file by which workers find out whether they see this file system."""
    content = uuid.uuid4().hex
    path = root.absolute() / CELLS / f"shared-{content}"
    with keeping(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, content)
    try:
        yield path, content
    finally:
        path.unlink(missing_ok=True)


@dataclass(eq=False)
class _Hand:
    """One worker, as its driver sees it.

    Attributes:
        actor: it.
        answer: that is waited for: where it is at first, then what became of its cell.
        host: its machine; empty before it is there.
        shared: it sees our file system.
        job: what it is at.
        held: the lock of that cell, where the worker cannot hold it.
        opened: models it was given.
        pull: the folder of its cell that is on its way here, and when that was asked for.
    """

    actor: Any
    answer: Any
    host: str = ""
    shared: bool = True
    job: Job | None = None
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    opened: set[object] = field(default_factory=set)
    pull: Any = None
    pulled: float = 0.0


class _Sweep:
    """Deals out cells until all are done."""

    def __init__(
        self, ray: Any, actor: Any, place: Place, known: Known, watch: Watch, report: Report
    ) -> None:
        self._ray, self._actor, self._place = ray, actor, place
        self._known, self._watch, self._report = known, watch, report
        self._queue = Queue(())
        self._later: list[tuple[float, Job]] = []
        self._losses: dict[str, int] = {}
        self._stillborn = 0
        self._hands: list[_Hand] = []

    def run(self, jobs: Sequence[Job], count: int) -> None:
        self._queue = Queue(jobs)
        self._hands = [self._hire() for _ in range(count)]
        try:
            while self._queue or self._later or any(hand.job for hand in self._hands):
                self._wake()
                for hand in self._hands:
                    if hand.answer is None:
                        self._give(hand)
                self._listen()
        except KeyboardInterrupt:
            self._watch.note(ENDING)
            self._stop()
            raise
        finally:
            for hand in self._hands:
                hand.held.close()
                if not hand.shared:
                    with contextlib.suppress(self._ray.exceptions.RayError):
                        self._ray.get(hand.actor.close.remote(), timeout=10)
                self._ray.kill(hand.actor)

    def _hire(self) -> _Hand:
        actor = self._actor.remote(self._place)
        return _Hand(actor, actor.about.remote())

    def _wake(self) -> None:
        now = time.monotonic()
        for job in [job for at, job in self._later if at <= now]:
            self._queue.put(job)
        self._later = [(at, job) for at, job in self._later if at > now]

    def _give(self, hand: _Hand) -> None:
        """Hand it the next cell, if there is one for it."""
        job = self._queue.take(hand.opened)
        if job is None:
            return
        begun = None
        if not hand.shared:
            try:
                begun = self._hold(hand, job)
            except LlmoptError as error:
                hand.held.close()
                self._settle(self._refused(job, error))
                return
        hand.job, hand.pulled = job, time.monotonic()
        hand.opened.add(job.model)
        hand.answer = hand.actor.run.remote(job, begun)

    def _hold(self, hand: _Hand, job: Job) -> tuple[str, bytes] | None:
        """Lock a cell here for a worker that cannot; what is there of it.

        Raises:
            RunFolderInUse: another process is at it, or what is left of a cap has to be waited for.
            BudgetTooSmall: nothing is left of a cap.
        """
        room = Room(self._place.root, job.key)
        hand.held.enter_context(room.locked())
        if not self._place.purse.admit(job, self._known):
            raise RunFolderInUse("what others may leave of a cap is waited for")
        room.begin(hand.host)
        folder = self._known.find(job.key)
        return None if folder is None else (folder.name, pack(folder))

    @staticmethod
    def _refused(job: Job, error: LlmoptError) -> Ended:
        if isinstance(error, RunFolderInUse):
            return Ended(job, busy=True)
        return Ended(job, error=error)

    def _listen(self) -> None:
        """Wait a little for answers, and take them up."""
        waiting = {h.answer: h for h in self._hands if h.answer is not None}
        pulls = {h.pull: h for h in self._hands if h.pull is not None}
        ready, _ = self._ray.wait([*waiting, *pulls], num_returns=1, timeout=PATIENCE)
        for one in ready:
            if one in pulls:
                self._keep(pulls[one])
            else:
                self._hear(waiting[one])
        now = time.monotonic()
        for hand in self._hands:
            if hand.job and not hand.shared and hand.pull is None and now - hand.pulled > PULL:
                hand.pull, hand.pulled = hand.actor.packed.remote(hand.job), now

    def _hear(self, hand: _Hand) -> None:
        try:
            said = self._ray.get(hand.answer)
        except self._ray.exceptions.RayActorError as error:
            self._lost(hand, error)
            return
        except self._ray.exceptions.RayError as error:
            said = Answer(Ended(_job(hand), error=LlmoptError(f"{error}"[:2000])), None, (), ())
        hand.answer = None
        if not hand.host:
            hand.host, hand.shared = said
            return
        assert isinstance(said, Answer)
        job, hand.job = _job(hand), None
        ended = dataclasses.replace(said.ended, job=job)
        if not hand.shared:
            ended = self._taken(hand, ended, said.parcel)
        for text in said.notes:
            self._watch.note(text)
        for text in said.warnings:
            self._watch.warn(text)
        self._settle(ended)

    def _settle(self, ended: Ended) -> None:
        """Tell of a cell, or put it back."""
        if not ended.interrupted:
            self._report(ended)
        if ended.busy or ended.interrupted:  # its node wants to be rid of it
            self._later.append((time.monotonic() + PATIENCE, ended.job))

    def _lost(self, hand: _Hand, error: Exception) -> None:
        """The worker died, often with its node: its cell goes to another one, after a while."""
        self._hands.remove(hand)
        hand.held.close()
        if not hand.host:
            self._stillborn += 1
            if self._stillborn > LOSSES:
                raise ServiceError(f"no Ray worker can begin: {error}; see Ray's logs on its node")
        if self._queue or self._later or hand.job:
            self._hands.append(self._hire())
        if (job := hand.job) is None:
            return
        losses = self._losses[job.key] = self._losses.get(job.key, 0) + 1
        if losses > LOSSES:
            why = f"lost {losses} times with its worker, the last one on {hand.host}: {error}"
            Room(self._place.root, job.key).fail(ServiceError(why))
            self._report(Ended(job, error=ServiceError(why)))
            return
        pause = min(_LONGEST, _BACKOFF * 2 ** (losses - 1))
        lost = f"{job.title}: lost with its worker on {hand.host}"
        self._watch.warn(f"{lost}; it goes on with another one in {pause:g} s")
        self._later.append((time.monotonic() + pause, job))

    # --- without a shared file system ------------------------------------------------------------

    def _keep(self, hand: _Hand) -> None:
        """A folder has come while its cell still runs."""
        pull, hand.pull = hand.pull, None
        with contextlib.suppress(self._ray.exceptions.RayError, LlmoptError):
            if (found := self._ray.get(pull)) is not None and hand.job is not None:
                unpack(found[1], self._home(hand.job, found[0]))

    def _taken(self, hand: _Hand, ended: Ended, parcel: bytes | None) -> Ended:
        """What became of a cell, with its folder here."""
        room = Room(self._place.root, ended.job.key)
        try:
            if ended.folder is not None and parcel is not None:
                folder = self._home(ended.job, ended.folder.name)
                unpack(parcel, folder)
                ended = dataclasses.replace(ended, folder=folder)
        except LlmoptError as error:
            ended = Ended(ended.job, error=error)
        if ended.error is not None:
            room.fail(ended.error)
            if self._known.find(ended.job.key) is None:
                self._place.purse.give_back(ended.job)
        hand.held.close()
        return ended

    def _home(self, job: Job, name: str) -> Path:
        """Where the folder of a cell goes: where it is, or where none is yet."""
        if (folder := self._known.find(job.key)) is not None:
            return folder
        folder = self._known.root / name
        return folder if not folder.exists() else folder.with_name(f"{name}-{job.key[:8]}")

    def _stop(self) -> None:
        """Let the calls in flight be answered, and keep what there is."""
        busy = [hand for hand in self._hands if hand.job is not None]
        for hand in busy:
            with contextlib.suppress(self._ray.exceptions.RayError):
                if not self._ray.get(hand.actor.stop.remote(), timeout=10):
                    continue
                said = self._ray.get(hand.answer)
                if isinstance(said, Answer):
                    ended = dataclasses.replace(said.ended, job=_job(hand))
                    if not hand.shared:
                        ended = self._taken(hand, ended, said.parcel)
                    if ended.folder is not None and not ended.interrupted:
                        self._report(ended)


def _job(hand: _Hand) -> Job:
    assert hand.job is not None
    return hand.job
