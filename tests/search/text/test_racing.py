from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.errors import BudgetExhausted
from llmopt.search import make_optimizer
from llmopt.search.text import racing
from llmopt.search.text.archive import Archive
from llmopt.search.text.racing import few, first_images, stays
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox, make_task, stage
from llmopt.vision.base import Access

TASK = make_task(shots=6)
N, K, FEW = len(TASK.train), len(NAMES), few(len(TASK.train))
GOOD = [Template(f"a {word} small {{}}.") for word in ("nice", "cool", "fine", "good", "odd")]
BAD = [Template(f"a {word} large huge {{}}.") for word in ("nice", "cool", "fine", "good", "odd")]


def test_a_quarter_comes_first_where_that_is_worth_it() -> None:
    assert [few(n) for n in (1, 8, 15, 16, 30, 48, 1600)] == [0, 0, 0, 8, 8, 12, 400]


@pytest.mark.parametrize("classes", [1, 3, 5, 100])
def test_first_images_are_of_all_classes_alike(classes: int) -> None:
    labels = np.arange(200, dtype=np.int64) % classes
    places = first_images(labels, np.random.default_rng(1))
    counts = np.bincount(labels[places], minlength=classes)
    assert len(set(places.tolist())) == few(200) == counts.sum()
    assert counts.max() - counts.min() <= 1
    assert places.tolist() == sorted(first_images(labels, np.random.default_rng(1)).tolist())
    assert places.tolist() != first_images(labels, np.random.default_rng(2)).tolist()


@fuzz(
    seed=st.integers(0, 2**32 - 1),
    new=st.integers(1, 6),
    known=st.integers(0, 6),
    best=st.integers(1, 8),
    levels=st.sampled_from([2, 3, 1000]),
)
def test_the_best_stay_and_so_does_what_equals_them(
    seed: int, new: int, known: int, best: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    worth = -rng.integers(0, levels, (new + known, 8)) * 3.0 / levels
    staying = stays(worth[known:], worth[:known], best, 32)
    means = worth.mean(axis=1)
    least = np.sort(means)[-best] if len(means) >= best else -np.inf
    assert staying[means[known:] >= least].all()
    if new + known <= best:
        assert staying.all()
    better = np.where(staying[:, None], worth[known:] + 1, worth[known:])
    assert stays(better, worth[:known] + 1, best, 32)[staying].all()


def test_who_is_clearly_behind_sees_few_images(tmp_path: Path) -> None:
    box = FakeBox(Access.SCORES)
    with stage(tmp_path, TASK, box) as s:
        archive = Archive(s.search, best=3)
        scored = archive.score([TASK.start, *GOOD, *BAD])
        assert [one.template for one in scored] == [TASK.start, *GOOD]
        assert [*archive.dropped.values()] == BAD
        assert len(archive) == 11
        assert all(len(one.likelihoods) == N for one in scored)
        assert archive.fresh([*BAD, *GOOD, TASK.start]) == []
        assert s.ledger["image_encodings"] == 6 * N + 5 * FEW == box.asked["image_encodings"]
        assert s.ledger["pairs_scored"] == (6 * N + 5 * FEW) * K
        told = [r for r in read_journal(tmp_path / "journal.jsonl") if r["kind"] == "dropped"]
        assert [r["data"]["templates"] for r in told] == [[one.text for one in BAD]]
        # The scores are those of a search without a race.
        plain = Archive(s.search)
        assert [one.score for one in plain.score(GOOD)] == [one.score for one in scored[1:]]


def test_the_start_is_scored_however_bad_it_is(tmp_path: Path) -> None:
    task = make_task(shots=6, start="a large huge {}.")
    with stage(tmp_path, task, FakeBox(Access.LABELS)) as s:
        archive = Archive(s.search, best=1)
        archive.score(GOOD)
        assert [one.template for one in archive.score([*BAD, task.start])] == [task.start]
        assert archive.score(BAD[:1]) == []


@pytest.mark.parametrize(("access", "holds"), [(Access.FEATURES, False), (Access.SCORES, True)])
def test_no_race_where_an_image_is_sent_once(
    tmp_path: Path, access: Access, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBox, "holds_images", holds)
    with stage(tmp_path, TASK, FakeBox(access)) as s:
        archive = Archive(s.search, best=3)
        assert len(archive.score([*GOOD, *BAD])) == 10
        assert not archive.dropped


def test_a_cap_in_the_middle_of_a_race_keeps_what_it_paid_for(tmp_path: Path) -> None:
    caps = Caps(image_encodings=8 * FEW + 2 * N)
    with stage(tmp_path, TASK, FakeBox(Access.SCORES), caps=caps) as s:
        archive = Archive(s.search, best=2)
        with pytest.raises(BudgetExhausted):
            archive.score([*GOOD, *BAD])
        assert 0 < len(archive.ranked()) <= 3
        assert s.ledger["image_encodings"] <= caps.image_encodings


@pytest.mark.parametrize(
    ("access", "name", "settings", "share"),
    [
        (Access.LABELS, "random", {"evaluations": 40}, 0.95),
        (Access.SCORES, "random", {"evaluations": 40}, 0.75),
        (Access.SCORES, "handcrafted", {"templates": "generic", "mode": "best"}, 0.75),
    ],
)
def test_a_race_finds_as_much_for_fewer_images(
    tmp_path: Path, access: Access, name: str, settings: dict[str, Any], share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = {}
    for racing_on in (True, False):
        if not racing_on:
            monkeypatch.setattr(racing, "few", lambda images: 0)
        folder = tmp_path / str(racing_on)
        folder.mkdir()
        with stage(folder, TASK, FakeBox(access)) as s:
            outcome = make_optimizer(name, settings).run(s.search)
            found[racing_on] = outcome.templates[0].train_accuracy, s.ledger["image_encodings"]
    assert found[True][0] >= found[False][0]
    assert found[True][1] < share * found[False][1]
