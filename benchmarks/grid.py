"""Grids: what a cell costs beside its own work on each engine, and 10,000 cells looked at.

    .venv/bin/python benchmarks/grid.py

*Overhead.* A cell is a run that sleeps for five seconds, computes nothing and writes a finished
run folder. 24 of them are run one after the other in a loop, and by four workers of each engine
(they sleep, so they do not fight for cores); Slurm is one of this machine
(``tests/sweep/fake_slurm.py``). From the start of a cell to that of the worker's next one is what a
cell takes: the median over all workers that ran, less five seconds, is told beside the loop's, and
apart from that how long the first cell waits for its worker and the command for the last.

*Ten thousand cells.* Five arms × ten data sets × four shots × fifty seeds, all run before (written
by the engine's own code, without a search, over 1,000 test images each): seconds and the largest
memory so far of planning them, of looking where they stand, and of the table; beside a tenth of
the seeds. The first time, every folder is read; then an index tells what has not changed.

Writes ``benchmarks/results/grid.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TESTS = HERE.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "sweep")]

CELLS, WORKERS, SECONDS = 24, 4, 5.0
SEEDS = (5, 50)
ENGINES = ("local", "slurm", "ray")
PART = (sys.executable, "-c", "import sys, grid_part as p; getattr(p, sys.argv[1])(*sys.argv[2:])")
PATH = os.pathsep.join(map(str, (HERE, HERE.parent, TESTS, TESTS / "sweep")))
SLOW_RUNS = """
import importlib.abc, importlib.util, os, sys, time

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "llmopt.runs.engine":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        run = found.loader.exec_module
        def exec_module(module):
            run(module)
            from written import Runs
            from llmopt.runs.compose import ModelChoice
            runs = Runs()
            def start(setup, watch=None):
                with open(os.environ["STARTED"], "a") as file:
                    file.write(f"{os.getpid()} {time.time()}\\n")
                time.sleep(float(os.environ["SECONDS"]))
                return runs.start(setup, watch)
            module.start = start
            ModelChoice.open = lambda self, watch: object()
        found.loader.exec_module = exec_module
        return found

sys.meta_path.insert(0, Hook())
"""
"""A ``sitecustomize`` that makes every run of every process take some seconds and do nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("overhead", "many"), help="only this")
    parser.add_argument("--cells", type=int, default=CELLS, help="that each engine runs")
    given = parser.parse_args()
    path = RESULTS / "grid.json"
    data = json.loads(path.read_text()) if path.exists() else {}
    load = data.setdefault("load", {})
    if given.part != "many":
        data["overhead"] = overhead(given.cells)
        load["overhead"] = os.getloadavg()[2]
    if given.part != "overhead":
        data["many"] = many()
        load["many"] = os.getloadavg()[2]
    path.write_text(json.dumps({"command": "python benchmarks/grid.py", **data}, indent=2) + "\n")
    write(data)


# ---------------------------------------------------------------------------------- overhead


def overhead(cells: int) -> list[dict[str, Any]]:
    import fake_slurm

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "site").mkdir()
        (home / "site" / "sitecustomize.py").write_text(SLOW_RUNS)
        bin = fake_slurm.install(home / "bin")
        environment = os.environ | {
            "PYTHONPATH": f"{home / 'site'}{os.pathsep}{PATH}",
            "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
            "SECONDS": str(SECONDS),
            "OMP_NUM_THREADS": "1",
        }
        rows: list[dict[str, Any]] = []
        for engine, jobs in (("loop", 1), ("local", 1), *((e, WORKERS) for e in ENGINES)):
            started = home / f"started-{engine}-{jobs}"
            words = [str(home / f"runs-{engine}-{jobs}"), engine, str(jobs), str(cells)]
            begin = time.time()
            subprocess.run(
                [*PART, "sweep", *words],
                env=environment | {"STARTED": str(started)},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            end = time.time()
            by_worker: dict[str, list[float]] = {}
            for line in started.read_text().splitlines():
                worker, at = line.split()
                by_worker.setdefault(worker, []).append(float(at))
            starts = [at for found in by_worker.values() for at in found]
            assert len(starts) == cells
            each = [b - a for found in by_worker.values() for a, b in pairwise(sorted(found))]
            rows.append(
                {
                    "engine": engine,
                    "workers": len(by_worker),
                    "cells": cells,
                    "start_seconds": min(starts) - begin,
                    "end_seconds": end - max(starts) - SECONDS,
                    "a_cell_seconds": median(each),
                }
            )
            alone = rows[0]["a_cell_seconds"]
            rows[-1]["over_the_loop"] = rows[-1]["a_cell_seconds"] / alone - 1
            print(rows[-1], flush=True)
        return rows


# -------------------------------------------------------------------------- ten thousand cells


def many() -> list[dict[str, Any]]:
    import grid_part

    rows: list[dict[str, Any]] = []
    for seeds in SEEDS:
        cells = len(grid_part.cells(str(seeds)))
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"LLMOPT_CACHE": f"{folder}/cache", "PYTHONPATH": PATH}
            words = [f"{folder}/runs", str(seeds)]
            subprocess.run([*PART, "write", *words], check=True, env=environment)
            for turn in ("the first time", "again"):
                said = subprocess.run(
                    [*PART, "look", *words], check=True, env=environment, stdout=subprocess.PIPE
                )
                rows += [{"cells": cells, **row, "turn": turn} for row in json.loads(said.stdout)]
    print(rows, flush=True)
    return rows


def write(data: dict[str, Any]) -> None:
    lines = ["# Grids", "", (__doc__ or "").strip(), ""]
    said = "Here {} cores were shared with other work: a load of {:.0f} on average."
    if "overhead" in data:
        lines += [
            said.format(os.cpu_count(), data["load"]["overhead"]),
            "",
            "| engine | workers | a cell beside its 5 s, s | over the loop, % "
            "| until the first cell, s | after the last, s |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for row in data["overhead"]:
            lines.append(
                f"| {row['engine']} | {row['workers']} | {row['a_cell_seconds'] - SECONDS:.2f} | "
                f"{100 * row['over_the_loop']:.1f} | {row['start_seconds']:.1f} | "
                f"{row['end_seconds']:.1f} |"
            )
        lines.append("")
    if "many" in data:
        lines += [
            said.format(os.cpu_count(), data["load"]["many"]),
            "",
            "| cells | | | seconds | processor seconds | MB |",
            "|--:|---|---|--:|--:|--:|",
        ]
        lines += [
            f"| {row['cells']:,} | {row['what']} | {row['turn']} | {row['seconds']:.1f} | "
            f"{row['processor_seconds']:.1f} | {row['megabytes']:.0f} |"
            for row in data["many"]
        ]
        lines.append("")
    text = "\n".join(lines)
    (RESULTS / "grid.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
