"""One process of ``grid.py``: a sweep of cells that do nothing, or a look at very many."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ARMS = [f"random,evaluations={number}" for number in range(1, 6)]
SHOTS = (1, 2, 4, 8)


def sweep(root: str, engine: str, workers: str, cells: str) -> None:
    from llmopt.comparison.execute import execute
    from llmopt.comparison.grid import make_grid, parse_arm
    from llmopt.runs.compose import compose
    from llmopt.runs.config import RunConfig
    from llmopt.runs.engine import start
    from llmopt.spend.events import Watch
    from llmopt.sweep.engine import Resources
    from llmopt.sweep.engines import Workers, choose_engine

    grid = make_grid(
        RunConfig(runs=root), [parse_arm("random")], ["shapes-small"], [1],
        range(1, int(cells) + 1),
    )  # fmt: skip
    if engine == "loop":
        for cell in grid:
            start(compose(cell.config))
        return
    each = Resources(cpus=0.5) if engine == "ray" else Resources()
    chosen = choose_engine(engine, Workers(int(workers), each))
    _, status = execute(grid, Path(root), chosen, Watch())
    assert status.whole, status.failures()


def cells(seeds: str) -> list[Any]:
    from llmopt.comparison.grid import make_grid, parse_arm
    from llmopt.data.shapes import TASKS
    from llmopt.runs.config import RunConfig

    arms = [parse_arm(arm) for arm in ARMS]
    return make_grid(RunConfig(), arms, TASKS, SHOTS, range(1, int(seeds) + 1))


def write(root: str, seeds: str) -> None:
    """Finished runs of all cells, over 1,000 test images each, by the engine's own code."""
    import numpy as np
    from paper_runs import paper_run, reconfigure

    from llmopt.comparison.execute import _Resolver

    os.fsync = lambda file: None  # ten thousand folders, which nobody would miss
    resolve = _Resolver({})
    dice, labels = np.random.default_rng(0), np.arange(1000) % 6
    begun = None
    for cell in cells(seeds):
        config, _ = resolve(cell.config)
        if begun is None:
            begun = paper_run(
                Path(root), optimizer="random", classnames=[f"class {n}" for n in range(6)],
                labels=labels, before=np.where(dice.random(1000) < 0.5, labels, 0),
                after=np.where(dice.random(1000) < 0.6, labels, 1),
            )  # fmt: skip
            model, begun = begun, Path(root) / ".model"
            model.rename(begun)
        name = f"{config.dataset}-{config.shots}-{config.seed}-{cell.arm.name.partition('=')[2]}"
        folder = shutil.copytree(begun, Path(root) / name)
        reconfigure(folder, config.to_toml())
    shutil.rmtree(Path(root) / ".model")


def look(root: str, seeds: str) -> None:
    """Plan, status and table of all cells; seconds and memory after each."""
    from llmopt.comparison import execute, run
    from llmopt.comparison.table import compare_batches

    rows: list[dict[str, Any]] = []

    def steps() -> Iterator[str]:
        grid = cells(seeds)
        yield "planning: the cells"
        planned = execute._Grid(grid, Path(root), {})
        yield "planning: their configs, and what there is"
        status = planned.status()
        assert status.whole, status.counts
        yield "status"
        done = [planned.found(place) for place in range(len(grid))]
        found = compare_batches(run._records([(one, one.folder) for one in done if one.folder]))
        assert len(found.rows) == len(grid) / int(seeds)
        yield "table"

    clocks = (time.perf_counter, time.process_time)
    before = [clock() for clock in clocks]
    for what in steps():
        now = [clock() for clock in clocks]
        wall, processor = (n - b for n, b in zip(now, before, strict=True))
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(
            {"what": what, "seconds": wall, "processor_seconds": processor, "megabytes": used}
        )
        before = now
    print(json.dumps(rows))
