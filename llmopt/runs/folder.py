"""Run folders: created, locked, found again."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llmopt.errors import ConfigError, RunFolderError, RunFolderInUse
from llmopt.runs import stored
from llmopt.runs.config import RunConfig, options, read_config
from llmopt.runs.whole import changes
from llmopt.spend.files import keeping, write_text
from llmopt.spend.journal import Journal, first_record, read_journal

CONFIG, JOURNAL, RESULT, PROMPTS = "config.toml", "journal.jsonl", "result.json", "prompts.json"
ANSWERS = "answers"
CHECKPOINT, PREDICTOR, PREDICTIONS = (
    "checkpoint.safetensors",
    "predictor.safetensors",
    "test_predictions.safetensors",
)
CALLED = "arm.txt"
"""What a comparison called the run, where somebody gave it a name."""
CREATED = "created"
"""Kind of a journal's first record, which holds the config the run began with."""
_LONGEST_NAME = 200


def create(config: RunConfig, asked: Mapping[str, Any] | None = None) -> Path:
    """A new folder below ``config.runs`` with ``config.toml`` in it.

    Args:
        config: that the run goes by.
        asked: options as they were before the run found values of its own, if it did.

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
        # Without a journal there has never been a run, and without a config no folder is one.
        with Journal(folder / JOURNAL) as journal:
            before = {"asked": dict(asked)} if asked else {}
            journal.event(CREATED, "run", config=config.plain(), **before)
        with keeping(folder):
            write_text(folder / CONFIG, config.to_toml())
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


def call(folder: Path, name: str) -> None:
    """Keep what a run is called in a comparison; the last name counts.

    Raises:
        RunFolderError: it cannot be written.
    """
    if called(folder) != name:
        with keeping(folder):
            write_text(folder / CALLED, f"{name}\n")


def called(folder: Path) -> str:
    """What a comparison called a run; empty where nobody gave it a name."""
    try:
        found = (folder / CALLED).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RunFolderError(f"cannot read {folder / CALLED}: {error.strerror}") from error
    return found.strip()[:_LONGEST_NAME]


def check_deletable(folder: Path) -> None:
    """Refuse to delete what is no run folder, or is in use.

    Raises:
        RunFolderError: it is none, or a link to one.
        RunFolderInUse: another process lives in it.
    """
    if folder.is_symlink() or not (folder / CONFIG).is_file() or not (folder / JOURNAL).is_file():
        raise RunFolderError(
            f"{folder} is not a run folder with {CONFIG} and {JOURNAL}, and is not deleted"
        )
    with locked(folder):
        pass


def delete(folder: Path) -> None:
    """Delete a run folder and all that is in it.

    Raises:
        RunFolderError: as :func:`check_deletable`, or it cannot be deleted.
    """
    check_deletable(folder)
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunFolderError(f"cannot delete {folder}: {error.strerror}") from error


def read_run_config(folder: Path) -> RunConfig:
    """The config of a run folder.

    Raises:
        RunFolderError: it is not a run folder, or what decides its search was changed since.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no {CONFIG}; see 'llmopt runs'")
    values = read_config(path)
    if not values:
        raise RunFolderError(
            f"{path} is empty, which a run's config never is; restore it from a copy (its first "
            f"content stands in the first line of {JOURNAL}), or start a new run"
        )
    config = RunConfig.make(values, str(path))
    began = _began_with(folder / JOURNAL)
    if began is None or began == values:  # as a rule, and much faster than to look closer
        return config
    if found := changes(config, RunConfig.make(began, str(folder / JOURNAL))):
        raise RunFolderError(
            f"{path} was changed since its run began ({'; '.join(found)}); put back what "
            f"stood there, or start another run with 'llmopt run --config {path}'",
            docs="resume",
        )
    return config


def as_asked(folder: Path, config: RunConfig) -> RunConfig:
    """The config of a run folder without what its run found out as it began.

    Raises:
        ConfigError, RunFolderError: the journal is damaged.
    """
    if not config.blackbox:
        return config
    first = first_record(folder / JOURNAL)
    asked = None if first is None else first[0]["data"].get("asked")
    if not isinstance(asked, Mapping):
        return config
    kept = {name: getattr(config, name) for name in options()}
    return RunConfig.make({**kept, **asked}, str(folder / JOURNAL))


def changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The config of a run that is to go on, with other values of what may change.

    Raises:
        ConfigError: a name that is no option, one that decides the search, or a wrong value.
    """
    told = options()
    if deciding := [told[name].flag for name in changes if name in told and not told[name].free]:
        raise ConfigError(
            f"{', '.join(deciding)} decides where a search goes and cannot change while it is "
            "under way; start another run"
        )
    plain = {name: getattr(config, name) for name in told}
    return RunConfig.make({**plain, **changes}, "the options")


def keep_changes(folder: Path, config: RunConfig) -> None:
    """Write what has changed into the folder, and a line of it into the journal's stream ``run``.

    Raises:
        RunFolderError: the folder is in use, or cannot be written.
    """
    before = read_run_config(folder).plain()
    now = config.plain()
    new = {name: now.get(name) for name in {**before, **now} if before.get(name) != now.get(name)}
    with locked(folder):
        path = folder / JOURNAL
        with Journal(path) as journal:
            journal.skip({"run": sum(one["stream"] == "run" for one in read_journal(path))})
            journal.event("changed", "run", **new)
        with keeping(folder):
            write_text(folder / CONFIG, config.to_toml())


def _began_with(journal: Path) -> dict[str, Any] | None:
    """The options at the beginning of a journal; None where an earlier version wrote none."""
    if (first := first_record(journal)) is None:
        return None
    record, has_crc = first
    config = record["data"].get("config")
    if record["kind"] == CREATED and isinstance(config, dict):
        return config
    if has_crc:
        raise RunFolderError(
            f"{journal} is damaged: it does not begin with the start of its run; "
            "restore it from a copy, or start another run"
        )
    return None


def check_journal(folder: Path) -> None:
    """Refuse to go on with a run that has lost its journal: it would pay for everything again.

    Raises:
        RunFolderError: there is none, or it is empty.
    """
    if first_record(folder / JOURNAL) is None:
        raise RunFolderError(
            f"{folder / JOURNAL} is missing or empty: what this run has paid for stood there, and "
            "would be paid for again; restore it from a copy, or start another run with "
            f"'llmopt run --config {folder / CONFIG}'"
        )


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        RunFolderError: as :func:`read_run`.
    """
    return read_run(folder)[1]


def read_run(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The config and the result of a finished run.

    Raises:
        RunFolderError: as :func:`read_run_config` and :func:`stored_result`.
    """
    return read_run_config(folder), stored_result(folder)


def stored_result(folder: Path) -> dict[str, Any]:
    """The result alone, of a run whose config was read already.

    Raises:
        RunFolderError: the folder has none yet, or it is damaged.
    """
    path = folder / RESULT
    if not path.is_file():
        raise RunFolderError(f"run {folder} is not finished; go on with 'llmopt resume {folder}'")
    try:
        return stored.read(path, stored.Result)
    except stored.Newer as error:
        raise RunFolderError(f"{path} {error}; update llmopt to read it") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); delete it and run 'llmopt resume {folder}', "
            "which measures again and pays for no reply twice"
        ) from error


def is_complete(folder: Path) -> bool:
    """Whether a run has its final result.

    Raises:
        RunFolderError: it has one that is damaged.
    """
    return (folder / RESULT).is_file() and read_result(folder)["status"] == "complete"


def lost(folder: Path) -> list[str]:
    """Files that belong to a complete run and are not there."""
    return [name for name in (PROMPTS, PREDICTOR) if not (folder / name).is_file()]


def written_again(folder: Path) -> str:
    """How to have a file of a finished run written again."""
    return (
        f"to have it written again, delete {RESULT} there and run 'llmopt resume {folder}', "
        "which pays for no reply twice"
    )


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


def each(places: Iterable[Path]) -> list[Path]:
    """Run folders as they are, and of folders that hold some, all of these."""
    found: list[Path] = []
    for place in places:
        within = [] if (place / CONFIG).exists() else find(place)
        found += within or [place]
    return found
