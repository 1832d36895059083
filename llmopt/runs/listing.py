"""All runs below a folder, one line each, without reading again what has not changed.

What was read is kept in the user's cache folder. It is only ever a cache: a line holds for the very
files it was read from (inode, size, time of change), and a damaged or foreign index is as none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from llmopt._version import __version__
from llmopt.runs import folder as run_folder
from llmopt.runs.load import RunSummary, summarize
from llmopt.spend.files import default_cache_dir, write_text

Line = dict[str, Any]
"""``stamp`` of the files a summary was read from, and its fields."""


def list_runs(root: Path) -> list[RunSummary]:
    """A summary of every run folder below ``root``, oldest first."""
    name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    index = default_cache_dir() / "runs" / f"{name[:32]}.json"
    before, now = _read(index), {}
    found = []
    for folder in run_folder.find(root):
        stamp = [_stamp(folder / file) for file in (run_folder.CONFIG, run_folder.RESULT)]
        line = before.get(folder.name)
        if line is not None and line["stamp"] == stamp:
            summary = RunSummary(folder, **line["summary"])
        else:
            summary = summarize(folder)
            line = {"stamp": stamp, "summary": _fields(summary)}
        found.append(summary)
        if summary.status != "damaged":  # a plug-in that is missing now may be there tomorrow
            now[folder.name] = line
    if now != before:
        _write(index, now)
    return found


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
