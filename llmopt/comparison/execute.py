"""Run a grid, or what of it has not been run yet."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt.comparison.grid import Cell, finished, key, known_runs, left
from llmopt.comparison.records import read_record
from llmopt.errors import LlmoptError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch

if TYPE_CHECKING:
    from llmopt.vision.base import BlackBox

Resolve = Callable[[RunConfig], RunConfig]


@dataclass
class Done:
    """What became of a cell.

    Attributes:
        cell: which.
        folder: its run, or None if it failed.
        reused: it was finished before.
        error: why it failed.
        interrupted: it stopped early and can be resumed.
    """

    cell: Cell
    folder: Path | None = None
    reused: bool = False
    error: LlmoptError | None = None
    interrupted: bool = False


def execute(cells: Sequence[Cell], root: Path, jobs: int, watch: Watch) -> list[Done]:
    """Finish every cell: reuse equal runs below ``root``, resume begun ones, start the others.

    A cell that fails does not stop the others; an interruption does, and the same call goes on
    from there.

    Args:
        cells: in an order in which each comes after the one it starts from.
        root: where run folders are and go.
        jobs: runs at the same time, each in a process of its own.
        watch: told how it goes.

    Raises:
        UserError: before anything is run, if a config cannot be.
    """
    from llmopt.runs.compose import compose

    def resolve(config: RunConfig) -> RunConfig:
        return compose(config).config

    configs = {id(cell): cell.config if cell.arm.after else resolve(cell.config) for cell in cells}
    known = known_runs(root)
    done: list[Done] = []
    folders: dict[tuple[str, tuple[str, int, int]], Path] = {}
    for wave in _waves(cells):
        todo: list[tuple[Cell, RunConfig, Path | None]] = []
        for cell in wave:
            config = configs[id(cell)]
            if cell.arm.after:
                before = folders.get((cell.arm.after, cell.place))
                if before is None:
                    missing = LlmoptError(f"'{cell.arm.after}', which it starts from, failed")
                    done.append(Done(cell, error=missing))
                    continue
                changes: dict[str, Any] = {"init_from": str(before)}
                if cell.shared is not None:
                    first = read_record(before)
                    changes[cell.shared.option] = left(
                        config, cell.shared, first.ledger, first.seconds
                    )
                config = resolve(dataclasses.replace(config, **changes))
            folder = known.get(key(config))
            if folder is not None and finished(folder):
                done.append(Done(cell, folder, reused=True))
                continue
            todo.append((cell, config, folder))
        for one in _finish(todo, jobs, watch):
            done.append(one)
            _tell(one, len(done), len(cells), watch)
        folders |= {(d.cell.arm.name, d.cell.place): d.folder for d in done if d.folder}
        if any(d.interrupted for d in done):
            break
    return done


def _waves(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells that can run at the same time, one group after the other."""
    depth = {"": -1}
    for cell in cells:
        depth.setdefault(cell.arm.name, depth[cell.arm.after] + 1)
    for level in sorted(set(depth.values()) - {-1}):
        yield [cell for cell in cells if depth[cell.arm.name] == level]


def _finish(
    todo: list[tuple[Cell, RunConfig, Path | None]], jobs: int, watch: Watch
) -> Iterator[Done]:
    if jobs == 1 or len(todo) < 2:
        yield from _here(todo, watch)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # Forked processes would share the locks of threads that torch has started.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(_elsewhere, config, folder, threads): cell for cell, config, folder in todo
        }
        for future in as_completed(futures):
            folder, interrupted, error = future.result()
            yield Done(futures[future], folder, error=error, interrupted=interrupted)
            if interrupted:
                pool.shutdown(cancel_futures=True)
                return


def _here(todo: list[tuple[Cell, RunConfig, Path | None]], watch: Watch) -> Iterator[Done]:
    """In this process, with one model for all runs that share it."""
    from llmopt.runs.compose import choose_model

    boxes: dict[tuple[Any, ...], BlackBox] = {}
    for cell, config, folder in todo:
        name = (config.model, config.pretrained, config.blackbox, config.device, config.precision)
        try:
            watch.stage(cell.title)
            if name not in boxes:
                boxes[name] = choose_model(config).open(watch)
            result = _run(config, folder, watch, boxes[name])
        except LlmoptError as error:
            yield Done(cell, error=error)
            continue
        interrupted = result["status"] == "interrupted"
        yield Done(cell, None if interrupted else Path(result["run"]), interrupted=interrupted)
        if interrupted:
            return


def _elsewhere(
    config: RunConfig, folder: Path | None, threads: int
) -> tuple[Path | None, bool, LlmoptError | None]:
    """In a process of a pool."""
    import torch

    torch.set_num_threads(threads)
    try:
        result = _run(config, folder, Watch(), None)
    except LlmoptError as error:
        return None, False, _portable(error)
    if result["status"] == "interrupted":
        return None, True, None
    return Path(result["run"]), False, None


def _run(
    config: RunConfig, folder: Path | None, watch: Watch, box: BlackBox | None
) -> dict[str, Any]:
    from llmopt.runs.compose import Given, compose
    from llmopt.runs.engine import resume, start

    setup = compose(config, Given(box=box))
    return start(setup, watch) if folder is None else resume(folder, setup, watch)


def _portable(error: LlmoptError) -> LlmoptError:
    """The error with its exit code, in a form any process can read."""
    plain = LlmoptError(str(error))
    plain.exit_code = error.exit_code
    return plain


def _tell(done: Done, count: int, total: int, watch: Watch) -> None:
    head = f"[{count}/{total}] {done.cell.title}: "
    if done.error is not None:
        watch.warn(f"{head}{done.error}")
    elif done.folder is not None:
        accuracy = run_folder.read_result(done.folder)["best"]["test_accuracy"]
        watch.note(f"{head}{100 * accuracy:.1f} % ({done.folder})")
