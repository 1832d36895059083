"""All runs below a folder, one line each, without reading again what has not changed.

What was read is kept in the user's cache folder. It is only ever a cache: a line holds for the very
files it was read from (inode, size, time of change), and a damaged or foreign index is as none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt._version import __version__
from llmopt.errors import LlmoptError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.runs.load import RunSummary, look
from llmopt.runs.same import key
from llmopt.spend.files import default_cache_dir, write_text

Line = dict[str, Any]
"""``stamp`` of the files a summary was read from, its fields, and ``asked`` once somebody did."""


@dataclass(frozen=True)
class Entry:
    """A run folder as the index knows it.

    Attributes:
        summary: its line.
        key: of its config as it was asked for (see :func:`llmopt.runs.same.key`); empty where that
            is damaged or of another version.
        seconds: that a finished run took, all sittings together.
    """

    summary: RunSummary
    key: str = ""
    seconds: float = 0.0


def list_runs(root: Path) -> list[RunSummary]:
    """A summary of every run folder below ``root``, oldest first."""
    return [summary for summary, _ in _indexed(root)]


def list_entries(root: Path) -> list[Entry]:
    """Every run folder below ``root``, oldest first, with what it was asked for."""
    return [Entry(summary, **line["asked"]) for summary, line in _indexed(root, asked=True)]


def read_entry(folder: Path) -> Entry:
    """A run folder, read now."""
    summary, config, seconds = look(folder)
    return Entry(summary, **_asked(summary, config, seconds))


def _indexed(root: Path, *, asked: bool = False) -> list[tuple[RunSummary, Line]]:
    name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    index = default_cache_dir() / "runs" / f"{name[:32]}.json"
    before, now = _read(index), {}
    found, news = [], False
    for folder in run_folder.find(root):
        stamp = [_stamp(folder / file) for file in (run_folder.CONFIG, run_folder.RESULT)]
        line = before.get(folder.name)
        if line is not None and line["stamp"] == stamp and ("asked" in line or not asked):
            summary = RunSummary(folder, **line["summary"])
        else:
            summary, config, seconds = look(folder)
            line, news = {"stamp": stamp, "summary": _fields(summary)}, True
            if asked:
                line["asked"] = _asked(summary, config, seconds)
        found.append((summary, line))
        if summary.status != "damaged":  # a plug-in that is missing now may be there tomorrow
            now[folder.name] = line
    if news or len(now) != len(before):
        _write(index, now)
    return found


def _asked(summary: RunSummary, config: RunConfig | None, seconds: float) -> dict[str, Any]:
    if config is None or summary.status == "damaged":
        return {}
    try:
        asked = run_folder.as_asked(summary.folder, config)
        return {"key": key(asked), "seconds": seconds}
    except LlmoptError:
        return {}  # of another version


def _stamp(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _fields(summary: RunSummary) -> dict[str, Any]:
    fields = {f.name: getattr(summary, f.name) for f in dataclasses.fields(summary)}
    del fields["folder"]
    return fields


def _read(index: Path) -> dict[str, Line]:
    """The lines of an index; none if it is not, to the byte, what this version wrote."""
    try:
        seal, lines = index.read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return {}
    return json.loads(lines) if seal.decode("ascii", "replace") == _seal(lines) else {}


def _write(index: Path, lines: dict[str, Line]) -> None:
    text = json.dumps(lines)
    with contextlib.suppress(OSError):  # it will be read again instead
        index.parent.mkdir(parents=True, exist_ok=True)
        write_text(index, f"{_seal(text.encode())}\n{text}")


def _seal(lines: bytes) -> str:
    return hashlib.sha256(__version__.encode() + b"\n" + lines).hexdigest()
