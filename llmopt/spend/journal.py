"""The journal: an append-only record of a run, enough to resume it exactly.

One JSON object a line, flushed to disk before it counts. Two kinds of record share the file:

* **paid** records hold what was asked of a paid service and what it answered. A resumed run finds
  them with :meth:`Journal.recall` instead of asking again.
* **events** tell what the search did. A resumed run repeats its steps from the start, fed by the
  paid records; :meth:`Journal.event` then recognises what is already written and writes only what
  is new. So the journal of an interrupted run ends up as the journal of an undisturbed one.

Records belong to a *stream*, one for each conversation that may run beside others; order is kept
within a stream.

A machine that dies while writing leaves a torn last line. It is tolerated when reading and cut off
before anything is appended; any other broken line is damage and refused. Each line ends with the
CRC-32 of what stands before it, so that a line which was changed is broken too.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Final

from llmopt.errors import RunFolderError
from llmopt.spend.files import keeping

Record = dict[str, Any]

_CRC: Final = re.compile(rb', "crc": "([0-9a-f]{8})"}$')
_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "at": (int, float), "kind": (str,), "stream": (str,), "data": (dict,), "key": (str,),
}  # fmt: skip
_OPTIONAL: Final = {"key"}
_LONGEST: Final = 1e10  # seconds of a run, three centuries
_FIRST: Final = 2**20  # bytes of the first line
_DEEPEST: Final = 64  # tables and lists in one another


class Journal:
    """The journal of one run.

    Args:
        path: the file; created when absent.

    Attributes:
        resumed: records were there when it was opened.
        checked: all of them had a checksum; False where an earlier version wrote some.
        diverged: a repeated step differed from what is written (another version or model);
            the new step was appended after it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._paid: dict[tuple[str, str, str], deque[Record]] = defaultdict(deque)
        self._written: dict[str, deque[str]] = defaultdict(deque)
        self._position: dict[str, int] = defaultdict(int)
        self.diverged = False
        records: list[Record] = []
        self.checked = True
        with keeping(path):
            if path.exists():
                records, whole, self.checked = _read(path)
                with path.open("r+b") as file:
                    file.truncate(whole)
            # Unbuffered: what could not be written must not follow later behind something else.
            self._file = path.open("ab", buffering=0)
            self._end = path.stat().st_size
        for record in records:
            if "key" in record:
                self._paid[record["stream"], record["kind"], record["key"]].append(record)
            else:
                self._written[record["stream"]].append(_identity(record))
        self.resumed = bool(records)
        self._before = max((float(r["at"]) for r in records), default=0.0)
        self._opened = time.monotonic()

    def clock(self) -> float:
        """Seconds of work on this run, all sittings together."""
        return self._before + time.monotonic() - self._opened

    def event(self, kind: str, stream: str = "main", **data: Any) -> bool:
        """Record a step of the search; true if it is new, false if an earlier sitting wrote it."""
        record = {"kind": kind, "stream": stream, "data": data}
        with self._lock:
            self._position[stream] += 1
            waiting = self._written[stream]
            if waiting:
                if waiting[0] == _identity(record):
                    waiting.popleft()
                    return False
                waiting.clear()
                self.diverged = True
            self._append(record)
        return True

    def pay(self, kind: str, key: str, stream: str = "main", **data: Any) -> None:
        """Record a paid request or its answer, before it is used."""
        with self._lock:
            self._append({"kind": kind, "stream": stream, "key": key, "data": data})

    def recall(self, kind: str, key: str, stream: str = "main") -> dict[str, Any] | None:
        """The data of the oldest paid record of that kind and key not yet recalled, or None."""
        with self._lock:
            found = self._paid.get((stream, kind, key))
            data: dict[str, Any] | None = found.popleft()["data"] if found else None
        return data

    def unrecalled(self, kind: str) -> list[Record]:
        """Paid records of a kind that are still to be recalled, in the order of their streams."""
        with self._lock:
            found = [one for (_, which, _), one in self._paid.items() if which == kind]
        return [record for records in found for record in records]

    def positions(self) -> dict[str, int]:
        """How many events each stream has seen in this sitting's account of the run."""
        with self._lock:
            return dict(self._position)

    def skip(self, positions: dict[str, int]) -> None:
        """Go on after the events a checkpoint had seen; they are not repeated."""
        with self._lock:
            for stream, count in positions.items():
                waiting = self._written[stream]
                for _ in range(min(count - self._position[stream], len(waiting))):
                    waiting.popleft()
                self._position[stream] = count

    def close(self) -> None:
        """Close the file; a closed journal takes no more records."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _append(self, record: Record) -> None:
        line = json.dumps({"at": round(self.clock(), 3), **record}, ensure_ascii=False)
        raw = line.encode("utf-8", "backslashreplace")
        raw = raw[:-1] + b', "crc": "%08x"}\n' % zlib.crc32(raw)
        with keeping(self.path):
            try:
                left = memoryview(raw)
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError:
                with suppress(OSError):
                    self._file.truncate(self._end)  # no half line, wherever the next one may go
                raise
        self._end += len(raw)


def read_journal(path: Path) -> Iterator[Record]:
    """The records of a journal, in order, a torn last line left out. Changes nothing.

    Raises:
        RunFolderError: the file is missing, unreadable or damaged.
    """
    try:
        records, _, _ = _read(path)
    except OSError as error:
        raise RunFolderError(f"cannot read the journal {path}: {error.strerror}") from error
    yield from records


def first_record(path: Path) -> tuple[Record, bool] | None:
    """The first record of a journal, and whether it has a checksum; None where there is none.

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            line = file.readline(_FIRST)
    except OSError as error:
        raise RunFolderError(f"cannot read the journal {path}: {error.strerror}") from error
    try:
        return _record(line[:-1]) if line.endswith(b"\n") else None
    except (RecursionError, ValueError) as error:
        raise _damaged(path, 0, error) from error


def _read(path: Path) -> tuple[list[Record], int, bool]:
    """Whole records, how many bytes they take, and whether all had a checksum."""
    if path.exists() and not path.is_file():
        raise RunFolderError(f"the journal {path} is not a file")
    raw = path.read_bytes()
    records: list[Record] = []
    position, with_crc = 0, 0
    while (end := raw.find(b"\n", position)) >= 0:
        line = raw[position:end]
        try:
            record, has_crc = _record(line)
            if with_crc and not has_crc:
                raise ValueError("its checksum is missing")
        except (RecursionError, ValueError) as error:
            if b"\0\0" in line and raw.find(b"\n", end + 1) < 0:
                break  # the last line: a hole where a machine died while writing, no flipped bit
            raise _damaged(path, position, error) from error
        records.append(record)
        with_crc += has_crc
        position = end + 1
    return records, position, with_crc == len(records)


def _damaged(path: Path, position: int, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"{path} is damaged at byte {position} ({error}); restore it from a copy, or cut it off "
        f"there with 'truncate -s {position} {quote(str(path))}' and go on with 'llmopt resume': "
        "what was paid for before that byte is kept, what came after is asked again"
    )


def _record(line: bytes) -> tuple[Record, bool]:
    """A line as a record, and whether it has a checksum.

    Raises:
        ValueError, RecursionError: it is none, or was changed.
    """
    if (found := _CRC.search(line)) is not None:
        line = line[: found.start()] + b"}"
        if zlib.crc32(line) != int(found[1], 16):
            raise ValueError("its checksum is wrong")
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("it is no table")
    if missing := _FIELDS.keys() - _OPTIONAL - record.keys():
        raise ValueError(f"'{min(missing)}' is missing")
    for name, value in record.items():
        if not isinstance(value, _FIELDS.get(name, ())) or isinstance(value, bool):
            raise ValueError(f"'{name}' cannot be {str(value)[:40]!r}")
    if not 0 <= record["at"] < _LONGEST:
        raise ValueError(f"'at' cannot be {record['at']}")
    _check_depth(record["data"], _DEEPEST)
    return record, found is not None


def _check_depth(value: object, left: int) -> None:
    if not left:
        raise ValueError("it is nested too deeply")
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)


def _identity(record: Record) -> str:
    return json.dumps([record["kind"], record["data"]], sort_keys=True, ensure_ascii=False)
