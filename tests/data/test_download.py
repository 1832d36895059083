"""Downloads from a server that does everything wrong that servers do."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import socket
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import filelock
import httpx
import numpy as np
import pytest
from miniatures import build

from llmopt.data.benchmarks.catalog import CATALOG, Entry, Fetch
from llmopt.data.benchmarks.fetch import Fetcher, Progress
from llmopt.data.benchmarks.layouts import git_blob_sha1
from llmopt.data.download import (
    STAGING,
    DownloadReport,
    download_dataset,
    download_entry,
)
from llmopt.data.registry import open_entry
from llmopt.errors import DatasetError

CONTENT = np.random.default_rng(0).bytes(1_000_000)


class Server:
    """Serves ``files``, each in the manner named before the slash: ``/drops/x.bin``.

    Attributes:
        files: contents by name.
        requests: path and ``Range`` header of every request.
        lengths: bytes of content sent for each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.sent: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None: ...

            def do_GET(self) -> None:
                _, manner, name = self.path.split("/", 2)
                outer.requests.append((self.path, self.headers.get("Range", "")))
                MANNERS[manner](self, outer.files.get(name, b""))

            def give(
                self,
                content: bytes,
                *,
                ranges: bool = True,
                length: int | None = None,
                upto: int | None = None,
                tag: str = '"v1"',
                kind: str = "application/octet-stream",
            ) -> None:
                """Send ``content``, or the part asked for; at most ``upto`` bytes of it."""
                match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                start = int(match[1]) if match and ranges else 0
                if self.headers.get("If-Range", tag) != tag:
                    start = 0
                if start and start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = content[start:]
                self.send_response(206 if start else 200)
                if start:
                    total = len(content)
                    self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.send_header("Content-Type", kind)
                if tag:
                    self.send_header("ETag", tag)
                self.end_headers()
                body = body[:upto]
                outer.sent.append(len(body))
                self.wfile.write(body)
                if upto is not None or length is not None:
                    self.hang_up()

            def status(self, code: int, *headers: tuple[str, str]) -> None:
                self.send_response(code)
                for name, value in (("Content-Length", "0"), *headers):
                    self.send_header(name, value)
                self.end_headers()

            def hang_up(self) -> None:
                # At once and rudely: a reset, not an orderly end.
                linger = struct.pack("ii", 1, 0)
                self.wfile.flush()
                self.close_connection = True
                if len(outer.requests) % 2:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.__dict__["requests"] = self.requests
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, manner: str, name: str = "x.bin") -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{manner}/{name}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def moody(handler: Any, content: bytes) -> None:
    """Fails in several ways, then serves."""
    turn = len(handler.server.requests)
    if turn <= 3:
        handler.status((503, 429, 500)[turn - 1], ("Retry-After", "0"))
    else:
        handler.give(content)


def changes(handler: Any, content: bytes) -> None:
    """Serves the first half of one version, then another version."""
    if handler.headers.get("Range"):
        handler.give(content, tag='"v2"')
    else:
        handler.give(bytes(len(content)), upto=len(content) // 2)


def off_by_one(handler: Any, content: bytes) -> None:
    """Breaks off, then answers the request for the rest with another range, then serves."""
    turn = len(handler.server.requests)
    if turn == 1:
        handler.give(content, upto=1000)
    elif turn == 2:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 1-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - 1))
        handler.end_headers()
        handler.wfile.write(content[1:])
    else:
        handler.give(content)


MANNERS: dict[str, Callable[[Any, bytes], None]] = {
    "well": lambda h, c: h.give(c),
    "drops": lambda h, c: h.give(c, upto=100_000),
    "drops-without-ranges": lambda h, c: h.give(c, upto=100_000, ranges=False),
    "dies-at-90": lambda h, c: h.give(c, upto=900_000 if not h.headers.get("Range") else 0),
    "nine-tenths": lambda h, c: h.give(c[:900_000]),
    "says-more": lambda h, c: h.give(c, length=len(c) + 10),
    "says-less": lambda h, c: h.give(c, length=len(c) - 10),
    "html": lambda h, c: h.give(b"<!DOCTYPE html><html>Quota exceeded</html>", kind="text/html"),
    "html-as-file": lambda h, c: h.give(b"\n<!doctype HTML><html></html>"),
    "wrong-bytes": lambda h, c: h.give(bytes(len(c))),
    "empty": lambda h, c: h.give(b""),
    "missing": lambda h, c: h.status(404),
    "forbidden": lambda h, c: h.status(403),
    "always-busy": lambda h, c: h.status(503),
    "moody": moody,
    "changes": changes,
    "off-by-one": off_by_one,
    "moved": lambda h, c: h.status(302, ("Location", h.path.replace("moved", "well"))),
    "in-circles": lambda h, c: h.status(302, ("Location", h.path)),
}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.files["x.bin"] = CONTENT
    yield server
    server.close()


def item(*urls: str, **changed: Any) -> Fetch:
    known: dict[str, Any] = {
        "size": len(CONTENT),
        "digest": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
    }
    return Fetch("x.bin", urls=urls, **(known | changed))


def fetch(item: Fetch, folder: Path, report: Callable[[Progress], None] | None = None) -> Path:
    fetcher = Fetcher(folder, report, pause=0.0)
    try:
        return fetcher.fetch(item)
    finally:
        fetcher.close()


# ------------------------------------------------------------------------------------ one file


@pytest.mark.parametrize(
    "manner",
    ["well", "moved", "drops", "drops-without-ranges-then-well", "moody", "changes", "off-by-one"],
)
def test_arrives(manner: str, server: Server, tmp_path: Path) -> None:
    urls = [server.url(m) for m in manner.split("-then-")]
    told: list[Progress] = []
    path = fetch(item(*urls), tmp_path, told.append)
    assert path == tmp_path / "x.bin"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    assert {p.stage for p in told} == {"download", "verify"}
    assert told[-1] == Progress("x.bin", "verify", len(CONTENT), len(CONTENT))


def test_a_broken_transfer_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    fetch(item(server.url("drops")), tmp_path)
    ranges = [wanted for _, wanted in server.requests]
    assert ranges == ["", *(f"bytes={n}00000-" for n in range(1, 10))]
    assert sum(server.sent) == len(CONTENT)


def test_a_later_run_goes_on_too(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1 (broke off|ended after)"):
        fetch(item(server.url("dies-at-90")), tmp_path)
    assert not (tmp_path / "x.bin").exists()
    have = (tmp_path / "x.bin.part").stat().st_size
    assert 0 < have <= 900_000  # a reset may take some of what was sent with it
    del server.sent[:]
    fetch(item(server.url("well")), tmp_path)
    assert server.sent == [len(CONTENT) - have]


def test_without_a_checksum_only_the_same_version_is_resumed(
    server: Server, tmp_path: Path
) -> None:
    unknown = {"size": None, "digest": None}
    with pytest.raises(DatasetError):
        fetch(item(server.url("dies-at-90"), **unknown), tmp_path)
    del server.sent[:]
    assert fetch(item(server.url("well"), **unknown), tmp_path).read_bytes() == CONTENT
    assert server.sent == [len(CONTENT)]  # another address: from the start


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("missing", "answers 404 Not Found"),
        ("forbidden", "answers 403 Forbidden"),
        ("always-busy", "answers 503 Service Unavailable"),
        ("html", "sends a web page instead of the file"),
        ("html-as-file", r"announces \d+ bytes, and the file has 1,000,000"),
        ("wrong-bytes", "gave a file that has the wrong checksum"),
        ("empty", "announces 0 bytes"),
        ("says-more", "announces 1,000,010 bytes"),
        ("says-less", "announces 999,990 bytes"),
        ("nine-tenths", "announces 900,000 bytes, and the file has 1,000,000"),
        ("in-circles", "cannot be asked"),
    ],
)
def test_refuses_and_takes_the_next_source(
    manner: str, reason: str, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=reason) as error:
        fetch(item(server.url(manner), by_hand="ask a friend"), tmp_path)
    message = str(error.value)
    assert "x.bin (1,000,000 bytes, sha256 " in message
    assert f"by hand (ask a friend), put it at {tmp_path / 'x.bin'}" in message
    assert not (tmp_path / "x.bin").exists()
    path = fetch(item(server.url(manner), server.url("well")), tmp_path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("html-as-file", "gave a file that is a web page"),
        ("empty", "gave a file that is empty"),
        ("says-more", "broke off"),
        ("dies-at-90", "broke off|ended"),
    ],
)
def test_refuses_without_size_and_checksum(
    manner: str, reason: str, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=reason):
        fetch(item(server.url(manner), size=None, digest=None), tmp_path)
    assert not (tmp_path / "x.bin").exists()


def test_a_source_that_sends_without_end(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(100_000)

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=endless()))
    fetcher = Fetcher(tmp_path, pause=0.0, client=httpx.Client(transport=transport))
    with pytest.raises(DatasetError, match="sends more than the file's 1,000,000 bytes"):
        fetcher.fetch(item("http://endless/x.bin"))
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x.bin"
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1 broke off"):
        fetch(item(url), tmp_path)
    with pytest.raises(DatasetError, match="cannot be fetched"):
        fetch(item("nonsense://x"), tmp_path)
    with pytest.raises(DatasetError, match=r"cannot be fetched; get x\.bin"):
        fetch(item(), tmp_path)


def test_a_beginning_that_does_not_fit_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.bin.part").write_bytes(bytes(500_000))
    assert fetch(item(server.url("well")), tmp_path).read_bytes() == CONTENT
    (tmp_path / "x.bin").unlink()
    (tmp_path / "x.bin.part").write_bytes(bytes(2_000_000))
    assert fetch(item(server.url("well")), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "digest",
    [
        f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
        f"md5:{hashlib.md5(CONTENT).hexdigest()}",
        f"git:{git_blob_sha1(CONTENT)}",
    ],
)
def test_files_put_there_by_hand_are_verified(digest: str, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(CONTENT)
    assert fetch(item(digest=digest), tmp_path).read_bytes() == CONTENT
    (tmp_path / "x.bin").write_bytes(bytes(len(CONTENT)))
    with pytest.raises(DatasetError, match=r"has the wrong checksum .* delete it and try again"):
        fetch(item(digest=digest), tmp_path)
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(DatasetError, match="has 1 bytes, not 1,000,000"):
        fetch(item(digest=digest), tmp_path)


def test_stopping_leaves_a_beginning(server: Server, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        fetcher.stop.set()

    fetcher = Fetcher(tmp_path, stop, pause=60.0)
    with pytest.raises(DatasetError, match="was stopped"):
        fetcher.fetch(item(server.url("well"), server.url("well")))
    fetcher.close()
    assert 0 < (tmp_path / "x.bin.part").stat().st_size < len(CONTENT)
    assert len(server.requests) == 1


# ---------------------------------------------------------------------------- whole data sets


def served(key: str, server: Server, tmp_path: Path, manner: str = "well") -> Entry:
    """The entry of a miniature whose files the server has."""
    source = tmp_path / "source"
    build(key, source)
    entry = CATALOG[key]
    home = source / entry.folders[0]
    fetches = []
    for known in entry.fetches:
        content = packed(known, home) if known.place else (home / known.file).read_bytes()
        server.files[known.file] = content
        fetches.append(
            replace(
                known,
                urls=(server.url(manner, known.file),),
                size=len(content),
                digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
            )
        )
    return replace(entry, fetches=tuple(fetches))


def packed(fetch: Fetch, home: Path) -> bytes:
    buffer = io.BytesIO()
    if fetch.file.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            if fetch.inner:
                inner = replace(fetch, file="inner.tar.gz", inner=())
                archive.writestr(fetch.inner[0], packed(inner, home))
            else:
                for source, target in fetch.place:
                    for path in sorted((home / target).rglob("*")):
                        if path.is_file():
                            name = f"{source}/{path.relative_to(home / target).as_posix()}"
                            archive.write(path, name)
            archive.writestr("__MACOSX/._x", b"not wanted")
    else:
        mode = "w" if fetch.file.endswith(".tar") else "w:gz"
        with tarfile.open(fileobj=buffer, mode=mode) as archive:
            for source, target in fetch.place:
                if (home / target).exists():
                    archive.add(home / target, source)
    return buffer.getvalue()


def download(entry: Entry, root: Path, **options: Any) -> DownloadReport:
    return download_entry(entry, root, pause=0.0, **options)


# The others are downloaded in tests of their own; DTD's miniature lacks some parts of its archive.
PACKED = sorted(set(CATALOG) - {"svhn", "dtd", "imagenet"})


@pytest.mark.parametrize("key", PACKED)
def test_downloaded_data_sets_are_the_same(key: str, server: Server, tmp_path: Path) -> None:
    entry = served(key, server, tmp_path)
    root = tmp_path / "data"
    stages: set[str] = set()
    report = download(entry, root, report=lambda progress: stages.add(progress.stage))
    assert report.check.ok
    assert report.home == root / entry.folders[0]
    assert set(report.fetched) == {fetch.file for fetch in entry.fetches}
    archives = any(fetch.place for fetch in entry.fetches)
    assert stages == {"download", "verify"} | ({"unpack"} if archives else set())
    original = open_entry(CATALOG[key], tmp_path / "source")
    copy = open_entry(entry, root)
    assert copy.split_sha256 == original.split_sha256
    assert copy.split("test").digest == original.split("test").digest
    assert sorted(p.name for p in (root / STAGING).iterdir()) == [f"{key}.lock"]
    again = download(entry, root)
    assert (again.fetched, again.check.ok) == ((), True)


def test_svhn_is_exported(server: Server, tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    labels = np.arange(40) % 10
    split: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": []}
    for number, label in enumerate(labels.tolist(), start=1):
        row = (f"{label}/{number:05d}.jpg", label, str(label))
        split["train" if number <= 20 else "val"].append(row)
    server.files["split_mlai_SVHN.json"] = json.dumps(split).encode()
    for part in ("train", "test"):
        pixels = np.zeros((32, 32, 3, 40), np.uint8) + (labels * 20).astype(np.uint8)
        buffer = io.BytesIO()
        scipy_io.savemat(buffer, {"X": pixels, "y": np.where(labels == 0, 10, labels)[:, None]})
        server.files[f"{part}_32x32.mat"] = buffer.getvalue()
    fetches = tuple(
        replace(f, urls=(server.url("well", f.file),), size=None, digest=None)
        for f in CATALOG["svhn"].fetches
    )
    entry = replace(CATALOG["svhn"], fetches=fetches)
    report = download(entry, tmp_path / "data")
    assert report.check.ok
    assert report.check.sizes == {"train": 20, "val": 20, "test": 40}
    for image, label in open_entry(entry, tmp_path / "data").split("test"):
        assert image.load().getpixel((16, 16))[0] == pytest.approx(label * 20, abs=4)


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_imagenet_is_sorted_into_folders(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    build("imagenet", tmp_path / "source")
    images = tmp_path / "source" / "imagenet" / "images"
    wordnet_ids = sorted(path.name for path in (images / "val").iterdir())
    # Numbers of the development kit are in another order than those of the labels.
    numbers = {wordnet_id: 6 - label for label, wordnet_id in enumerate(wordnet_ids)}
    synsets = np.array(
        [(number, wordnet_id, 0) for wordnet_id, number in numbers.items()],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)],
    )
    matrix = io.BytesIO()
    scipy_io.savemat(matrix, {"synsets": synsets})
    val = [
        (wordnet_id, path.read_bytes())
        for wordnet_id in reversed(wordnet_ids)
        for path in sorted((images / "val" / wordnet_id).iterdir())
    ]
    files = {
        "ILSVRC2012_img_train.tar": tarred(
            {
                f"{wordnet_id}.tar": tarred(
                    {p.name: p.read_bytes() for p in (images / "train" / wordnet_id).iterdir()}
                )
                for wordnet_id in wordnet_ids
            }
        ),
        "ILSVRC2012_img_val.tar": tarred(
            {f"ILSVRC2012_val_{i:08d}.JPEG": content for i, (_, content) in enumerate(val, 1)}
        ),
        "ILSVRC2012_devkit_t12.tar.gz": tarred(
            {
                "ILSVRC2012_devkit_t12/readme.txt": b"",
                "ILSVRC2012_devkit_t12/data/meta.mat": matrix.getvalue(),
                "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(
                    f"{numbers[wordnet_id]}\n" for wordnet_id, _ in val
                ).encode(),
            },
            "w:gz",
        ),
    }

    def known(fetch: Fetch) -> Fetch:
        helpers = tuple(known(helper) for helper in fetch.helpers)
        return replace(fetch, size=len(files[fetch.file]), digest=None, helpers=helpers)

    entry = replace(CATALOG["imagenet"], fetches=tuple(map(known, CATALOG["imagenet"].fetches)))
    root = tmp_path / "data"
    with pytest.raises(DatasetError, match="by hand"):
        download(entry, root)
    for name, content in files.items():
        (root / STAGING / "imagenet" / "files" / name).write_bytes(content)
    report = download(entry, root)
    assert report.check.ok
    assert report.home == root / "imagenet" / "images"
    for part in ("train", "test"):
        copy = open_entry(entry, root).split(part)
        original = open_entry(entry, tmp_path / "source").split(part)
        assert copy.labels.tolist() == original.labels.tolist()
        assert {image.key() for image in copy.images} == {i.key() for i in original.images}
    assert not list(root.rglob("*devkit*"))
    assert download(entry, root).fetched == ()


@pytest.mark.parametrize("manner", ["drops", "changes"])
def test_a_bad_line_does_not_matter(manner: str, server: Server, tmp_path: Path) -> None:
    assert download(served("eurosat", server, tmp_path, manner), tmp_path / "data").check.ok


@pytest.mark.parametrize("manner", ["html", "wrong-bytes", "nine-tenths-of-2", "missing"])
def test_nothing_is_put_in_place_unless_all_is_there(
    manner: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MANNERS, "nine-tenths-of-2", lambda h, c: h.give(c[: len(c) * 9 // 10]))
    entry = served("eurosat", server, tmp_path)
    split, images = entry.fetches
    bad = replace(images, urls=(server.url(manner, images.file),))
    root = tmp_path / "data"
    with pytest.raises(DatasetError, match=r"EuroSAT\.zip cannot be fetched"):
        download(replace(entry, fetches=(split, bad)), root)
    assert not (root / "eurosat").exists()
    del server.requests[:]
    assert download(entry, root).check.ok
    assert [path for path, _ in server.requests] == [f"/well/{images.file}"]  # the other was kept


def test_every_file_that_fails_is_named(server: Server, tmp_path: Path) -> None:
    entry = served("stanford_cars", server, tmp_path, "missing")
    with pytest.raises(DatasetError) as error:
        download(entry, tmp_path / "data")
    for fetch in entry.fetches:
        assert f"{fetch.file} cannot be fetched" in str(error.value)
    assert "copies that rename files" in str(error.value)


def test_an_archive_without_what_belongs_in_it(server: Server, tmp_path: Path) -> None:
    entry = served("eurosat", server, tmp_path)
    split, images = entry.fetches
    other = replace(images, place=(("2751", "2750"),))
    with pytest.raises(DatasetError, match=r"EuroSAT\.zip has no 2751: it is another archive"):
        download(replace(entry, fetches=(split, other)), tmp_path / "data")
    assert not (tmp_path / "data" / "eurosat").exists()


def test_an_archive_that_lacks_images_of_the_split(server: Server, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    entry = served("eurosat", server, tmp_path)
    shutil.rmtree(tmp_path / "source" / "eurosat" / "2750" / "Forest")
    split, images = entry.fetches
    content = packed(images, tmp_path / "source" / "eurosat")
    server.files[images.file] = content
    poor = replace(images, size=len(content), digest=None)
    with pytest.raises(DatasetError, match="is not complete: 12 problems"):
        download(replace(entry, fetches=(split, poor)), tmp_path / "data")
    assert not (tmp_path / "data" / "eurosat").exists()


def test_a_dangerous_archive(server: Server, tmp_path: Path) -> None:
    entry = served("eurosat", server, tmp_path)
    split, images = entry.fetches
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("2750/../../../../evil.jpg", b"x")
    server.files[images.file] = buffer.getvalue()
    evil = replace(images, size=None, digest=None)
    with pytest.raises(DatasetError, match="outside its folder"):
        download(replace(entry, fetches=(split, evil)), tmp_path / "data")
    assert not list(tmp_path.rglob("evil.jpg"))
    assert not (tmp_path / "data" / "eurosat").exists()


def test_only_what_is_missing_is_fetched(server: Server, tmp_path: Path) -> None:
    entry = served("caltech101", server, tmp_path)
    root = tmp_path / "data"
    images = root / "caltech101" / "101_ObjectCategories"  # where torchvision keeps them
    source = tmp_path / "source" / "caltech-101" / "101_ObjectCategories"
    shutil.copytree(source, images)
    report = download(entry, root)
    assert report.check.ok
    assert report.home == root / "caltech101"
    assert report.fetched == ("split_zhou_Caltech101.json",)
    assert not (root / "caltech-101").exists()


def test_missing_images_are_fetched_and_others_left_alone(server: Server, tmp_path: Path) -> None:
    entry = served("caltech101", server, tmp_path)
    root = tmp_path / "data"
    shutil.copytree(tmp_path / "source", root)
    images = root / "caltech-101" / "101_ObjectCategories"
    shutil.rmtree(images / "accordion")
    (images / "Faces" / "image_0001.jpg").unlink()
    (images / "Faces" / "image_0002.jpg").write_bytes(
        (images / "Faces" / "image_0003.jpg").read_bytes()
    )
    report = download(entry, root)
    assert report.check.ok
    assert report.fetched == ("caltech-101.zip",)
    assert (images / "Faces" / "image_0001.jpg").exists()
    mine = images / "Faces" / "image_0002.jpg"
    assert mine.read_bytes() == (images / "Faces" / "image_0003.jpg").read_bytes()


def test_damaged_images_must_be_deleted_first(server: Server, tmp_path: Path) -> None:
    entry = served("caltech101", server, tmp_path)
    root = tmp_path / "data"
    shutil.copytree(tmp_path / "source", root)
    victim = root / "caltech-101" / "101_ObjectCategories" / "Faces" / "image_0001.jpg"
    victim.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"1 things in it are wrong .*image_0001.* delete them"):
        download(entry, root)
    assert server.requests == []
    victim.unlink()
    assert download(entry, root).check.ok


def test_parts_of_an_archive_that_are_there_are_kept(server: Server, tmp_path: Path) -> None:
    entry = served("fgvc_aircraft", server, tmp_path)
    root = tmp_path / "data"
    shutil.copytree(tmp_path / "source", root)
    home = root / "fgvc_aircraft"
    (home / "variants.txt").unlink()
    mark = home / "images" / "mine.txt"
    mark.write_text("kept")
    assert download(entry, root).check.ok
    assert mark.read_text() == "kept"


def test_files_put_into_the_staging_folder_by_hand(server: Server, tmp_path: Path) -> None:
    entry = served("eurosat", server, tmp_path, "missing")
    root = tmp_path / "data"
    with pytest.raises(DatasetError) as error:
        download(entry, root)
    for fetch in entry.fetches:
        place = root / STAGING / "eurosat" / "files" / fetch.file
        assert f"put it at {place}" in str(error.value)
        place.write_bytes(server.files[fetch.file])
    assert download(entry, root).check.ok


def test_two_downloads_at_once(server: Server, tmp_path: Path) -> None:
    entry = served("eurosat", server, tmp_path)
    root = tmp_path / "data"
    (root / STAGING).mkdir(parents=True)
    with (
        filelock.FileLock(root / STAGING / "eurosat.lock"),
        pytest.raises(DatasetError, match="another download of 'eurosat'"),
    ):
        download(entry, root)


def test_a_full_disk_is_seen_beforehand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = served("eurosat", server, tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DatasetError, match=r"0\.0 GB are needed at .* 0\.0 are free"):
        download(entry, tmp_path / "data")
    assert server.requests == []


def test_what_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="after registering") as error:
        download_dataset("imagenet", tmp_path)
    files = tmp_path / STAGING / "imagenet" / "files"
    for name in ("img_train.tar", "img_val.tar", "devkit_t12.tar.gz"):
        assert f"put it at {files / f'ILSVRC2012_{name}'}" in str(error.value)
    with pytest.raises(DatasetError, match="'shapes-small' needs no download"):
        download_dataset("shapes-small", tmp_path)
    with pytest.raises(
        DatasetError, match=r"'caltech' is no benchmark .* did you mean 'caltech101'"
    ):
        download_dataset("caltech", tmp_path)
    with pytest.raises(DatasetError, match="is no benchmark that can be downloaded"):
        download_dataset("folder:x", tmp_path)


def test_the_catalogue_is_in_order() -> None:
    for entry in CATALOG.values():
        for fetch in entry.fetches:
            assert fetch.urls or fetch.by_hand
            for url in fetch.urls:
                assert httpx.URL(url).scheme in ("http", "https")
            if fetch.digest:
                kind, _, digest = fetch.digest.partition(":")
                assert len(digest) == {"sha256": 64, "md5": 32, "git": 40}[kind]
                assert int(digest, 16)
            else:
                assert fetch.urls[0].startswith("https://"), "neither checksum nor encryption"
