"""The response cache: whole entries or none, and never a reason to fail."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmopt.language.cache import ResponseCache


def test_keeps_replies(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "replies")
    assert cache.get("q") is None
    cache.put("q", {"text": "ä\ud800"})
    assert cache.get("q") == {"text": "ä\ud800"}
    assert cache.get("r") is None
    cache.put("q", {"text": "new"})
    assert ResponseCache(tmp_path / "replies").get("q") == {"text": "new"}


def test_questions_do_not_stand_in_names(tmp_path: Path) -> None:
    ResponseCache(tmp_path).put("question", {})
    assert not [p for p in tmp_path.rglob("*") if "question" in p.name]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"version": 0}', b"\xff", b'{"version": 1, "reply": 3}']
)
def test_damaged_entries_are_not_there(tmp_path: Path, damage: bytes) -> None:
    cache = ResponseCache(tmp_path)
    cache.put("q", {"text": "x"})
    (entry,) = tmp_path.glob("*/*.json")
    entry.write_bytes(damage)
    assert cache.get("q") is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ResponseCache(tmp_path / "file" / "below")
    cache.put("q", {})
    assert cache.get("q") is None


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    ResponseCache(tmp_path).put("q", {})
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_writers_side_by_side(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.put("q", {"text": "x" * 10_000, "n": n}), range(64)))
    reply = cache.get("q")
    assert reply is not None
    assert reply["n"] in range(64)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1
