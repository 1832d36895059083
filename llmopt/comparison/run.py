"""A whole comparison: from arms as texts to the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmopt.comparison import grid
from llmopt.comparison.execute import Done, Follow, execute, standing
from llmopt.comparison.records import Record, read_record
from llmopt.comparison.table import Comparison, check_metric, compare_batches
from llmopt.errors import ConfigError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.sweep.engine import Engine
from llmopt.sweep.work import Amounts


def compare_runs(
    base: RunConfig,
    arms: Sequence[str],
    datasets: Sequence[str],
    shots: Sequence[int],
    seeds: Sequence[int],
    equal: str | None,
    published: bool,
    engine: Engine,
    watch: Watch,
    metric: str = "top1",
    totals: Amounts | None = None,
    *,
    run: bool = True,
    follow: Follow | None = None,
) -> Comparison:
    """Run what has not been run, and set everything beside each other.

    Args:
        base: options that all runs share.
        arms: each ``[NAME=]OPTIMIZER[,KEY=VALUE…]``.
        datasets, shots, seeds: sides of the grid.
        equal: hold all arms to one cap of this currency.
        published: set published figures beside.
        engine: where they are run.
        watch: told how it goes.
        metric: that the runs are compared in.
        totals: caps over the whole grid, by name.
        run: False only looks at what is there.
        follow: then, told where it stands until it says that this is enough.

    Raises:
        LlmoptError: no run could be finished; what ended the first of them.
    """
    check_metric(metric)  # before anything is paid for
    parsed = [grid.parse_arm(text) for text in arms]
    cells = grid.make_grid(base, parsed, datasets, shots, seeds)
    notes = []
    if equal:
        cells, note = grid.hold_equal(cells, equal)
        notes.append(note)
    root = Path(base.runs)
    if run:
        done, status = execute(cells, root, engine, watch, totals)
    else:
        done, status = standing(cells, root, totals, follow)
    finished = [(one, one.folder) for one in done if one.folder and not one.interrupted]
    if run:
        for one, folder in finished:
            if one.cell.arm.named:
                run_folder.call(folder, one.cell.arm.name)
    if not finished and run and not any(one.interrupted for one in done):
        raise next((one.error for one in done if one.error), ConfigError("nothing was run"))
    notes += _said(done) if run else status.told()
    found = compare_batches(_records(finished), [*notes, *status.failures()], metric)
    found = dataclasses.replace(found, done=tuple(done), status=status)
    return _with_published(found) if published else found


def _records(finished: Sequence[tuple[Done, Path]]) -> Iterator[list[Record]]:
    """Runs, those of a data set and number of shots at a time."""
    tasks: dict[tuple[str, int], list[tuple[Done, Path]]] = {}
    for one, folder in finished:
        tasks.setdefault(one.cell.place[:2], []).append((one, folder))
    for runs in tasks.values():
        yield [read_record(folder, one.cell.arm.name) for one, folder in runs]


def _said(done: Sequence[Done]) -> list[str]:
    notes = []
    if reused := sum(one.reused for one in done):
        notes.append(f"{reused} of {len(done)} runs were finished before and reused.")
    return [*notes, *_standing(done)]


def _standing(done: Sequence[Done]) -> list[str]:
    """Where a comparison stands that was interrupted."""
    if not (stopped := [one for one in done if one.interrupted]):
        return []
    begun = sum(one.folder is not None for one in stopped)
    return [
        f"Interrupted: {len(done) - len(stopped)} of {len(done)} runs done, {begun} begun, "
        f"{len(stopped) - begun} left; the same command goes on from here."
    ]


def _with_published(found: Comparison) -> Comparison:
    from llmopt.comparison.published import beside

    figures = beside(found.rows)
    notes = found.notes
    if not figures:
        notes = (*notes, "No published figures are known for these data sets and shots.")
    return dataclasses.replace(found, published=tuple(figures), notes=notes)
