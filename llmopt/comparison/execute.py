"""Run a grid, or what of it has not been run yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt.comparison.grid import Cell, left
from llmopt.comparison.records import read_record
from llmopt.data.soundness import NO_TEST
from llmopt.errors import ConfigError, DatasetError, LlmoptError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.spend.currency import CAPS
from llmopt.spend.events import Watch
from llmopt.sweep.attempt import Ended
from llmopt.sweep.engine import Engine
from llmopt.sweep.purse import Purse
from llmopt.sweep.status import Status, look
from llmopt.sweep.work import Amounts, Job, Known, grouped

if TYPE_CHECKING:
    from llmopt.runs.compose import Setup


@dataclass(frozen=True)
class Done:
    """What became of a cell.

    Attributes:
        cell: which.
        folder: its run; None if it failed or was not begun.
        reused: it was finished before, or by somebody else meanwhile.
        error: why it failed.
        interrupted: it is not over: the comparison was interrupted before, or never got there.
    """

    cell: Cell
    folder: Path | None = None
    reused: bool = False
    error: LlmoptError | None = None
    interrupted: bool = False


def execute(
    cells: Sequence[Cell], root: Path, engine: Engine, watch: Watch, totals: Amounts | None = None
) -> tuple[list[Done], Status]:
    """Finish every cell: reuse equal runs below ``root``, resume begun ones, start the others.

    A cell that fails does not stop the others; an interruption does, and the same call goes on
    from there. A cell that another process runs is waited for.

    Args:
        cells: in an order in which each comes after the one it starts from.
        root: where run folders are and go.
        engine: where they are run.
        watch: told how it goes.
        totals: caps over all of them, by name.

    Returns:
        What became of each cell, in their order, whichever ended first; and where they stand.

    Raises:
        UserError: before anything is run, if a config cannot be.
    """
    grid = _Grid(cells, root, totals or {})
    done: dict[int, Done] = {}

    def report(one: Ended) -> None:
        if not one.busy:
            done[grid.place(one.job)] = grid.done(one)
        _tell(one, len(done), len(cells), watch)

    try:
        for wave in _waves(cells):
            todo: list[Job] = []
            for place in wave:
                cell = cells[place]
                if cell.arm.after:
                    before = _folder(done.values(), cell)
                    if before is None:
                        missing = LlmoptError(f"'{cell.arm.after}', which it starts from, failed")
                        done[place] = Done(cell, error=missing)
                        continue
                    grid.plan(place, _continued(cell, before))
                job = grid.jobs[place]
                folder = grid.known.last(job.key)
                if folder is not None and grid.known.finished(folder):
                    done[place] = Done(cell, folder, reused=True)
                else:
                    todo.append(job)
            if todo:
                engine.run(grouped(todo), grid.known, grid.purse, watch, report)
    except KeyboardInterrupt:
        pass
    grid.known.refresh()
    every = [done[n] if n in done else grid.found(n) for n in range(len(cells))]
    return every, grid.status({n: one.error for n, one in done.items() if one.error})


Follow = Callable[[Status], bool]
"""Told where cells stand, again and again, until it says that this is enough."""


def standing(
    cells: Sequence[Cell],
    root: Path,
    totals: Amounts | None = None,
    follow: Follow | None = None,
) -> tuple[list[Done], Status]:
    """Where cells stand; runs nothing.

    Args:
        cells, root, totals: as in :func:`execute`.
        follow: asked before anything is told.

    Raises:
        UserError: a config cannot be run.
    """
    grid = _Grid(cells, root, totals or {})
    while True:
        grid.known.refresh()
        for place in (place for wave in _waves(cells) for place in wave):
            cell = cells[place]
            if cell.arm.after and place not in grid.jobs:
                found = [grid.found(n) for n in grid.jobs]
                if before := _folder([one for one in found if not one.interrupted], cell):
                    grid.plan(place, _continued(cell, before))
        status = grid.status()
        if follow is None or follow(status):
            return [grid.found(n) for n in range(len(cells))], status


class _Grid:
    """Cells as jobs; those that start from another are planned once that is done.

    Attributes:
        jobs: by the place of their cell.
        known: the runs there are.
        purse: what all of them may spend; it grows with the jobs.
    """

    def __init__(self, cells: Sequence[Cell], root: Path, totals: Amounts) -> None:
        self._cells = cells
        self._resolve = _Resolver(totals)
        self.jobs: dict[int, Job] = {}
        self._places: dict[tuple[str, str], int] = {}
        # The most shots first: what is enough for those is enough for fewer.
        for place in sorted(range(len(cells)), key=lambda n: -cells[n].config.shots):
            if not cells[place].arm.after:
                self.plan(place, cells[place].config)
        self.jobs = dict(sorted(self.jobs.items()))
        self.known = Known(root)
        self._root, self._totals = root, totals

    @property
    def purse(self) -> Purse:
        return Purse(self._root, self._totals, {job.key: job.most for job in self.jobs.values()})

    def plan(self, place: int, config: RunConfig) -> None:
        title = self._cells[place].title
        self.jobs[place] = Job(title, *self._resolve(config))
        self._places[title, self.jobs[place].key] = place

    def place(self, job: Job) -> int:
        return self._places[job.title, job.key]

    def done(self, one: Ended) -> Done:
        cell = self._cells[self.place(one.job)]
        return Done(cell, one.folder, one.reused, one.error, one.interrupted)

    def found(self, place: int) -> Done:
        """A cell as things stand; one that is not over counts as interrupted."""
        job = self.jobs.get(place)
        folder = None if job is None else self.known.last(job.key)
        over = folder is not None and self.known.finished(folder)
        return Done(self._cells[place], folder, interrupted=not over)

    def status(self, errors: Mapping[int, LlmoptError] | None = None) -> Status:
        jobs = [self.jobs.get(n) or Job(c.title, c.config) for n, c in enumerate(self._cells)]
        return look(jobs, self.known, self.purse, errors)


class _Resolver:
    """Configs with everything filled in, and what they may spend, if they can be run and measured.

    A seed or fewer shots change neither whether that is so nor what is filled in, so that of a
    large grid few are looked at.
    """

    def __init__(self, totals: Amounts) -> None:
        self._totals = totals
        self._seen: dict[str, tuple[RunConfig, int, Amounts]] = {}

    def __call__(self, config: RunConfig) -> tuple[RunConfig, Amounts]:
        from llmopt.runs.compose import compose

        alike = repr([item for item in vars(config).items() if item[0] not in ("seed", "shots")])
        seen = self._seen.get(alike)
        if seen is None or seen[1] < config.shots:
            setup = compose(config)
            if not len(setup.dataset.split("test")):
                raise DatasetError(f"dataset '{config.dataset}' cannot be compared on: {NO_TEST}")
            seen = setup.config, config.shots, self._most(setup)
            self._seen[alike] = seen
        found, _, most = seen
        return dataclasses.replace(found, seed=config.seed, shots=config.shots), most

    def _most(self, setup: Setup) -> Amounts:
        """What the search may spend of each cap over the grid."""
        if not self._totals:
            return {}
        from llmopt.runs.plan import make_plan

        bounds = {row.name: row.most for row in make_plan(setup).rows}
        most = {}
        for name in self._totals:
            cap, bound = getattr(setup.caps, name), bounds.get(name, 0)
            known = [one for one in (cap, bound) if one is not None]
            if name == "seconds":
                known = [] if cap is None else [cap]
            if not known:
                raise ConfigError(
                    f"--max-total on {CAPS[name].label} needs {CAPS[name].flag}: the most that "
                    f"'{setup.name}' may take is not known"
                )
            most[name] = float(min(known))
        return most


def _folder(done: Iterable[Done], cell: Cell) -> Path | None:
    """The run that a cell starts from."""
    place = cell.arm.after, cell.place
    return next((d.folder for d in done if (d.cell.arm.name, d.cell.place) == place), None)


def _continued(cell: Cell, before: Path) -> RunConfig:
    """The config of a cell that starts from an earlier run, under what that left of a cap."""
    changes: dict[str, Any] = {"init_from": str(before)}
    if cell.shared is not None:
        first = read_record(before)
        changes[cell.shared.option] = left(cell.config, cell.shared, first.ledger, first.seconds)
    return dataclasses.replace(cell.config, **changes)


def _waves(cells: Sequence[Cell]) -> Iterator[list[int]]:
    """Places of cells that can run at the same time, one group after the other."""
    depth = {"": -1}
    for cell in cells:
        depth.setdefault(cell.arm.name, depth[cell.arm.after] + 1)
    for level in sorted(set(depth.values()) - {-1}):
        yield [place for place, cell in enumerate(cells) if depth[cell.arm.name] == level]


def _tell(one: Ended, count: int, total: int, watch: Watch) -> None:
    head = f"[{count}/{total}] {one.job.title}: "
    if one.busy:
        what = "what others may leave of a cap" if one.short else "another process"
        watch.stage(f"waiting for {what}: {one.job.title}")
    elif one.error is not None:
        watch.warn(f"{head}{one.error}")
    elif one.folder is not None:
        accuracy = run_folder.read_result(one.folder)["best"]["test_accuracy"]
        watch.note(f"{head}{100 * accuracy:.1f} % ({one.folder})")
