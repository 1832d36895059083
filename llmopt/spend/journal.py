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
before anything is appended; a broken line anywhere else is damage and refused.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmopt.errors import RunFolderError

Record = dict[str, Any]


class Journal:
    """The journal of one run.

    Args:
        path: the file; created when absent.

    Attributes:
        resumed: records were there when it was opened.
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
        try:
            if path.exists():
                records, whole = _read(path)
                with path.open("r+b") as file:
                    file.truncate(whole)
            # Unbuffered: what could not be written must not follow later behind something else.
            self._file = path.open("ab", buffering=0)
            self._end = path.stat().st_size
        except OSError as error:
            raise _unwritable(path, error) from error
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

    def recall(self, kind: str, key: str, stream: str = "main") -> Any | None:
        """The data of the oldest paid record of that kind and key not yet recalled, or None."""
        with self._lock:
            found = self._paid.get((stream, kind, key))
            return found.popleft()["data"] if found else None

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
        raw = line.encode("utf-8", "backslashreplace") + b"\n"
        try:
            left = memoryview(raw)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)  # no half line, wherever the next one may go
            raise _unwritable(self.path, error) from error
        self._end += len(raw)


def read_journal(path: Path) -> Iterator[Record]:
    """The records of a journal, in order, a torn last line left out. Changes nothing.

    Raises:
        RunFolderError: the file is missing, unreadable or damaged.
    """
    try:
        records, _ = _read(path)
    except OSError as error:
        raise RunFolderError(f"cannot read the journal {path}: {error.strerror}") from error
    yield from records


def _read(path: Path) -> tuple[list[Record], int]:
    """Whole records, and how many bytes they take."""
    raw = path.read_bytes()
    records: list[Record] = []
    position = 0
    while (end := raw.find(b"\n", position)) >= 0:
        try:
            record = json.loads(raw[position:end])
            if not {"at", "kind", "stream", "data"} <= record.keys():
                raise ValueError("a field is missing")
        except (ValueError, AttributeError) as error:
            if raw.find(b"\n", end + 1) < 0:
                break  # the last line: torn by a crash
            raise RunFolderError(
                f"{path} is damaged at byte {position} ({error}); "
                "restore it from a copy, or start a new run"
            ) from error
        records.append(record)
        position = end + 1
    return records, position


def _identity(record: Record) -> str:
    return json.dumps([record["kind"], record["data"]], sort_keys=True, ensure_ascii=False)


def _unwritable(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write {path}: {error.strerror or error}; nothing written before is lost: "
        "make room or allow writing there, then 'llmopt resume'"
    )
