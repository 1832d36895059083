"""The journal: nothing written is lost, a torn tail is cut, damage elsewhere is refused."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from fuzz import fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmopt.errors import RunFolderError
from llmopt.spend.journal import Journal, first_record, read_journal

QUICK = settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
_TEXT = st.text(max_size=20)
_DATA = st.dictionaries(
    st.text(st.characters(categories=["L"]), min_size=1, max_size=5).filter(
        lambda name: name not in ("kind", "key", "stream", "self")
    ),
    st.one_of(_TEXT, st.integers(), st.booleans(), st.none(), st.lists(_TEXT, max_size=3)),
    max_size=3,
)
_STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from("xyz"), _DATA), max_size=8
)
Step = tuple[bool, str, str, dict[str, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write(path: Path, steps: list[Step]) -> None:
    with Journal(path) as journal:
        for paid, kind, stream, data in steps:
            if paid:
                journal.pay(kind, f"key {kind}", stream, **data)
            else:
                journal.event(kind, stream, **data)


@QUICK
@given(_STEPS)
def test_what_is_written_is_read(path: Path, steps: list[Step]) -> None:
    path.unlink(missing_ok=True)
    write(path, steps)
    found = list(read_journal(path))
    assert [(r["kind"], r["stream"], r["data"]) for r in found] == [s[1:] for s in steps]
    assert ["key" in r for r in found] == [s[0] for s in steps]


@settings(QUICK, max_examples=4)
@given(_STEPS)
def test_a_torn_tail_at_every_byte(path: Path, steps: list[Step]) -> None:
    path.unlink(missing_ok=True)
    write(path, steps)
    raw = path.read_bytes()
    whole = list(read_journal(path))
    for cut in range(len(raw) + 1):
        path.write_bytes(raw[:cut])
        kept = raw[:cut].count(b"\n")
        assert list(read_journal(path)) == whole[:kept]
        assert path.read_bytes() == raw[:cut]  # reading changes nothing
    for cut in {len(raw) // 3, len(raw) // 2, max(0, len(raw) - 2)}:
        path.write_bytes(raw[:cut])
        kept = raw[:cut].count(b"\n")
        with Journal(path) as journal:
            assert journal.resumed == (kept > 0)
            journal.pay("new", "key", "main", value=1)
        after = list(read_journal(path))
        assert after[:-1] == whole[:kept]
        assert after[-1]["data"] == {"value": 1}


@settings(QUICK, max_examples=40)
@given(st.data())
def test_damage_before_the_last_line_is_refused(path: Path, data: st.DataObject) -> None:
    path.unlink(missing_ok=True)
    write(path, [(True, "a", "x", {"n": n}) for n in range(5)])
    lines = path.read_bytes().splitlines(keepends=True)
    line = data.draw(st.integers(0, 3))
    garbage = data.draw(st.sampled_from([b"{", b"null", b"[]", b'{"at": 1}', b"\xff\xfe", b"12"]))
    lines[line] = garbage + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(RunFolderError, match="damaged at byte"):
        list(read_journal(path))
    with pytest.raises(RunFolderError, match="damaged at byte"):
        Journal(path)


def test_a_hole_in_the_last_line_is_cut(path: Path) -> None:
    write(path, [(False, "a", "x", {})])
    good = path.read_bytes()
    path.write_bytes(good + b'{"at": 1, "kin\0\0\0\0\0\n')
    with Journal(path):
        pass
    assert path.read_bytes() == good


@QUICK
@given(_STEPS, st.integers(0, 8), st.integers(0, 8))
def test_a_resumed_run_repeats_its_events_silently(
    path: Path, steps: list[Step], first: int, second: int
) -> None:
    """Interrupted twice, the journal ends up as that of an undisturbed run."""
    events = [(False, *step[1:]) for step in steps]
    path.unlink(missing_ok=True)
    write(path, events)
    undisturbed = [(r["kind"], r["stream"], r["data"]) for r in read_journal(path)]
    path.unlink()
    for end in (first, second, len(events)):
        with Journal(path) as journal:
            before = len(list(read_journal(path)))
            for number, (_, kind, stream, data) in enumerate(events[:end]):
                assert journal.event(kind, stream, **data) is (number >= before)
            assert not journal.diverged
    assert [(r["kind"], r["stream"], r["data"]) for r in read_journal(path)] == undisturbed


def test_streams_may_resume_in_another_order(path: Path) -> None:
    with Journal(path) as journal:
        for n in range(3):
            journal.event("step", "a", n=n)
            journal.event("step", "b", n=n)
    with Journal(path) as journal:
        assert [journal.event("step", "b", n=n) for n in range(4)] == [False, False, False, True]
        assert [journal.event("step", "a", n=n) for n in range(4)] == [False, False, False, True]
        assert not journal.diverged


def test_another_course_is_noticed(path: Path) -> None:
    with Journal(path) as journal:
        for n in range(3):
            journal.event("step", n=n)
    with Journal(path) as journal:
        assert not journal.event("step", n=0)
        assert journal.event("step", n=10)
        assert journal.diverged
        assert journal.event("step", n=2)


def test_paid_records_are_recalled_once_in_order(path: Path) -> None:
    with Journal(path) as journal:
        journal.pay("reply", "k", "a", text="one")
        journal.pay("reply", "k", "a", text="two")
        journal.pay("reply", "k", "b", text="other")
        assert journal.recall("reply", "k", "a") is None  # written in this sitting
    with Journal(path) as journal:
        found = [journal.recall("reply", "k", "a") for _ in range(3)]
        assert found == [{"text": "one"}, {"text": "two"}, None]
        assert journal.recall("reply", "k", "b") == {"text": "other"}
        assert journal.recall("intent", "k", "b") is None


def test_odd_characters_survive(path: Path) -> None:
    text = "line\nbreak \u2028 \x00 \ud800 lone surrogate, é, 字, 🎈"
    with Journal(path) as journal:
        journal.pay("reply", "k", text=text)
    assert path.read_bytes().count(b"\n") == 1
    with Journal(path) as journal:
        assert journal.recall("reply", "k") == {"text": text}


def test_the_clock_goes_on_where_it_stopped(path: Path) -> None:
    record = {"at": 100.0, "kind": "a", "stream": "main", "data": {}}
    path.write_text(json.dumps(record) + "\n")
    with Journal(path) as journal:
        assert 100.0 <= journal.clock() < 160.0


def test_threads_write_whole_lines(path: Path) -> None:
    with Journal(path) as journal:

        def work(name: str) -> None:
            for n in range(40):
                journal.pay("reply", str(n), name, text="x" * 3000)

        threads = [threading.Thread(target=work, args=(f"s{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = list(read_journal(path))
    assert len(records) == 240
    for name in (f"s{n}" for n in range(6)):
        assert [r["key"] for r in records if r["stream"] == name] == [str(n) for n in range(40)]


class _Disk:
    """A file whose disk runs full in the middle of a line, and has room again later."""

    def __init__(self, file: Any, room: int) -> None:
        self._file = file
        self.room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        fits = data[: self.room]
        if not fits:
            raise OSError(28, "No space left on device")
        self.room -= len(fits)
        return int(self._file.write(fits))


def test_a_full_disk_leaves_no_half_line(path: Path) -> None:
    with Journal(path) as journal:
        journal.event("step", n=1)
        disk = _Disk(journal._file, room=20)
        journal._file = disk  # type: ignore[assignment]
        with pytest.raises(RunFolderError, match=r"No space left.*nothing written before is lost"):
            journal.event("step", n=2)
        assert len(list(read_journal(path))) == 1
        disk.room = 10_000
        journal.event("step", n=3)
    assert [r["data"]["n"] for r in read_journal(path)] == [1, 3]


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="llmopt resume"):
        Journal(tmp_path / "no" / "such" / "folder.jsonl")
    with pytest.raises(RunFolderError, match="cannot read"):
        list(read_journal(tmp_path / "missing.jsonl"))


# --- what others did to it -----------------------------------------------------------------------


@fuzz(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_damage(at: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        write(path, [(n % 2 == 0, "a", "x", {"n": n, "text": "é 字"}) for n in range(4)])
        raw = bytearray(path.read_bytes())
        whole = list(read_journal(path))
        raw[at % len(raw)] ^= 1 << bit
        path.write_bytes(raw)
        try:
            found = list(read_journal(path))
        except RunFolderError as error:
            assert "is damaged at byte" in str(error)  # noqa: PT017
            return
        # The last line without its end is one that a crash tore.
        assert raw[-1] != ord("\n")
        assert found == whole[:3]


def test_a_blank_that_lost_its_bit_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [(True, "a", "x", {"n": n}) for n in range(3)])
    raw = path.read_bytes()
    blank = raw.rindex(b" ")
    path.write_bytes(raw[:blank] + b"\0" + raw[blank + 1 :])
    with pytest.raises(RunFolderError, match="is damaged at byte"):
        list(read_journal(path))
    path.write_bytes(raw[: blank - 3] + bytes(4) + raw[blank + 1 :])  # where a machine died
    assert len(list(read_journal(path))) == 2


_SHAPE: dict[str, Any] = {"at": 1.0, "kind": "llm_reply", "stream": "main", "data": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"at": "yesterday"},
        {"at": -1},
        {"at": True},
        {"at": 1e300},
        {"at": float("nan")},
        {"kind": 3},
        {"stream": None},
        {"stream": ["main"]},
        {"key": 7},
        {"key": None},
        {"data": "text"},
        {"data": []},
        {"more": 1},
        {"crc": "00000000"},
    ],
)
def test_fields_of_a_wrong_type(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps(_SHAPE) + "\n" + json.dumps({**_SHAPE, **change}) + "\n")
    with pytest.raises(RunFolderError, match=r"journal\.jsonl is damaged at byte \d+ \("):
        list(read_journal(path))


@pytest.mark.parametrize("depth", [80, 900, 100_000])
def test_deep_nesting(path: Path, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    path.write_text('{"at": 1, "kind": "a", "stream": "main", "data": {"x": ' + deep + "}}\n")
    for read in (Journal, lambda p: list(read_journal(p)), first_record):
        with pytest.raises(RunFolderError, match="is damaged at byte 0"):
            read(path)


def test_lines_of_an_earlier_version_have_no_checksum(path: Path) -> None:
    path.write_text(json.dumps(_SHAPE) + "\n")
    with Journal(path) as journal:
        assert not journal.checked
        journal.event("step", n=1)
    assert len(list(read_journal(path))) == 2
    with path.open("a") as file:
        file.write(json.dumps(_SHAPE) + "\n")
    with pytest.raises(RunFolderError, match="its checksum is missing"):
        Journal(path)


def test_where_it_is_no_file(path: Path) -> None:
    os.mkfifo(path)
    for read in (Journal, lambda p: list(read_journal(p))):
        with pytest.raises(RunFolderError, match="is not a file"):
            read(path)
    assert first_record(path) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@fuzz(
    lines=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "at": st.floats(0, 10) | _JSON,
                "kind": st.text(max_size=5) | _JSON,
                "stream": st.text(max_size=5) | _JSON,
                "key": st.text(max_size=5) | _JSON,
                "data": st.dictionaries(st.text(max_size=3), _JSON, max_size=2) | _JSON,
            },
        )
        | _JSON,
        max_size=4,
    ),
    tail=st.binary(max_size=20),
)
def test_no_lines_are_more_than_damaged(lines: list[Any], tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + tail)
        with contextlib.suppress(RunFolderError):
            first_record(path)
        try:
            found = list(read_journal(path))
        except RunFolderError:
            return
        assert len(found) <= len(lines) + tail.count(b"\n")
        with Journal(path) as journal:
            journal.event("step")
