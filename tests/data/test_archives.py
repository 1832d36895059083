"""Archives from strangers."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llmopt.data.archives import unpack
from llmopt.errors import DatasetError

MIB = 1 << 20


def tar(path: Path, members: dict[str, bytes], mode: str = "w", **fields: object) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": lambda path, members: make_zip(path, members),
    "tar": lambda path, members: tar(path, members),
    "tar.gz": lambda path, members: tar(path, members, "w:gz"),
    "tar.bz2": lambda path, members: tar(path, members, "w:bz2"),
    "tar.xz": lambda path, members: tar(path, members, "w:xz"),
}

GOOD = {"set/a/1.txt": b"one", "set/b.txt": b"", "./set/ä ö/x.txt": b"x" * 3 * MIB, "other": b"o"}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", MAKERS)
def test_good_archives(kind: str, tmp_path: Path) -> None:
    archive = MAKERS[kind](tmp_path / "x", GOOD)
    told: list[int] = []
    assert unpack(archive, tmp_path / "all", progress=told.append) == 4
    assert contents(tmp_path / "all") == {k.removeprefix("./"): v for k, v in GOOD.items()}
    assert told[-1] == sum(map(len, GOOD.values()))
    assert unpack(archive, tmp_path / "some", ["set/a", "other"]) == 2
    assert contents(tmp_path / "some") == {"set/a/1.txt": b"one", "other": b"o"}


def test_tars_in_a_tar(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner", {"1.jpg": b"one", "2.jpg": b"two" * MIB}).read_bytes()
    archive = tar(tmp_path / "x", {"cat.tar": inner, "a/dog.tar": inner, "note.txt": b"n"}, "w:gz")
    assert unpack(archive, tmp_path / "in", nested=True) == 5
    assert contents(tmp_path / "in").keys() == {
        "cat/1.jpg", "cat/2.jpg", "a/dog/1.jpg", "a/dog/2.jpg", "note.txt",
    }  # fmt: skip
    assert contents(tmp_path / "in")["a/dog/2.jpg"] == b"two" * MIB
    evil = tar(tmp_path / "inner", {"../../x": b"evil"}).read_bytes()
    archive = tar(tmp_path / "x", {"cat.tar": evil})
    with pytest.raises(DatasetError, match="outside its folder"):
        unpack(archive, tmp_path / "in", nested=True)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/x", "C:/x", "C:\\x", "a\\..\\..\\x", "\\x", "..", "a/.."],
)
def test_paths_outside_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    archive = MAKERS[kind](tmp_path / "x", {name: b"evil"})
    with pytest.raises(DatasetError, match="holds a path outside its folder"):
        unpack(archive, tmp_path / "in" / "here")
    assert contents(tmp_path / "in") == {}


def test_a_zip_is_judged_before_the_first_write(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", {"good": b"1", "../bad": b"2"})
    with pytest.raises(DatasetError, match="outside"):
        unpack(archive, tmp_path / "in")
    assert contents(tmp_path / "in") == {}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_links_and_devices_in_tars_are_refused(kind: bytes, tmp_path: Path) -> None:
    archive = tar(tmp_path / "x", {"a": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(DatasetError, match="holds a link or a device: 'a'"):
        unpack(archive, tmp_path / "in")
    assert not (tmp_path / "in" / "a").is_symlink()
    assert not (tmp_path / "in" / "a").exists()


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DatasetError, match="holds a link or a device: 'a'"):
        unpack(tmp_path / "x", tmp_path / "in")


def test_encrypted_zips_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", {"a": b"1"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="is encrypted"):
        unpack(archive, tmp_path / "in")


# -------------------------------------------------------------------------------------- bombs


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_ten_gigabytes_of_zeros_in_a_tar(
    opener: Callable[..., io.BufferedIOBase], tmp_path: Path
) -> None:
    with opener(tmp_path / "x", "wb") as file:
        file.write(header("zeros", 10 << 30))
        file.write(bytes(4 * MIB))
    with pytest.raises(DatasetError, match="unpacks to more than 67,108,864 bytes"):
        unpack(tmp_path / "x", tmp_path / "in")
    assert contents(tmp_path / "in") == {}


def test_ten_gigabytes_of_zeros_in_a_zip(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", {f"{i}": bytes(8 * MIB) for i in range(10)})
    with pytest.raises(DatasetError, match="unpacks to more than"):
        unpack(archive, tmp_path / "in")
    assert contents(tmp_path / "in") == {}


def test_a_zip_that_lies_about_sizes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", {"a": bytes(2 * MIB)})
    content = bytearray(archive.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 24 : entry + 28] = struct.pack("<I", 10)
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged"):
        unpack(archive, tmp_path / "in", max_bytes=MIB)
    assert sum(map(len, contents(tmp_path / "in").values())) <= MIB


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_fills_the_memory(kind: bytes, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x", "wb", compresslevel=1) as file:
        file.write(header("x", 4 << 30, kind))
        for _ in range(100):
            file.write(bytes(MIB))
    with pytest.raises(DatasetError, match="unpacks to more than"):
        unpack(tmp_path / "x", tmp_path / "in")


def test_a_hundred_thousand_empty_files_in_a_small_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmopt.data.archives.MIN_FILES", 20)
    empty = {f"{number}": b"" for number in range(30)}
    plain = tar(tmp_path / "plain", empty)  # of 512 bytes a file
    assert unpack(plain, tmp_path / "all") == 30
    with gzip.open(tmp_path / "x", "wb") as file:
        file.write(plain.read_bytes())
    with pytest.raises(DatasetError, match="holds more than 20 files"):
        unpack(tmp_path / "x", tmp_path / "in")
    assert len(contents(tmp_path / "in")) == 20


def test_the_limit_grows_with_the_archive(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", {"a": b"0123456789" * 1000})
    assert unpack(archive, tmp_path / "in") == 1
    with pytest.raises(DatasetError, match="more than 9,000 bytes"):
        unpack(archive, tmp_path / "in2", max_bytes=9000)


# ------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("kind", MAKERS)
def test_archives_cut_short(kind: str, tmp_path: Path) -> None:
    archive = MAKERS[kind](tmp_path / "x", GOOD)
    archive.write_bytes(archive.read_bytes()[: -archive.stat().st_size // 3])
    with pytest.raises(DatasetError, match="is damaged"):
        unpack(archive, tmp_path / "in")


def test_a_flipped_bit_in_a_zip(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", {"a": bytes(range(256)) * 100})
    content = bytearray(archive.read_bytes())
    content[60] ^= 4
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged"):
        unpack(archive, tmp_path / "in")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Rar!\x1a\x07\x01\x00", "is a RAR archive; unpack it by hand"),
        (b"7z\xbc\xaf\x27\x1c\x00\x00", "is a 7-Zip archive"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not an archive"),
        (b"", "is damaged"),
        (b"hello", "is damaged"),
        (b"\x1f\x8bnonsense", "is damaged"),
        (b"PK\3\4nonsense", "is damaged"),
    ],
)
def test_what_is_no_archive(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        unpack(tmp_path / "x", tmp_path / "in")


def test_a_file_that_is_also_a_folder(tmp_path: Path) -> None:
    archive = tar(tmp_path / "x", {"a": b"1", "a/b": b"2"})
    with pytest.raises(DatasetError, match="cannot be unpacked into"):
        unpack(archive, tmp_path / "in")
