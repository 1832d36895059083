"""What every optimizer must do, whichever it is."""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmopt.errors import ConfigError
from llmopt.language.builtin import BuiltinRewriter
from llmopt.predictor import predictor_from_state
from llmopt.runs.bounds import received
from llmopt.search.base import Optimizer, Outcome
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.testing.world import NAMES, FakeBox, Stage, held_out, make_task, stage
from llmopt.vision.base import Access

TASK = make_task(shots=2)
K = len(NAMES)
BOUNDED = (
    "image_encodings", "text_encodings", "soft_prompt_encodings", "pairs_scored",
    "black_box_calls", "llm_calls",
)  # fmt: skip


class Killed(BaseException):
    """Stands in for the end of the process."""


def run(
    optimizer: Optimizer[Any],
    folder: Path,
    box: FakeBox | None = None,
    *,
    start: bool = True,
    stop: int | None = None,
    **options: Any,
) -> tuple[Outcome, Stage]:
    """Run as the engine does, the start scored first; ``stop`` ends it at that call to the box.

    Without ``start`` all that is spent is the optimizer's own.
    """
    box = box or FakeBox(optimizer.access)
    chat = BuiltinRewriter(seed=1) if optimizer.needs_chat else None
    with stage(folder, options.pop("task", TASK), box, chat=chat, **options) as s:
        if start:
            s.search.box.score_templates(s.search.task.train, [s.search.task.start], NAMES)
        if stop is not None:
            box.before = lambda: s.ledger.stop() if box.asked["black_box_calls"] >= stop else None
        return optimizer.run(s.search), s


@dataclasses.dataclass(frozen=True)
class Whole:
    """An undisturbed run, for several tests to look at."""

    folder: Path
    outcome: Outcome
    stage: Stage
    spent: dict[str, Any]

    def is_repeated_in(self, folder: Path, outcome: Outcome, s: Stage) -> None:
        """Fail where a run that was resumed ended otherwise."""
        assert identity(outcome) == identity(self.outcome)
        assert not s.journal.diverged
        assert s.ledger.snapshot() == self.spent
        assert events(folder) == events(self.folder)


_WHOLE: dict[str, Whole] = {}


def events(folder: Path) -> list[Any]:
    """What a journal tells of a search, times and paid requests aside."""
    records = read_journal(folder / "journal.jsonl")
    return [(r["kind"], r["stream"], r["data"]) for r in records if "key" not in r]


def identity(outcome: Outcome) -> str:
    """All of an outcome, comparable."""
    tensors, rest = outcome.predictor.state()
    arrays = {name: array.tolist() for name, array in tensors.items()}
    results = [dataclasses.asdict(one) for one in outcome.templates]
    kept = [outcome.fallback, outcome.stop_reason, dict(outcome.summary)]
    return json.dumps([arrays, rest, results, *kept], sort_keys=True)


class OptimizerContract:
    """Give it the fixture ``optimizer``, which every test asks for anew."""

    @pytest.fixture
    def optimizer(self) -> Optimizer[Any]:
        """The optimizer, with settings that make it short."""
        raise NotImplementedError("override the fixture 'optimizer'")

    @pytest.fixture
    def whole(self, optimizer: Optimizer[Any], tmp_path_factory: pytest.TempPathFactory) -> Whole:
        """An undisturbed run at its lowest level; the tests of an optimizer share it."""
        key = f"{type(optimizer).__module__}:{type(optimizer).__qualname__} {optimizer.settings}"
        if key not in _WHOLE:
            folder = tmp_path_factory.mktemp("whole")
            outcome, s = run(optimizer, folder)
            _WHOLE[key] = Whole(folder, outcome, s, s.ledger.snapshot())
        return _WHOLE[key]

    def test_it_says_what_it_is(self, optimizer: Optimizer[Any]) -> None:
        """Name, level, settings; each setting is described."""
        kind, settings = type(optimizer), optimizer.Settings
        assert kind.name
        assert isinstance(kind.access, Access)
        assert kind.__doc__
        assert settings.__dataclass_params__.frozen
        documents = [inspect.getmodule(kind), *settings.__mro__]
        described = "".join(inspect.getdoc(one) or "" for one in documents)
        for field in dataclasses.fields(settings):
            assert field.name in described, f"setting {field.name} is not described"
        with pytest.raises(ConfigError, match=f"unknown name 'nonesuch'.* of '{kind.name}'"):
            kind(nonesuch=1)
        assert kind(**optimizer.as_given()).settings == optimizer.settings

    def test_its_ledger_is_honest_and_within_bounds_at_every_level(
        self, optimizer: Optimizer[Any], tmp_path: Path
    ) -> None:
        """It needs no more than its level, sees the task's images only and ends with scores."""
        looked_at = optimizer.bounds(TASK)
        assert bool(looked_at["llm_calls"]) == optimizer.needs_chat
        for level in [level for level in Access if level >= optimizer.access]:
            box = FakeBox(level)
            outcome, s = run(optimizer, tmp_path / str(level), box, start=False)
            box.agrees_with(s.ledger)
            bounds = received(looked_at, TASK, box)
            if (text := outcome.predictor.text) is not None:
                assert len(text.templates) <= optimizer.ensemble(TASK)
            for currency in BOUNDED:
                assert s.ledger[currency] <= bounds[currency], (str(level), currency)
            assert not outcome.stop_reason.startswith(("budget", "interrupted"))
            shown = {name.split(" (view")[0] for name in box.images}
            assert shown <= {image.name for image in (*TASK.train.images, *TASK.val.images)}
            scores = outcome.predictor.scores(s.search.box, held_out())
            assert scores.shape == (len(held_out()), K)
            assert scores.dtype == np.float32
            assert np.isfinite(scores).all()
            assert outcome.predictor.describe()
            assert "\n" not in outcome.predictor.describe()
            json.dumps([outcome.predictor.soft_prompt, outcome.predictor.head])

    def test_its_predictor_survives_its_state(self, whole: Whole) -> None:
        """What is saved scores as what was found."""
        predictor, box = whole.outcome.predictor, whole.stage.search.box
        tensors, rest = predictor.state()
        assert all(isinstance(array, np.ndarray) for array in tensors.values())
        again = predictor_from_state(tensors, json.loads(json.dumps(rest)))
        before = predictor.scores(box, TASK.val)
        np.testing.assert_allclose(again.scores(box, TASK.val), before, rtol=1e-6)
        assert again.describe() == predictor.describe()

    def test_the_same_seed_ends_the_same(
        self, optimizer: Optimizer[Any], whole: Whole, tmp_path: Path
    ) -> None:
        """Randomness has no other source."""
        random.seed(99)
        np.random.seed(99)
        torch.manual_seed(99)
        whole.is_repeated_in(tmp_path, *run(optimizer, tmp_path))

    @pytest.mark.parametrize("queries", [K, 5 * K + 3])
    def test_a_cap_on_queries_is_kept_and_ends_it_normally(
        self, optimizer: Optimizer[Any], tmp_path: Path, queries: int
    ) -> None:
        """The best so far is left, and not one prompt too many is encoded."""
        box = FakeBox(optimizer.access)
        outcome, s = run(optimizer, tmp_path, box, caps=Caps(queries=queries))
        assert box.asked["text_encodings"] + box.asked["soft_prompt_encodings"] <= queries
        box.agrees_with(s.ledger)
        assert outcome.predictor.state()[0]
        if optimizer.bounds(TASK).queries > 3 * queries:
            assert outcome.stop_reason == "budget: queries"

    def test_a_cap_on_seconds_ends_it_normally(
        self, optimizer: Optimizer[Any], tmp_path: Path
    ) -> None:
        """Each call to the box takes a second here."""
        box, now = FakeBox(optimizer.access), [0.0]

        def tick() -> None:
            now[0] += 1.0

        box.before = tick
        outcome, s = run(optimizer, tmp_path, box, caps=Caps(seconds=4.5), clock=lambda: now[0])
        assert outcome.predictor.state()[0]
        if outcome.stop_reason == "budget: seconds":
            assert s.ledger.seconds() >= 4.5
        else:  # done before
            assert not outcome.stop_reason.startswith("budget")

    @pytest.mark.parametrize("call", [2, 6])
    def test_an_interrupted_run_leaves_the_best_so_far_and_can_be_resumed(
        self, optimizer: Optimizer[Any], whole: Whole, tmp_path: Path, call: int
    ) -> None:
        """As by Ctrl-C; the resumed run ends like an undisturbed one, having spent the same."""
        cut, s = run(optimizer, tmp_path, stop=call)
        assert cut.predictor.state()[0]
        for currency in ("text_encodings", "soft_prompt_encodings"):
            assert s.ledger[currency] <= whole.spent[currency]
        again, s = run(optimizer, tmp_path)
        assert identity(again) == identity(whole.outcome)
        assert not s.journal.diverged
        assert s.ledger.snapshot() == whole.spent

    @pytest.mark.parametrize("call", [3, 7])
    def test_a_killed_run_can_be_resumed(
        self,
        optimizer: Optimizer[Any],
        whole: Whole,
        tmp_path: Path,
        call: int,
    ) -> None:
        """As by ``kill -9`` in the middle of a line of the journal."""
        box = FakeBox(optimizer.access)

        def die() -> None:
            if box.asked["black_box_calls"] == call:
                raise Killed

        box.before = die
        try:
            run(optimizer, tmp_path, box)
        except Killed:
            with (tmp_path / "journal.jsonl").open("ab") as journal:
                journal.write(b'{"at": 1.0, "kind": "sco')
        whole.is_repeated_in(tmp_path, *run(optimizer, tmp_path))

    def test_any_task_will_do(self, optimizer: Optimizer[Any], tmp_path: Path) -> None:
        """One image a class, and no validation images."""
        for shots, val in ((1, 0), (1, 1), (3, 0)):
            task = make_task(shots=shots, val=val, seed=5)
            outcome, s = run(optimizer, tmp_path / f"{shots} {val}", task=task)
            assert outcome.predictor.scores(s.search.box, task.train).shape == (shots * K, K)

    def test_a_model_that_tells_nothing_does_no_harm(
        self, optimizer: Optimizer[Any], tmp_path: Path
    ) -> None:
        """Every prompt has the same scores."""
        outcome, s = run(optimizer, tmp_path, FakeBox(optimizer.access, flat=True))
        assert np.isfinite(outcome.predictor.scores(s.search.box, TASK.train)).all()

    def test_it_says_where_it_stands(self, whole: Whole) -> None:
        """Steps go up, and the best so far is named."""
        steps = [progress.step for progress in whole.stage.told]
        assert steps == sorted(steps)
        for progress in whole.stage.told:
            assert 0 <= progress.step <= progress.steps
            assert progress.best
            assert progress.train_accuracy is None or 0 <= progress.train_accuracy <= 1
