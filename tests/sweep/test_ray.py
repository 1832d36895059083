"""Ray: how its workers are told cells, and what is left when they and their nodes are killed."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import signal
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grids
import hypothesis.strategies as st
import pytest
from command_line import refused
from fuzz import fuzz
from hostile_server import HostileServer
from paper_runs import paper_run
from written import Runs, written_runs

from llmopt.comparison.execute import execute, standing
from llmopt.comparison.grid import Cell, make_grid, parse_arm
from llmopt.errors import BudgetTooSmall, ConfigError, RunFolderError
from llmopt.runs import engine
from llmopt.runs.compose import Setup
from llmopt.runs.config import RunConfig
from llmopt.runs.folder import find, read_result
from llmopt.spend.events import Watch
from llmopt.sweep import ray as ray_engine
from llmopt.sweep import ray_worker
from llmopt.sweep.engine import Resources
from llmopt.sweep.parcel import pack, unpack
from llmopt.sweep.ray import RayEngine
from llmopt.sweep.ray_worker import Worker

runs = written_runs


class Lost(Exception):
    """An actor has died."""


class Actor:
    """A worker in this process; what it is asked is answered when somebody waits."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        self._worker: Worker | None = None
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return Asked(self, name)

    def answer(self, name: str, given: Sequence[Any]) -> Any:
        self._worker = self._worker or self._make()
        return getattr(self._worker, name)(*given)


class Asked:
    """A method of an actor."""

    def __init__(self, actor: Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, *given: Any) -> Any:
        return Future(self.actor, self.name, given)


@dataclasses.dataclass(eq=False)
class Future:
    """What an actor was asked."""

    actor: Actor
    name: str
    given: Sequence[Any]


class FakeRay:
    """As much of Ray as is used, in this process.

    Attributes:
        dies: told of each thing an actor is asked; whether it dies of that.
        declared: what the actors were declared to need.
    """

    class exceptions:
        RayError = RayActorError = Lost

    def __init__(self, cpus: float = 4) -> None:
        self.cpus = cpus
        self.dies: Callable[[Future], bool] = lambda asked: False
        self.declared: dict[str, Any] = {}
        self.started = 0

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self.cpus}}, {"Alive": False, "Resources": {}}]

    def remote(self, kind: Any) -> Any:
        self.kind = kind
        return self

    def options(self, **declared: Any) -> Any:
        self.declared = declared
        outer = self

        class Maker:
            def remote(self, *given: Any) -> Actor:
                outer.started += 1
                return Actor(lambda: outer.kind(*given))

        return Maker()

    def wait(self, asked: list[Future], num_returns: int, timeout: float) -> Any:
        return asked[:1], asked[1:]

    def get(self, asked: Future, timeout: float | None = None) -> Any:
        if self.dies(asked):
            raise Lost("its node is gone")
        return asked.actor.answer(asked.name, asked.given)

    def kill(self, actor: Actor) -> None:
        pass


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray_engine, "require", lambda *words: fake)
    monkeypatch.setattr(ray_engine, "_BACKOFF", 0.0)
    monkeypatch.setattr(ray_engine, "PATIENCE", 0.0)
    return fake


class Said(Watch):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def cells(root: Path, seeds: int, *arms: str) -> list[Cell]:
    base = RunConfig(runs=str(root), llm="builtin")
    wanted = [parse_arm(arm) for arm in arms or ("random",)]
    return make_grid(base, wanted, ["shapes-small"], [1], range(1, seeds + 1))


def test_each_worker_opens_a_model_once(runs: Runs, ray: FakeRay, tmp_path: Path) -> None:
    grid = cells(tmp_path, 6, "random", "two=random,model=RN50")
    each = Resources(cpus=2, gpus=0, memory=0)
    done, status = execute(grid, tmp_path, RayEngine("auto", each), Watch())
    assert status.whole
    assert [one.cell for one in done] == grid
    assert ray.started == 2  # of two cores each, on four
    assert ray.declared["num_cpus"] == 2
    assert len(runs.opened) <= 2 * 2
    assert list((tmp_path / ".cells").glob("shared-*")) == []


def test_a_mistake_is_not_tried_again(runs: Runs, ray: FakeRay, tmp_path: Path) -> None:
    runs.fails = {2}
    done, status = execute(cells(tmp_path, 3), tmp_path, RayEngine(2), Watch())
    assert [str(one.error) for one in done if one.error] == ["the service is gone"]
    assert status.counts["failed"] == 1
    assert standing(cells(tmp_path, 3), tmp_path)[1].counts["failed"] == 1


def test_a_cell_goes_on_where_its_worker_died(runs: Runs, ray: FakeRay, tmp_path: Path) -> None:
    deaths = iter([True, False, True])
    ray.dies = lambda asked: asked.name == "run" and next(deaths, False)
    watch = Said()
    _, status = execute(cells(tmp_path, 3), tmp_path, RayEngine(1), watch)
    assert status.whole
    assert ray.started == 3
    assert len(watch.warnings) == 2
    assert "lost with its worker on" in watch.warnings[0]
    assert "it goes on with another one in 0 s" in watch.warnings[0]


def test_a_cell_that_kills_its_workers_is_given_up(
    runs: Runs, ray: FakeRay, tmp_path: Path
) -> None:
    ray.dies = lambda asked: asked.name == "run" and asked.given[0].config.seed == 2
    done, _ = execute(cells(tmp_path, 3), tmp_path, RayEngine(2), Said())
    assert [one.error is None for one in done] == [True, False, True]
    assert "lost 6 times with its worker" in str(done[1].error)


def test_folders_come_back_from_where_nothing_is_shared(
    runs: Runs, ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "_reads", lambda *given: False)
    root = tmp_path / "runs"
    states = []

    def start(setup: Setup, watch: Watch) -> dict[str, Any]:
        states.append(standing(cells(root, 3), root)[1].counts["running"])
        if setup.config.seed == 3 and len(states) == 3:
            runs.fails = {3}
        return runs.start(setup, watch)

    monkeypatch.setattr(engine, "start", start)
    done, status = execute(cells(root, 3), root, RayEngine(1), Watch())
    assert status.counts == {"done": 2, "running": 0, "failed": 1, "waiting": 0}
    assert states == [1, 1, 1]  # the lock is held here
    assert all(one.folder in find(root) for one in done if one.folder)
    assert read_result(find(root)[0])["run"] == str(find(root)[0])
    runs.fails = set()
    done, status = execute(cells(root, 3), root, RayEngine(1), Watch(), {"queries": 1e9})
    assert status.whole
    done, _ = execute(cells(root, 4), root, RayEngine(1), Watch(), {"queries": 301.0})
    assert isinstance(done[3].error, BudgetTooSmall)


def test_a_run_that_is_sent_goes_on(
    runs: Runs, ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "_reads", lambda *given: False)
    root = tmp_path / "runs"
    execute(cells(root, 1), root, RayEngine(1), Watch())
    (folder,) = find(root)
    (folder / "result.json").unlink()
    resumed = []

    def resume(there: Path, setup: Setup, watch: Watch) -> dict[str, Any]:
        resumed.append(there)
        assert pack(there) == pack(folder)
        source = runs.start(setup, watch)["run"]
        (there / "result.json").write_bytes((Path(source) / "result.json").read_bytes())
        return {"status": "complete", "run": str(there)}

    monkeypatch.setattr(engine, "resume", resume)
    _, status = execute(cells(root, 1), root, RayEngine(1), Watch())
    assert status.whole
    assert find(root) == [folder]
    assert resumed[0] != folder


def test_what_no_node_holds_is_said(runs: Runs, ray: FakeRay, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"asks for 1 cores, 0\.5 GPUs and 0 GiB"):
        execute(cells(tmp_path, 1), tmp_path, RayEngine(1, Resources(gpus=0.5)), Watch())
    assert "but for ray" in refused("compare", "--ray-address", "auto")


def test_a_parcel_is_what_was_packed(tmp_path: Path) -> None:
    folder = paper_run(tmp_path)
    (folder / ".lock").touch()
    unpack(pack(folder), tmp_path / "there")
    assert {p.name for p in (tmp_path / "there").iterdir()} == {
        p.name for p in folder.iterdir() if p.name != ".lock"
    }
    for name in ("/etc/llmopt", "../x", "a/../../x"):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as parcel:
            parcel.addfile(tarfile.TarInfo(name))
        with pytest.raises(RunFolderError, match="has a file elsewhere"):
            unpack(raw.getvalue(), tmp_path / "other")


@fuzz(content=st.binary(max_size=2000))
def test_any_parcel_is_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(content, Path(folder) / "run")
        except RunFolderError:
            return


# ------------------------------------------------------------------------------- Ray itself


@pytest.fixture
def nodes(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster of three node processes, beside its head, of two cores each."""
    grids.count_loads(tmp_path, monkeypatch)
    monkeypatch.setenv("LLMOPT_TEST", uuid.uuid4().hex)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # by default 15: what else runs here starves it
    monkeypatch.setenv("OPENAI_API_KEY", grids.KEY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        yield cluster, [cluster.add_node(num_cpus=2) for _ in range(3)]
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_and_five_workers_are_killed(nodes: tuple[Any, list[Any]], tmp_path: Path) -> None:
    cluster, members = nodes
    count = int(os.environ.get("SWEEP_CELLS", "40"))  # of three arms each
    wanted, requests = grids.serial(count, *grids.ARMS)
    dice = random.Random(1)
    with HostileServer(latency=grids.LATENCY) as server:
        words = [*grids.options(server, tmp_path / "runs", count, *grids.ARMS), "--engine=ray"]
        words += [f"--ray-address={cluster.address}", "--jobs=6"]
        sweep = grids.begin(*words)
        for kill in range(6):
            at = (kill + 1) * requests // 8
            grids.wait_for(lambda at=at: server.requests >= at or sweep.poll() is not None, 900)
            if kill == 3:
                cluster.remove_node(members.pop(), allow_graceful=False)
            elif found := grids.workers("ray::Worker"):
                os.kill(dice.choice(found), signal.SIGKILL)
        assert grids.table(sweep, 3000) == wanted
        grids.nothing_paid_twice(server, tmp_path / "runs", 3 * count, in_flight=2 * 8)
    loads = (tmp_path / "loads").read_text().split()
    assert len(loads) == len(set(loads)) <= 6 + 5 + 2  # one a worker, those hired anew among them
    grids.wait_for(lambda: not grids.workers("ray::Worker"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_parent_is_killed(nodes: tuple[Any, list[Any]], tmp_path: Path) -> None:
    cluster, _ = nodes
    wanted, requests = grids.serial(4)
    for point in range(20):
        runs = tmp_path / f"runs-{point}"
        with HostileServer(latency=grids.LATENCY) as server:
            words = [*grids.options(server, runs, 4), "--engine=ray", "--jobs=2"]
            words.append(f"--ray-address={cluster.address}")
            first = grids.begin(*words)
            grids.at_a_random_moment(server, first, point, requests)
            os.kill(first.pid, signal.SIGKILL)
            first.communicate()
            assert grids.table(grids.begin(*words)) == wanted
            grids.nothing_paid_twice(server, runs, 4, in_flight=4)
        grids.wait_for(lambda: not grids.workers("ray::Worker"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_of_this_machine_ends_with_its_parent(tmp_path: Path) -> None:
    with HostileServer(latency=0.1) as server:
        words = [*grids.options(server, tmp_path / "runs", 3), "--engine=ray", "--jobs=2"]
        first = grids.begin(*words)
        grids.wait_for(lambda: server.requests > 3, 300)
        assert any("ray::Worker" in said for said in grids.session(first.pid))
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        grids.wait_for(
            lambda: not any("ray::Worker" in said for said in grids.session(first.pid)), 30
        )
        second = grids.begin(*words)
        # Ray's agents try for 60 s to tell the driver, which is gone too, that their node is.
        grids.wait_for(lambda: not grids.session(first.pid), 120)
        grids.table(second)
        grids.nothing_paid_twice(server, tmp_path / "runs", 3, in_flight=4)
