"""Run folders: created, locked, found again."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llmopt.errors import RunFolderError, RunFolderInUse
from llmopt.runs.config import RunConfig, read_config
from llmopt.spend.files import write_text

CONFIG, JOURNAL, RESULT, PROMPTS = "config.toml", "journal.jsonl", "result.json", "prompts.json"
CHECKPOINT, PREDICTOR, PREDICTIONS = (
    "checkpoint.safetensors",
    "predictor.safetensors",
    "test_predictions.safetensors",
)


def create(config: RunConfig) -> Path:
    """A new folder below ``config.runs`` with ``config.toml`` in it.

    Raises:
        RunFolderError: it cannot be written.
    """
    dataset = re.sub(r"[^A-Za-z0-9]+", "-", config.dataset).strip("-")[:40]
    name = f"{dataset}-{config.shots}shot-seed{config.seed}-{config.optimizer}"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    root = Path(config.runs)
    for attempt in range(1000):
        folder = root / f"{name}-{stamp}{f'-{attempt + 1}' if attempt else ''}"
        try:
            folder.mkdir(parents=True)
            write_text(folder / CONFIG, config.to_toml())
        except FileExistsError as error:
            if not root.is_dir():
                raise RunFolderError(
                    f"{root} is a file, not a folder; choose another --runs"
                ) from error
            continue
        except OSError as error:
            raise RunFolderError(
                f"cannot write run folders below {root}: {error.strerror}; choose another --runs"
            ) from error
        return folder
    raise RunFolderError(f"too many runs named {name}-{stamp} below {root}")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; the lock ends with the process, however that ends.

    Raises:
        RunFolderInUse: another process lives in it.
        RunFolderError: it cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderInUse(
            f"run folder {folder} is in use by another process; wait for it, or stop it first"
        ) from error
    except OSError as error:
        raise RunFolderError(f"cannot write run folder {folder}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def read_run_config(folder: Path) -> RunConfig:
    """The config of a run folder.

    Raises:
        RunFolderError: it is not a run folder.
    """
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no {CONFIG}; see 'llmopt runs'")
    return RunConfig.make(read_config(folder / CONFIG), str(folder / CONFIG))


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        RunFolderError: the folder has none yet, or it is damaged.
    """
    read_run_config(folder)
    path = folder / RESULT
    if not path.is_file():
        raise RunFolderError(f"run {folder} is not finished; go on with 'llmopt resume {folder}'")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        result["schema"], result["best"], result["ledger"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); delete it and run 'llmopt resume {folder}'"
        ) from error
    return dict(result)


def is_complete(folder: Path) -> bool:
    """Whether a run has its final result.

    Raises:
        RunFolderError: it has one that is damaged.
    """
    return (folder / RESULT).is_file() and read_result(folder)["status"] == "complete"


def warn_if_interrupted(
    folder: Path, result: Mapping[str, Any], warn: Callable[[str], None]
) -> None:
    """Say it where the result is only the best so far."""
    if result["status"] == "interrupted":
        warn(
            f"run {folder} was interrupted, and this is its best so far; "
            f"go on with 'llmopt resume {folder}'"
        )


def find(root: Path) -> list[Path]:
    """All run folders below ``root``, oldest first."""
    configs = sorted(root.glob(f"*/{CONFIG}"))
    return [path.parent for path in sorted(configs, key=lambda path: path.stat().st_mtime)]
