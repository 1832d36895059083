"""Files of arrays: what is read is what was written, or is called damaged; a full disk is told."""

from __future__ import annotations

import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from safetensors.numpy import save_file

from llmopt.errors import RunFolderError
from llmopt.spend.files import Damaged, keeping, read_arrays, write_arrays, write_text

ARRAYS = {
    "a": np.arange(24, dtype=np.float32).reshape(4, 6),
    "steps": np.array(3),
    "view": np.arange(10, dtype=np.int64)[::2],
}
TEXTS = {"state": '{"step": 3}', "empty": ""}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "arrays.safetensors"
    write_arrays(path, ARRAYS, TEXTS)
    return path


def test_what_is_written_is_read(path: Path) -> None:
    kept = read_arrays(path)
    assert kept.checked
    assert kept.texts == TEXTS
    for name, array in ARRAYS.items():
        assert kept.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(kept.arrays[name], array)


def test_a_file_without_a_checksum_is_read_as_such(tmp_path: Path) -> None:
    save_file({"a": np.ones(2)}, tmp_path / "old", {"state": "x"})
    kept = read_arrays(tmp_path / "old")
    assert (kept.checked, kept.texts) == (False, {"state": "x"})


def _swap_rows(raw: bytearray) -> None:
    raw[-96:] = raw[-72:] + raw[-96:-72]


def _zero_half(raw: bytearray) -> None:
    raw[-len(raw) // 2 :] = bytes(len(raw[-len(raw) // 2 :]))


@pytest.mark.parametrize("change", [_swap_rows, _zero_half])
def test_what_a_disk_does_to_a_file_is_seen(path: Path, change: object) -> None:
    raw = bytearray(path.read_bytes())
    change(raw)  # type: ignore[operator]
    path.write_bytes(raw)
    with pytest.raises(Damaged):
        read_arrays(path)


@fuzz(bit=st.integers(0, 10**6), cut=st.booleans())
def test_no_flipped_bit_and_no_cut_is_believed(bit: int, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write_arrays(path, ARRAYS, TEXTS)
        raw = bytearray(path.read_bytes())
        bit %= len(raw) * 8
        if cut:
            del raw[bit // 8 :]
        else:
            raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            kept = read_arrays(path)
        except Damaged:
            return
        # What is left to flip is white space of the header, and the name of the checksum itself.
        assert not cut
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(kept.arrays[name], array)


@fuzz(raw=st.binary(max_size=300))
def test_no_bytes_are_more_than_damaged(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(raw)
        with pytest.raises(Damaged):
            read_arrays(path)


@pytest.mark.parametrize("place", ["nothing", "folder"])
def test_no_file_at_all(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Damaged, match="no such file"):
        read_arrays(tmp_path / place)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "No space left on device; .* make room there"),
        (errno.ENOENT, "No such file .* was the folder moved away"),
        (errno.EACCES, "Permission denied; .* allow writing there"),
        (errno.EIO, "Input/output error; nothing written before is lost"),
    ],
)
def test_what_the_disk_refuses_is_told(path: Path, number: int, says: str) -> None:
    with pytest.raises(RunFolderError, match=f"cannot write {path}: {says}"), keeping(path):
        raise OSError(number, __import__("os").strerror(number))


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for write in (
        lambda: write_arrays(path, ARRAYS, TEXTS),
        lambda: write_text(path, "text"),
    ):
        with pytest.raises(RunFolderError, match="No space left"), keeping(path):
            write()
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_text(pipe, "all of it")
        assert read.result(timeout=60) == "all of it"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
