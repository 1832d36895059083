"""Run a grid, or what of it has not been run yet."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmopt.comparison.attempt import Attempts, Done, Task
from llmopt.comparison.grid import Cell, Known, finished, key, left
from llmopt.comparison.records import read_record
from llmopt.data.soundness import NO_TEST
from llmopt.errors import DatasetError, LlmoptError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch


def execute(cells: Sequence[Cell], root: Path, jobs: int, watch: Watch) -> list[Done]:
    """Finish every cell: reuse equal runs below ``root``, resume begun ones, start the others.

    A cell that fails does not stop the others; an interruption does, and the same call goes on
    from there. A cell that another process runs is waited for.

    Args:
        cells: in an order in which each comes after the one it starts from.
        root: where run folders are and go.
        jobs: runs at the same time, each in a process of its own.
        watch: told how it goes.

    Returns:
        What became of each cell, in their order, whichever ended first.

    Raises:
        UserError: before anything is run, if a config cannot be.
    """
    configs = {id(cell): cell.config if cell.arm.after else _resolve(cell.config) for cell in cells}
    known = Known(root)
    done: list[Done] = []

    def report(one: Done) -> None:
        if not one.busy:
            done.append(one)
        _tell(one, len(done), len(cells), watch)

    try:
        for wave in _waves(cells):
            todo: list[Task] = []
            for cell in wave:
                if cell.arm.after:
                    before = _folder(done, cell)
                    if before is None:
                        missing = LlmoptError(f"'{cell.arm.after}', which it starts from, failed")
                        done.append(Done(cell, error=missing))
                        continue
                    configs[id(cell)] = _resolve(_continued(cell, before))
                config = configs[id(cell)]
                folder = known.find(key(config))
                if folder is not None and finished(folder):
                    done.append(Done(cell, folder, reused=True))
                else:
                    todo.append((cell, config))
            _finish(todo, known, jobs, watch, report)
    except KeyboardInterrupt:
        ended = {id(one.cell) for one in done}
        left_over = [cell for cell in cells if id(cell) not in ended]
        done += [_found(cell, configs[id(cell)], known) for cell in left_over]
    place = {id(cell): number for number, cell in enumerate(cells)}
    return sorted(done, key=lambda one: place[id(one.cell)])


def standing(cells: Sequence[Cell], root: Path) -> list[Done]:
    """Where cells stand, none of which starts from another; runs nothing.

    Raises:
        UserError: a config cannot be run.
    """
    known = Known(root)
    return [_found(cell, _resolve(cell.config), known) for cell in cells]


def _found(cell: Cell, config: RunConfig, known: Known) -> Done:
    """A cell as things stand; one that is not over counts as interrupted."""
    folder = known.find(key(config))
    return Done(cell, folder, interrupted=folder is None or not finished(folder))


def _resolve(config: RunConfig) -> RunConfig:
    """The config with everything filled in, if it can be run and measured."""
    from llmopt.runs.compose import compose

    setup = compose(config)
    if not len(setup.dataset.split("test")):
        raise DatasetError(f"dataset '{config.dataset}' cannot be compared on: {NO_TEST}")
    return setup.config


def _folder(done: Sequence[Done], cell: Cell) -> Path | None:
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


def _waves(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells that can run at the same time, one group after the other."""
    depth = {"": -1}
    for cell in cells:
        depth.setdefault(cell.arm.name, depth[cell.arm.after] + 1)
    for level in sorted(set(depth.values()) - {-1}):
        yield [cell for cell in cells if depth[cell.arm.name] == level]


def _finish(
    todo: Sequence[Task], known: Known, jobs: int, watch: Watch, report: Callable[[Done], None]
) -> None:
    """Run what is left of a wave, here or in several processes."""
    if jobs > 1 and len(todo) > 1:
        from llmopt.comparison.workers import spread

        spread(todo, known, jobs, watch, report)
        return
    attempts, waiting = Attempts(known, watch), deque(todo)
    while waiting:
        task = waiting.popleft()
        one = attempts.run(task)
        if one.interrupted:
            raise KeyboardInterrupt
        report(one)
        if one.busy:
            waiting.append(task)


def _tell(done: Done, count: int, total: int, watch: Watch) -> None:
    head = f"[{count}/{total}] {done.cell.title}: "
    if done.busy:
        watch.stage(f"waiting for another process: {done.cell.title}")
    elif done.error is not None:
        watch.warn(f"{head}{done.error}")
    elif done.folder is not None:
        accuracy = run_folder.read_result(done.folder)["best"]["test_accuracy"]
        watch.note(f"{head}{100 * accuracy:.1f} % ({done.folder})")
