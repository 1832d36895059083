from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmopt.errors import RunFolderError
from llmopt.spend.checkpoint import Checkpoints
from llmopt.spend.files import write_arrays
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger

TENSORS = {
    "mean": np.arange(6, dtype=np.float64).reshape(2, 3),
    "steps": np.array([3], dtype=np.int64),
    "view": np.arange(10, dtype=np.float32)[::2],
}


class Sitting:
    """One process's hold on a run."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.jsonl")
        self.ledger = Ledger(clock=lambda: 0.0)
        self.checkpoints = Checkpoints(folder / "state.safetensors", self.ledger, self.journal)

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, *exception: object) -> None:
        self.journal.close()


def test_there_is_none_at_first(tmp_path: Path) -> None:
    with Sitting(tmp_path) as sitting:
        assert sitting.checkpoints.restore() is None
    assert not (tmp_path / "state.safetensors").exists()


def test_arrays_state_ledger_and_journal_come_back(tmp_path: Path) -> None:
    with Sitting(tmp_path) as first:
        first.ledger.charge(text_encodings=7, llm_usd=0.125)
        for step in range(3):
            first.journal.event("step", number=step)
        first.journal.event("other", "side", number=0)
        first.checkpoints.save(TENSORS, '{"generation": 3}')
        first.ledger.charge(text_encodings=5)
        for step in range(3, 5):
            first.journal.event("step", number=step)

    with Sitting(tmp_path) as again:
        kept = again.checkpoints.restore()
        assert kept is not None
        tensors, state = kept
        assert state == '{"generation": 3}'
        assert set(tensors) == set(TENSORS)
        for name, array in TENSORS.items():
            assert tensors[name].dtype == array.dtype
            np.testing.assert_array_equal(tensors[name], array)
        assert again.ledger["text_encodings"] == 7
        assert again.ledger["llm_usd"] == 0.125
        # The steps after the checkpoint are met again; the ones before it are not repeated.
        assert [again.journal.event("step", number=n) for n in (3, 4, 5)] == [False, False, True]
        assert not again.journal.diverged


def test_the_newest_replaces_the_one_before(tmp_path: Path) -> None:
    with Sitting(tmp_path) as sitting:
        for generation in range(3):
            sitting.checkpoints.save({"x": np.array([generation])}, str(generation))
        kept = sitting.checkpoints.restore()
    assert kept is not None
    assert kept[1] == "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["journal.jsonl", "state.safetensors"]


def test_a_crash_while_saving_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:50])
        raise KeyboardInterrupt

    with Sitting(tmp_path) as sitting:
        sitting.checkpoints.save(TENSORS, "old")
        monkeypatch.setattr(Path, "write_bytes", torn)
        with pytest.raises(KeyboardInterrupt):
            sitting.checkpoints.save(TENSORS, "new")
        kept = sitting.checkpoints.restore()
    assert kept is not None
    assert kept[1] == "old"


@pytest.mark.parametrize("damage", ["torn", "empty", "foreign", "no ledger", "folder"])
def test_damage_is_named_with_its_remedy(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.safetensors"
    with Sitting(tmp_path) as sitting:
        sitting.checkpoints.save(TENSORS, "state")
    match damage:
        case "torn":
            path.write_bytes(path.read_bytes()[:-8])
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            save_file({"x": np.zeros(1)}, path)
        case "no ledger":
            save_file({"x": np.zeros(1)}, path, {"state": "{}"})
        case "folder":
            path.unlink()
            path.mkdir()
    says = r"state\.safetensors is damaged .* delete it"
    with Sitting(tmp_path) as sitting, pytest.raises(RunFolderError, match=says):
        sitting.checkpoints.restore()


@pytest.mark.parametrize(
    "texts",
    [
        {"ledger": '{"gold": 3}'},
        {"ledger": '{"llm_calls": -1}'},
        {"ledger": '{"llm_calls": "3"}'},
        {"ledger": '{"llm_calls": NaN}'},
        {"ledger": "[" * 100_000},
        {"ledger": "[]"},
        {"journal": '{"main": -1}'},
        {"journal": '{"main": "three"}'},
        {"journal": "7"},
    ],
)
def test_ledgers_and_places_that_cannot_be(tmp_path: Path, texts: dict[str, str]) -> None:
    with Sitting(tmp_path) as sitting:
        whole = {"state": "{}", "ledger": "{}", "journal": "{}"}
        write_arrays(sitting.checkpoints.path, TENSORS, whole | texts)
        before = sitting.ledger.state()
        with pytest.raises(RunFolderError, match=r"is damaged .* delete it"):
            sitting.checkpoints.restore()
        assert sitting.ledger.state() == before


def test_another_optimizers_checkpoint_is_named(tmp_path: Path) -> None:
    def checkpoints(sitting: Sitting, optimizer: str, notes: list[str]) -> Checkpoints:
        owner = {"optimizer": optimizer, "seed": "1"}
        path = tmp_path / "state.safetensors"
        return Checkpoints(path, sitting.ledger, sitting.journal, owner, notes.append)

    notes: list[str] = []
    with Sitting(tmp_path) as sitting:
        checkpoints(sitting, "zip", notes).save(TENSORS, "{}")
        assert checkpoints(sitting, "zip", notes).restore() is not None
        with pytest.raises(RunFolderError, match=r"another run \(optimizer zip, here craft\)"):
            checkpoints(sitting, "craft", notes).restore()
        assert notes == []
        save_file(
            {"x": np.zeros(1)},
            tmp_path / "state.safetensors",
            {"state": "{}", "ledger": "{}", "journal": "{}"},
        )
        assert checkpoints(sitting, "craft", notes).restore() is not None
    assert [note.split("/")[-1] for note in notes] == [
        "state.safetensors has no checksum: damage to it would not be seen"
    ]
