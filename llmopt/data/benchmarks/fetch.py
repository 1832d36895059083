"""One file over HTTP, from servers that may do anything.

A transfer that breaks is resumed where it broke, also by a later run. What a server says of a file
is not believed: size and checksum decide, and where none is published, what the file turns out to
be. Nothing is handed out before that.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from llmopt._version import __version__
from llmopt.data.benchmarks.catalog import Fetch
from llmopt.errors import DatasetError

_BLOCK: Final = 1 << 18
_TRIES: Final = 5
_MAX_TRIES: Final = 200
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Progress:
    """How far one file is.

    Attributes:
        file: its name.
        stage: what is being done with it.
        done: bytes done.
        total: bytes in all, or None where that is not known.
    """

    file: str
    stage: Literal["download", "verify", "unpack"]
    done: int
    total: int | None


Report = Callable[[Progress], None]


class Fetcher:
    """Fetches files into a folder.

    Args:
        folder: where files go; unfinished ones lie there as ``<name>.part``.
        report: called with the progress of each file, from several threads in turn.
        pause: seconds before the second try; doubled for each further one, up to a minute.
        client: how to speak HTTP.
    """

    def __init__(
        self,
        folder: Path,
        report: Report | None = None,
        *,
        pause: float = 1.0,
        client: httpx.Client | None = None,
    ) -> None:
        self.folder = folder
        self.stop = threading.Event()
        self._report = report or (lambda progress: None)
        self._pause = pause
        self._lock = threading.Lock()
        self._client = client or httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(60.0, connect=20.0),
            # Compressed on the way, sizes and offsets would be those of something else.
            headers={"User-Agent": f"llmopt/{__version__}", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        """End all connections; transfers under way stop, and can be resumed later."""
        self.stop.set()
        self._client.close()

    def fetch(self, item: Fetch) -> Path:
        """The file, complete and verified.

        Raises:
            DatasetError: no source gave it; says what each of them did, and how to get it by hand.
        """
        path = self.folder / item.file
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.exists():  # from an earlier run, or put there by hand
            wrong = self._whats_wrong(item, path)
            if wrong is None:
                return path
            raise DatasetError(f"{path} {wrong}; delete it and try again")
        reasons = []
        for url in item.urls:
            reason = self._from_source(item, url, path)
            if reason is None:
                return path
            reasons.append(f"{_shown(url)} {reason}")
            if self.stop.is_set():
                break
        raise DatasetError(
            "; ".join([f"{item.file} cannot be fetched", *reasons, _steps(item, path)])
        )

    def _from_source(self, item: Fetch, url: str, path: Path) -> str | None:
        """Fetch from one address, as often as it takes; returns why that failed, or None."""
        part = _Part(path, url, portable=item.digest is not None)
        reason, tries, fresh = "gave nothing", 0, part.size == 0
        for _ in range(_MAX_TRIES):
            before = part.size
            try:
                self._transfer(item, url, part)
                wrong = self._whats_wrong(item, part.path)
                if wrong is None:
                    part.finish()
                    return None
                part.discard()
                if fresh:
                    return f"gave a file that {wrong}"
                fresh = (
                    True  # the beginning may have come from elsewhere: once more, from the start
                )
            except _Refused as error:
                return str(error)
            except _Broken as error:
                reason = str(error)
                # Whoever gets further with each try will arrive.
                tries = 0 if part.size > before else tries + 1
                if tries >= _TRIES:
                    break
                pause = min(self._pause * 2**tries, 60.0)
                if self.stop.wait(max(pause, error.retry_after)):
                    break
        return "was stopped" if self.stop.is_set() else reason

    def _transfer(self, item: Fetch, url: str, part: _Part) -> None:
        """One request, appended to ``part``.

        Raises:
            _Broken: it ended too early, or another try may help.
            _Refused: this source will not do.
        """
        if item.size is not None and part.size == item.size:
            return
        try:
            with self._client.stream("GET", url, headers=part.request_headers()) as response:
                start = _start(item, part, response)
                announced = _length(response)
                total = item.size if announced is None else start + announced
                if item.size is not None and total != item.size:
                    raise _Refused(f"announces {total:,} bytes, and the file has {item.size:,}")
                part.begin(start, response.headers)
                with part.path.open("ab") as sink:
                    # In blocks as they come: larger ones would be lost where the line breaks.
                    for block in response.iter_raw():
                        if self.stop.is_set():
                            raise _Broken("was stopped")
                        sink.write(block)
                        start += len(block)
                        if item.size is not None and start > item.size:
                            part.discard()
                            raise _Refused(f"sends more than the file's {item.size:,} bytes")
                        self._tell(Progress(item.file, "download", start, total))
        except httpx.TransportError as error:
            raise _Broken(f"broke off ({error or type(error).__name__})") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _Refused(f"cannot be asked ({error})") from error
        except OSError as error:
            raise DatasetError(f"{part.path} cannot be written: {error.strerror}") from error
        if item.size is not None and start < item.size:
            raise _Broken(f"ended after {start:,} of {item.size:,} bytes")

    def _whats_wrong(self, item: Fetch, path: Path) -> str | None:
        """Why the file at ``path`` is not the one asked for, or None."""
        size = path.stat().st_size
        if item.size is not None and size != item.size:
            return f"has {size:,} bytes, not {item.size:,}"
        with path.open("rb") as file:
            if file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html")):
                return "is a web page"
        if item.digest is None:
            return None if size else "is empty"
        name, _, wanted = item.digest.partition(":")
        sha: Any = hashlib.new("sha1" if name == "git" else name, usedforsecurity=False)
        if name == "git":  # git's hash of a file: its length comes first
            sha.update(b"blob %d\0" % size)
        done = 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                sha.update(block)
                done += len(block)
                self._tell(Progress(item.file, "verify", done, size))
                if self.stop.is_set():
                    raise DatasetError("stopped")
        found = sha.hexdigest()
        return None if found == wanted else f"has the wrong checksum ({name} {found}, not {wanted})"

    def _tell(self, progress: Progress) -> None:
        with self._lock:
            self._report(progress)


class _Refused(Exception):
    """This source has something else, or nothing."""


class _Broken(Exception):
    """Another try may help."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _Part:
    """An unfinished file, and where it came from.

    Args:
        target: the finished file's place.
        url: the source it is now to be fetched from.
        portable: whether a checksum will tell if pieces from several sources fit together;
            otherwise only the same version from the same source is resumed.
    """

    def __init__(self, target: Path, url: str, *, portable: bool) -> None:
        self.path = target.with_name(target.name + ".part")
        self._target = target
        self._origin_path = target.with_name(target.name + ".from")
        self._url = url
        self._origin = self._read_origin()
        if not (portable or (self._origin.get("url") == url and self._origin.get("version"))):
            self.discard()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def request_headers(self) -> dict[str, str]:
        if not self.size:
            return {}
        headers = {"Range": f"bytes={self.size}-"}
        if self._origin.get("url") == self._url and self._origin.get("version"):
            headers["If-Range"] = self._origin["version"]
        return headers

    def begin(self, start: int, headers: httpx.Headers) -> None:
        """Go on at ``start``, which is 0 or the present size."""
        if start == 0:
            self.path.write_bytes(b"")
            tag = headers.get("ETag", "")
            # A weak tag promises equal meaning, not equal bytes.
            version = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
            self._origin = {"url": self._url, "version": version}
            self._origin_path.write_text(json.dumps(self._origin), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._origin_path.unlink(missing_ok=True)
        self._origin = {}

    def finish(self) -> None:
        os.replace(self.path, self._target)  # noqa: PTH105
        self._origin_path.unlink(missing_ok=True)

    def _read_origin(self) -> dict[str, str]:
        with suppress(OSError, ValueError):
            origin = json.loads(self._origin_path.read_text(encoding="utf-8"))
            if isinstance(origin, dict):
                return origin
        return {}


def _start(item: Fetch, part: _Part, response: httpx.Response) -> int:
    """Where the response's bytes belong, once it is clear that they are the file's."""
    status = response.status_code
    if status == 416:  # there is nothing after what we have: then what we have is wrong
        part.discard()
        raise _Broken("does not have the rest of the file")
    if status in _RETRIED:
        raise _Broken(f"answers {status} {response.reason_phrase}", _retry_after(response))
    if status not in (200, 206):
        raise _Refused(f"answers {status} {response.reason_phrase}")
    kind = response.headers.get("Content-Type", "").lower()
    if kind.startswith("text/html"):
        raise _Refused("sends a web page instead of the file")
    if status == 200:
        return 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != part.size:
        part.discard()
        raise _Broken("resumes somewhere else than asked")
    if item.size is not None and match[2] not in ("*", str(item.size)):
        raise _Refused(f"has {int(match[2]):,} bytes, and the file has {item.size:,}")
    return part.size


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 60.0) if text.isdecimal() else 0.0


def _shown(url: str) -> str:
    return httpx.URL(url).host


def _steps(item: Fetch, path: Path) -> str:
    """How to get a file by hand, and where to put it."""
    known = [f"{item.size:,} bytes"] if item.size is not None else []
    known += [item.digest.replace(":", " ", 1)] if item.digest else []
    what = f"{item.file} ({', '.join(known)})" if known else item.file
    hint = f" ({item.by_hand})" if item.by_hand else ""
    source = f" from {item.urls[0]}" if item.urls else ""
    return f"get {what}{source} by hand{hint}, put it at {path} and run the command again"
