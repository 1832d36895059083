"""Slurm: what is submitted, and that nothing is lost or paid for twice by what may happen there."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import fake_slurm
import grids
import pytest
from command_line import refused, run
from hostile_server import HostileServer

import llmopt
from llmopt.comparison.execute import execute
from llmopt.comparison.grid import Cell, make_grid, parse_arm
from llmopt.errors import ConfigError, ServiceError
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.sweep import slurm
from llmopt.sweep.local import LocalEngine
from llmopt.sweep.slurm import SlurmEngine

pytestmark = pytest.mark.usefixtures("shared_cache")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm of this machine; state is in the folder."""
    folder = fake_slurm.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(slurm, "POLL", 0.1)
    return folder


def cells(root: Path, seeds: int, arm: str = "zeroshot") -> list[Cell]:
    base = RunConfig(runs=str(root), llm="builtin")
    return make_grid(base, [parse_arm(arm)], ["shapes-small"], [1], range(1, seeds + 1))


def test_the_script_is_shown(tmp_path: Path) -> None:
    asked = ["compare", "--engine", "slurm", "--print", "--runs", tmp_path, "--jobs", "16"]
    asked += ["--worker-gpus", "1", "--worker-memory", "12", "--worker-minutes", "90"]
    many = ["--shots", "1,2,4", "--seed", "1-3"]
    script = run(*asked, *many, "--slurm", "partition=gpu", "--slurm", "licenses=a:1").out
    for line in (
        "--array=0-15%16", "--gpus-per-node=1", "--mem=12288MB", "--time=90", "--partition=gpu",
        "--licenses=a:1", "--signal=USR2@90", "--job-name=llmopt",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert f"{sys.executable} -u -m submitit.core._submit {tmp_path}/.cells/slurm" in script
    assert "#SBATCH --array=0-5%6\n" in run(*asked).out  # no more than there are cells
    assert "found under data" in refused(*asked, "--dataset", "caltech101")
    assert not (tmp_path / ".cells").exists()
    assert "is set by --jobs" in refused(*asked, "--slurm", "mem=4")
    assert "--print shows" in refused("compare", "--print")
    assert "but for ray, slurm" in refused("compare", "--worker-gpus", "1")
    assert "how many workers" in refused("compare", "--engine", "slurm", "--jobs", "auto")
    assert "0 or more" in refused("compare", "--engine", "slurm", "--worker-cpus=-1")


def test_without_slurm_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'Slurm cannot be used from here.*"srun"'):
        execute(cells(tmp_path, 1), tmp_path, SlurmEngine(), Watch())


@pytest.mark.long
def test_an_array_of_workers_finishes_a_grid(cluster: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    grid = cells(root, 4)
    # 12 prompts each, but 24 may be: the fourth is not begun, whoever comes first.
    done, status = execute(grid, root, SlurmEngine(jobs=2), Watch(), {"queries": 59.0})
    assert sum(one.error is None for one in done) == 3
    assert "what is left of 59 queries" in status.failures()[0]
    assert len(list(cluster.glob("script-*"))) == 1
    assert len(fake_slurm.pids(cluster)) == 2
    done, status = execute(grid, root, LocalEngine(), Watch())  # any engine goes on
    assert sum(one.reused for one in done) == 3
    assert status.whole


def test_workers_that_end_at_once_are_not_submitted_for_ever(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "ROUNDS", 2)
    engine = SlurmEngine()
    (cluster / "srun").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ServiceError, match="1 cells were left by 2 rounds of Slurm jobs"):
        execute(cells(tmp_path / "runs", 1), tmp_path / "runs", engine, Watch())


@pytest.mark.slow
@pytest.mark.parametrize("point", range(20))
def test_the_parent_is_killed(point: int, cluster: Path, tmp_path: Path) -> None:
    """What is in the queue goes on; the same command finds it there and submits nothing more."""
    wanted, requests = grids.serial(4)
    with HostileServer(latency=grids.LATENCY) as server:
        words = [*grids.options(server, tmp_path / "runs", 4), "--engine=slurm", "--jobs=2"]
        first = grids.begin(*words)
        grids.at_a_random_moment(server, first, point, requests)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        assert grids.table(grids.begin(*words)) == wanted
        grids.nothing_paid_twice(server, tmp_path / "runs", 4, in_flight=0)
    assert len(list(cluster.glob("script-*"))) == 1
    grids.wait_for(lambda: not any(map(fake_slurm.alive, fake_slurm.pids(cluster).values())))


@pytest.mark.slow
@pytest.mark.parametrize("point", range(5))
def test_workers_are_killed_and_time_out(point: int, cluster: Path, tmp_path: Path) -> None:
    """One lost job loses nothing, and one whose time is up is queued again and goes on."""
    dice = random.Random(point)
    wanted, requests = grids.serial(6)
    with HostileServer(latency=grids.LATENCY) as server:
        words = [*grids.options(server, tmp_path / "runs", 6), "--engine=slurm", "--jobs=3"]
        first = grids.begin(*words)
        grids.at_a_random_moment(server, first, point, requests - 10)
        for pid, end in zip(
            dice.sample(sorted(fake_slurm.pids(cluster).values()), 2),
            (signal.SIGKILL, signal.SIGUSR2),
            strict=True,
        ):
            if end == signal.SIGKILL:
                fake_slurm.kill(pid)
            else:  # as Slurm does, to all that the task has started but the shell
                for child in grids.children(pid):
                    os.kill(child, end)
        assert grids.table(first) == wanted
        grids.nothing_paid_twice(server, tmp_path / "runs", 6, in_flight=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:subprocess", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("where", ["slurm", "local"])
def test_five_workers_of_a_large_grid_are_killed(
    where: Literal["slurm", "local"],
    cluster: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a Slurm of this machine, and with submitit's own executor."""
    count = int(os.environ.get("SWEEP_CELLS", "40"))  # of three arms each
    wanted, requests = grids.serial(count, *grids.ARMS)
    loads = grids.count_loads(tmp_path, monkeypatch)
    monkeypatch.setenv("LLMOPT_TEST", uuid.uuid4().hex)
    monkeypatch.setenv("OPENAI_API_KEY", grids.KEY)
    engine, started, killed, dice = SlurmEngine(3, cluster=where), set(), 0, random.Random(1)
    with HostileServer(latency=grids.LATENCY) as server, ThreadPoolExecutor() as pool:
        words = grids.options(server, tmp_path / "runs", count, *grids.ARMS)
        config = RunConfig(
            runs=str(tmp_path / "runs"), llm="openai:scripted", llm_settings={"cache": "false"},
            llm_base_url=server.url,
        )  # fmt: skip
        seeds = range(1, count + 1)
        found = pool.submit(llmopt.compare, grids.ARMS, seeds=seeds, config=config, engine=engine)
        while not found.done():
            running = grids.workers("submitit.core._submit")
            started.update(running)
            if killed < 5 and running and server.requests > (killed + 1) * requests // 6:
                os.kill(dice.choice(running), signal.SIGKILL)
                killed += 1
            time.sleep(0.2)
        assert killed == 5
        status = found.result().status
        assert status is not None
        assert status.whole
        asked = server.requests
        assert grids.table(grids.begin(*words, LOADS=os.devnull)) == wanted
        assert server.requests == asked
        grids.nothing_paid_twice(server, tmp_path / "runs", 3 * count, in_flight=2 * 5)
    opened = [int(line) for line in loads.read_text().split()]
    assert len(opened) == len(set(opened)) <= len(started)
    grids.wait_for(lambda: not grids.workers("submitit"))
