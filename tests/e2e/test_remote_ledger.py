"""A remote box receives what the ledger says, what the plan allowed, and not more than the caps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_folder
from remote_box import RemoteBox, listening
from running import resume, start
from worlds import SMALL, config

from llmopt.errors import BudgetTooSmall, ServiceError
from llmopt.runs.compose import compose
from llmopt.runs.plan import make_plan
from llmopt.spend.events import Watch
from llmopt.vision.base import Access
from llmopt.vision.services.http import HttpBlackBox
from llmopt.vision.wire import pack_array

RECEIVED = ("black_box_calls", "image_encodings", "text_encodings", "soft_prompt_encodings")
SETTINGS: dict[str, dict[str, Any]] = {
    "chat": {"probes": 0, "restarts": 2, "iterations": 2, "pool": 4, "proposals": 3, "ensemble": 2},
    "random": {"evaluations": 7},
    "handcrafted": {"templates": "subset"},
    "craft": {"budget": 24, "population": 8, "dim": 4, "head": "none"},
    "cbbt": {"budget": 24, "adapter": False},
    "zip": {"budget": 24},
    "bbt": {"budget": 24, "population": 8, "dim": 4},
    "bptvlm": {"budget": 24, "population": 8, "dim": 4},
}
WORDS = ("zeroshot", "handcrafted", "random", "chat")
PUBLISHED: dict[str, dict[str, Any]] = {
    "craft": {"budget": 16, "population": 8, "dim": 4},
    "cbbt": {"epochs": 1, "directions": 2, "batch": 4},
    "zip": {"budget": 24, "batch": 4},
    "bbt": {"budget": 24, "dim": 4},
    "bptvlm": {"budget": 24, "dim": 4, "population": 8},
}
CASES: list[tuple[Access, bool, str, dict[str, Any]]] = [
    *((level, holds, name, {}) for level in (Access.LABELS, Access.SCORES)
      for holds in (False, True) for name in WORDS),
    *((Access.FEATURES, False, name, {}) for name in WORDS),
    *((Access.SOFT, False, name, {}) for name in SETTINGS if name not in WORDS),
    *((Access.SOFT, False, name, {"settings": {"profile": "released", **given}})
      for name, given in PUBLISHED.items()),
    # Enough training images for a race.
    *((level, False, name, {"shots": 6})
      for level in (Access.LABELS, Access.SCORES) for name in ("chat", "random")),
    (Access.SCORES, False, "chat", {"shots": 6, "llm": "builtin", "settings": SMALL}),
    (Access.SCORES, False, "zeroshot", {"head": "auto"}),
    (Access.SCORES, True, "zeroshot", {"head": "ridge", "head_views": 1}),
    (Access.SCORES, False, "random", {"head": "bias", "head_views": 1}),
    (Access.FEATURES, False, "zeroshot", {"head": "gda", "head_views": 1}),
    (Access.SOFT, False, "bbt", {"head": "ridge"}),
    (Access.LABELS, False, "zeroshot", {"head": "auto", "head_views": 1}),
    (Access.LABELS, False, "chat", {"settings": {**SETTINGS["chat"], "aliases": 2}}),
]  # fmt: skip


class Hears(Watch):
    """Takes what came to the box so far when the test images are next."""

    def __init__(self, box: RemoteBox) -> None:
        self.box, self.search, self.lines = box, Counter[str](), list[str]()

    def stage(self, text: str) -> None:
        if "test images" in text:
            self.search = self.box.reset()

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), test=2)


@pytest.fixture
def root(data: Path, tmp_path: Path) -> Path:
    (tmp_path / "data").symlink_to(data)
    return tmp_path


@pytest.fixture(autouse=True)
def _small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that these few images and prompts take several."""
    monkeypatch.setattr(HttpBlackBox, "images_per_call", 4)
    monkeypatch.setattr(HttpBlackBox, "prompts_per_call", 8)
    monkeypatch.setattr("llmopt.vision.base.LONGEST_PAUSE", 0.001)


def asked(root: Path, box: RemoteBox, optimizer: str, **options: Any) -> Any:
    options.setdefault("settings", SETTINGS.get(optimizer, {}))
    return config(root, optimizer=optimizer, blackbox=box.url, model="", pretrained="", **options)


@pytest.mark.parametrize(("access", "holds", "optimizer", "options"), CASES, ids=str)
def test_what_arrives_is_what_the_ledger_says_and_the_plan_allowed(
    root: Path, access: Access, holds: bool, optimizer: str, options: dict[str, Any]
) -> None:
    with listening(RemoteBox(access, holds=holds)) as box:
        chosen = asked(root, box, optimizer, **options)
        plan = make_plan(compose(chosen))
        assert not box.came
        hears = Hears(box)
        result = start(chosen, hears)
        counted = [*RECEIVED, *(["pairs_scored"] if access < Access.FEATURES else [])]
        for name in counted:
            assert hears.search[name] == result["ledger"][name], f"search {name}"
            assert box.came[name] == result["evaluation"][name], f"test {name}"
        most = {row.name: row.most or 0 for row in plan.rows}
        for name in (*RECEIVED, "pairs_scored"):
            assert result["ledger"][name] <= most.get(name, 0), f"plan of {name}"
            assert result["evaluation"][name] <= plan.test[name], f"plan of the test, {name}"
        assert all(images <= 4 for _, images, _ in box.requests)
        if holds:
            few, test = result["task"]["train_images"] + result["task"]["val_images"], 2 * 5
            views = options.get("head_views", 0) * result["task"]["train_images"]
            assert result["ledger"]["image_encodings"] == few + views
            assert result["evaluation"]["image_encodings"] == test
        if access < Access.FEATURES:  # nothing is far from what is planned
            assert most["pairs_scored"] < 12 * result["ledger"]["pairs_scored"]


@pytest.mark.parametrize("access", [Access.LABELS, Access.FEATURES])
@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("max_images", "image_encodings"),
        ("max_pairs", "pairs_scored"),
        ("max_box_calls", "black_box_calls"),
        ("max_queries", "text_encodings"),
    ],
)
def test_a_cap_holds_what_arrives(root: Path, access: Access, option: str, name: str) -> None:
    with listening(RemoteBox(access)) as box:
        for share in (0.3, 0.6):
            chosen = asked(root, box, "random", settings={"evaluations": 12})
            most = {row.name: row.most or 0 for row in make_plan(compose(chosen)).rows}
            cap = max(int(share * most[name]), 45 if access < Access.FEATURES else 25)
            hears = Hears(box)
            result = start(
                asked(root, box, "random", settings={"evaluations": 12}, **{option: cap}), hears
            )
            assert hears.search[name] <= cap
            assert result["ledger"][name] <= cap
            box.reset()


@pytest.mark.parametrize("option", ["max_images", "max_pairs", "max_box_calls", "max_queries"])
def test_a_cap_that_pays_for_nothing_sends_nothing(root: Path, option: str) -> None:
    with listening(RemoteBox(Access.SCORES)) as box:
        chosen = asked(root, box, "random", **{option: 1})
        flag = f"--{option.replace('_', '-')} 1 does not even pay"
        with pytest.raises(BudgetTooSmall, match=flag):
            make_plan(compose(chosen)).refuse_unpayable()
        with pytest.raises(BudgetTooSmall, match="start template"):
            start(chosen)
        assert not box.came


def test_tries_that_fail_are_requests_too(root: Path) -> None:
    seen, faulty = Counter[str](), [True]

    def failing(path: str, right: Any) -> Any:
        seen[path] += 1
        return 503 if faulty and path == "/scores" and seen[path] % 5 == 2 else right

    with listening(RemoteBox(Access.SCORES, failing)) as box:
        hears = Hears(box)
        result = start(asked(root, box, "random"), hears)
        faulty.clear()
        clean = start(asked(root, box, "random"))
        for name in (*RECEIVED, "pairs_scored"):
            assert hears.search[name] == result["ledger"][name]
        assert result["ledger"]["black_box_calls"] > clean["ledger"]["black_box_calls"] > 0


def test_images_that_are_held_no_longer_are_sent_again(root: Path) -> None:
    box = RemoteBox(Access.SCORES, holds=True)

    def forgetting(path: str, right: Any) -> Any:
        if len(box.requests) == 6:
            box.album.clear()
        return right

    box.spoil = forgetting
    with listening(box):
        hears = Hears(box)
        result = start(asked(root, box, "random"), hears)
        for name in (*RECEIVED, "pairs_scored"):
            assert hears.search[name] == result["ledger"][name]
        few = result["task"]["train_images"] + result["task"]["val_images"]
        assert few < result["ledger"]["image_encodings"] <= 2 * few + 4


def test_a_wrong_answer_ends_a_run_that_goes_on_later(root: Path) -> None:
    wrong = [True]

    def spoiled(path: str, right: Any) -> Any:
        if path != "/scores" or not wrong or len(box.requests) < 12:
            return right
        shape = right["scores"]["shape"]
        return {"scores": pack_array(np.full(shape, np.nan, dtype=np.float32))}

    box = RemoteBox(Access.SCORES, spoiled)
    with listening(box):
        with pytest.raises(
            ServiceError, match=r"asked for scores of \d images and 5 prompts: gave a number"
        ) as raised:
            start(asked(root, box, "random"))
        assert raised.value.exit_code == 4
        wrong.clear()
        (folder,) = (root / "runs").iterdir()
        result = resume(folder)
        undisturbed = start(asked(root, box, "random"))
        assert result["ledger"] == undisturbed["ledger"]
        assert result["best"]["templates"] == undisturbed["best"]["templates"]


@pytest.mark.parametrize(
    ("access", "shots", "fails"),
    [
        (Access.LABELS, 2, 7),
        (Access.SCORES, 2, 7),
        (Access.FEATURES, 2, 7),
        (Access.SCORES, 6, 17),  # in a race, on the few images …
        (Access.SCORES, 6, 26),  # … and on the others
    ],
)
def test_a_run_that_goes_on_asks_for_nothing_again(
    root: Path, access: Access, shots: int, fails: int
) -> None:
    down = [True]

    def failing(path: str, right: Any) -> Any:
        return 400 if down and len(box.requests) == fails else right

    box = RemoteBox(access, failing)
    with listening(box):
        with pytest.raises(ServiceError):
            start(asked(root, box, "random", shots=shots))
        down.clear()
        first = box.reset()
        (folder,) = (root / "runs").iterdir()
        assert list((folder / "answers").iterdir())
        hears = Hears(box)
        result = resume(folder, hears)
        assert not (folder / "answers").exists()
        for name in RECEIVED:
            sent = first[name] + hears.search[name]
            assert 0 <= sent - result["ledger"][name] <= first[name] // 2  # the call that failed
        assert first["text_encodings"] > 0
        assert hears.search["black_box_calls"] < result["ledger"]["black_box_calls"]


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
def test_what_was_on_its_way_when_a_run_died_is_told_as_lost(
    root: Path, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        """As sudden as kill -9, and nobody handles it."""

    once, left = HttpBlackBox._once, [0]

    def dying(self: Any, method: str, path: str, *rest: Any) -> Any:
        answer = once(self, method, path, *rest)
        if method == "POST":
            left[0] -= 1
            if left[0] == 0:
                raise Died
        return answer

    with listening(RemoteBox(access)) as box:
        undisturbed = start(asked(root, box, "random"))
        monkeypatch.setattr(HttpBlackBox, "_once", dying)
        left[0] = 4
        with pytest.raises(Died):
            start(asked(root, box, "random"))
        (folder,) = set((root / "runs").iterdir()) - {Path(undisturbed["run"])}
        for name, content in (("torn", "{"), ("odd", '{"box_calls_lost": -1}')):
            (folder / "answers" / f"search-{name}.sent").write_text(content)
        left[0] = 2
        with pytest.raises(Died):  # and once more
            resume(folder)
        result = resume(folder)
        lost = result["ledger"].pop("box_calls_lost")
        assert lost == 2
        assert result["ledger"] == undisturbed["ledger"]
        if access == Access.FEATURES:  # of which images are known by now
            return
        left[0] = result["ledger"]["black_box_calls"] + 1  # in the test
        with pytest.raises(Died):
            start(asked(root, box, "random"))
        known = {Path(undisturbed["run"]), folder}
        (folder,) = set((root / "runs").iterdir()) - known
        result = resume(folder)
        assert result["ledger"] == undisturbed["ledger"]
        assert result["evaluation"] == {**undisturbed["evaluation"], "box_calls_lost": 1}


def test_damaged_answers_are_asked_for_again(tmp_path: Path) -> None:
    from llmopt.spend.ledger import Ledger
    from llmopt.vision.answers import numbers
    from llmopt.vision.kept import KeptAnswers

    kept, ledger, asked = KeptAnswers(tmp_path / "answers", "box"), Ledger(), []

    def ask() -> Any:
        asked.append(1)
        ledger.charge(black_box_calls=2)
        return np.ones((2, 3), dtype=np.float32), {"black_box_calls": 2}

    def answer(box: KeptAnswers = kept) -> Any:
        return box.answer(["x"], ask, lambda told: numbers(told, (2, 3)), ledger)

    answer()
    kept = KeptAnswers(tmp_path / "answers", "box")  # another sitting
    np.testing.assert_array_equal(answer(kept), np.ones((2, 3)))
    assert (len(asked), ledger["black_box_calls"]) == (1, 4)
    answer(kept)  # a second time in this one
    assert len(asked) == 2
    next(one for one in (tmp_path / "answers").iterdir() if "-1." in one.name).unlink()
    (path,) = (tmp_path / "answers").iterdir()
    for spoiled in (b"", b"x" * 100, path.read_bytes()[:-1] + b"\x00"):
        path.write_bytes(spoiled)
        before = len(asked)
        answer(KeptAnswers(tmp_path / "answers", "box"))
        assert len(asked) == before + 1
    before = len(asked)
    answer(KeptAnswers(tmp_path / "answers", "another box"))
    assert len(asked) == before + 1
