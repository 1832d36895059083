"""What every optimizer must do, whichever it is. A new one is picked up from ``optimizer_names``.

Give it a line in ``SMALL`` if its defaults take more than a second on ten images.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import NAMES, FakeBox, Meter, held_out, make_task, stage
from reach import reachable

from llmopt.errors import ConfigError
from llmopt.language.builtin import BuiltinRewriter
from llmopt.predictor import predictor_from_state
from llmopt.runs.config import RunConfig
from llmopt.search import OPTIMIZERS, forms, make_optimizer
from llmopt.search.base import Optimizer, Outcome
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.task import TestSet
from llmopt.vision.base import Access

SMALL: dict[str, dict[str, Any]] = {
    "chat": {"restarts": 2, "iterations": 2, "pool": 4, "proposals": 3},
    "random": {"evaluations": 12},
    "handcrafted": {"templates": "subset"},
    "craft": {"budget": 102, "head": "bias"},
    "cbbt": {"budget": 102, "adapter": False},
    "zip": {"budget": 66},
    "bbt": {"budget": 102},
    "bptvlm": {"budget": 93, "dim": 20},
    "coop": {"epochs": 3},
}

TASK = make_task(shots=2)
K = len(NAMES)
NAMES_OF_ALL = [n for n in OPTIMIZERS.names() if OPTIMIZERS.get(n).name == n]  # no aliases

every = pytest.mark.parametrize("name", NAMES_OF_ALL)


class Stopped(Exception):
    """Stands in for the end of the process."""


def make(name: str) -> Optimizer[Any]:
    kind = OPTIMIZERS.get(name)
    return make_optimizer(kind.name, SMALL.get(name, {}))


def levels(name: str) -> list[Access]:
    """The access levels an optimizer may meet."""
    return [level for level in Access if level >= OPTIMIZERS.get(name).access]


def run(
    folder: Path, name: str, box: FakeBox | None = None, *, stop: int | None = None, **options: Any
) -> tuple[Outcome, Any]:
    """Run as the engine does, the start scored first; ``stop`` ends it at that call to the box."""
    optimizer = make(name)
    box = box or FakeBox(levels(name)[0])
    chat = BuiltinRewriter(seed=1) if optimizer.needs_chat else None
    with stage(folder, options.pop("task", TASK), box, chat=chat, **options) as s:
        s.search.box.score_templates(s.search.task.train, [s.search.task.start], NAMES)
        if stop is not None:
            box.before = lambda: s.ledger.stop() if box.asked["black_box_calls"] >= stop else None
        return optimizer.run(s.search), s


@dataclasses.dataclass(frozen=True)
class Whole:
    """An undisturbed run, for several tests to look at."""

    folder: Path
    outcome: Outcome
    stage: Any
    spent: dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """A whole run of each optimizer at its lowest level."""

    @cache
    def whole(name: str) -> Whole:
        folder = tmp_path_factory.mktemp(name)
        outcome, s = run(folder, name)
        return Whole(folder, outcome, s, s.ledger.snapshot())

    return whole


def events(folder: Path) -> list[Any]:
    """What a journal tells of a search, times and paid requests aside."""
    records = read_journal(folder / "journal.jsonl")
    return [(r["kind"], r["stream"], r["data"]) for r in records if "key" not in r]


def identity(outcome: Outcome) -> Any:
    """All of an outcome, comparable."""
    tensors, rest = outcome.predictor.state()
    arrays = {name: array.tolist() for name, array in tensors.items()}
    results = [dataclasses.asdict(one) for one in outcome.templates]
    return json.dumps(
        [arrays, rest, results, outcome.fallback, outcome.stop_reason, dict(outcome.summary)],
        sort_keys=True,
    )


@every
def test_it_says_what_it_is(name: str) -> None:
    kind = OPTIMIZERS.get(name)
    assert kind.name == name
    assert isinstance(kind.access, Access)
    assert kind.__doc__
    assert inspect.getdoc(inspect.getmodule(kind))
    settings = kind.Settings
    assert dataclasses.is_dataclass(settings)
    assert settings.__dataclass_params__.frozen
    documents = [inspect.getmodule(kind), *settings.__mro__]
    described = "".join(inspect.getdoc(one) or "" for one in documents)
    for field in dataclasses.fields(settings):
        assert field.name in described, f"{name}: setting {field.name} is not described"


@every
def test_unknown_settings_are_refused(name: str) -> None:
    kind = OPTIMIZERS.get(name)
    with pytest.raises(ConfigError, match=f"unknown name 'nonesuch' in the settings of '{name}'"):
        make_optimizer(kind.name, {"nonesuch": 1})
    profiles = [p for p in forms(name) if p]
    for profile in profiles:
        make_optimizer(kind.name, {"profile": profile})
    if profiles:
        with pytest.raises(ConfigError, match="unknown profile"):
            make_optimizer(kind.name, {"profile": "nonesuch"})
    RunConfig(optimizer=name, settings=SMALL.get(name, {})).to_toml()


@pytest.mark.parametrize(
    ("name", "access"), [(name, level) for name in NAMES_OF_ALL for level in levels(name)]
)
def test_it_ends_with_a_predictor_and_an_honest_ledger(
    tmp_path: Path, name: str, access: Access
) -> None:
    outcome, s = run(tmp_path, name, FakeBox(access))
    Meter(s.box).agrees_with(s.ledger)
    assert not outcome.stop_reason.startswith(("budget", "interrupted"))
    assert s.box.images <= {image.name for image in (*TASK.train.images, *TASK.val.images)}
    scores = outcome.predictor.scores(s.search.box, held_out())
    assert scores.shape == (len(held_out()), K)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert outcome.predictor.describe()
    assert "\n" not in outcome.predictor.describe()
    json.dumps([outcome.predictor.soft_prompt, outcome.predictor.head, dict(outcome.summary)])


@every
def test_the_bounds_hold(tmp_path: Path, name: str) -> None:
    bounds = make(name).bounds(TASK)
    for level in levels(name):
        _, s = run(tmp_path / str(level), name, FakeBox(level))
        for currency in ("image_encodings", "text_encodings", "soft_prompt_encodings",
                         "pairs_scored", "llm_calls"):  # fmt: skip
            assert s.ledger[currency] <= bounds[currency], (str(level), currency)
    assert bool(bounds["llm_calls"]) == OPTIMIZERS.get(name).needs_chat


@every
def test_its_predictor_survives_its_state(undisturbed: Callable[[str], Whole], name: str) -> None:
    outcome, s = undisturbed(name).outcome, undisturbed(name).stage
    tensors, rest = outcome.predictor.state()
    assert all(isinstance(array, np.ndarray) for array in tensors.values())
    again = predictor_from_state(tensors, json.loads(json.dumps(rest)))
    before = outcome.predictor.scores(s.search.box, TASK.val)
    np.testing.assert_allclose(again.scores(s.search.box, TASK.val), before, rtol=1e-6)
    assert again.describe() == outcome.predictor.describe()


@every
def test_the_same_seed_ends_the_same_and_randomness_has_no_other_source(
    tmp_path: Path, undisturbed: Callable[[str], Whole], name: str
) -> None:
    first = undisturbed(name).outcome
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    second, _ = run(tmp_path, name)
    assert identity(first) == identity(second)
    other, s = run(tmp_path / "other", name, seed=2, task=make_task(shots=2, seed=2))
    if s.search.task.train.digest != TASK.train.digest and name != "zeroshot":
        assert identity(other) != identity(first)


@every
@pytest.mark.parametrize("queries", [K, K + 1, 5 * K + 3, 11 * K])
def test_a_cap_on_queries_is_kept_and_ends_it_normally(
    tmp_path: Path, name: str, queries: int
) -> None:
    outcome, s = run(tmp_path, name, caps=Caps(queries=queries))
    spent = s.box.asked["text_encodings"] + s.box.asked["soft_prompt_encodings"]
    assert spent == s.ledger["text_encodings"] + s.ledger["soft_prompt_encodings"] <= queries
    Meter(s.box).agrees_with(s.ledger)
    tensors, _ = outcome.predictor.state()
    assert tensors
    wanted = make(name).bounds(TASK)
    if wanted.queries > 3 * queries:
        assert outcome.stop_reason == "budget: queries"


@every
def test_a_cap_on_seconds_ends_it_normally(tmp_path: Path, name: str) -> None:
    now = [0.0]
    box = FakeBox(levels(name)[0])

    def tick() -> None:
        now[0] += 1.0

    box.before = tick
    outcome, s = run(tmp_path, name, box, caps=Caps(seconds=4.5), clock=lambda: now[0])
    assert outcome.predictor.state()[0]
    if outcome.stop_reason == "budget: seconds":
        assert s.ledger.seconds() >= 4.5
    else:  # done before
        assert not outcome.stop_reason.startswith("budget")


@every
@pytest.mark.parametrize("stop", [2, 3, 6])
def test_an_interrupt_leaves_the_best_so_far_and_can_be_gone_on_from(
    tmp_path: Path, undisturbed: Callable[[str], Whole], name: str, stop: int
) -> None:
    whole = undisturbed(name)
    cut, s = run(tmp_path, name, stop=stop)
    assert cut.predictor.state()[0]
    for currency in ("text_encodings", "soft_prompt_encodings"):
        assert s.ledger[currency] <= whole.spent[currency]
    again, s = run(tmp_path, name)
    assert identity(again) == identity(whole.outcome)
    assert not s.journal.diverged
    assert s.ledger.snapshot() == whole.spent


@every
@pytest.mark.parametrize("call", [2, 4, 7])
def test_a_process_that_dies_can_be_gone_on_from(
    tmp_path: Path, undisturbed: Callable[[str], Whole], name: str, call: int
) -> None:
    whole = undisturbed(name)
    box = FakeBox(levels(name)[0])

    def die() -> None:
        if box.asked["black_box_calls"] == call:
            raise Stopped

    box.before = die
    try:
        run(tmp_path, name, box)
    except Stopped:
        with (tmp_path / "journal.jsonl").open("ab") as journal:
            journal.write(b'{"at": 1.0, "kind": "sco')
    again, s = run(tmp_path, name)
    assert identity(again) == identity(whole.outcome)
    assert not s.journal.diverged
    assert s.ledger.snapshot() == whole.spent
    assert events(tmp_path) == events(whole.folder)


@every
@pytest.mark.parametrize(("shots", "val"), [(1, 0), (1, 1), (3, 0)])
def test_any_task_will_do(tmp_path: Path, name: str, shots: int, val: int) -> None:
    task = make_task(shots=shots, val=val, seed=5)
    outcome, s = run(tmp_path, name, task=task)
    assert outcome.predictor.scores(s.search.box, task.train).shape == (shots * K, K)


@every
def test_a_world_where_all_is_equal_leaves_the_start_or_no_harm(tmp_path: Path, name: str) -> None:
    outcome, s = run(tmp_path, name, FakeBox(levels(name)[0], flat=True))
    assert np.isfinite(outcome.predictor.scores(s.search.box, TASK.train)).all()


@every
def test_it_never_holds_a_test_image(undisturbed: Callable[[str], Whole], name: str) -> None:
    whole = undisturbed(name)
    found = reachable([whole.stage.search, whole.outcome])
    assert not any(isinstance(thing, TestSet) for thing in found)


@every
def test_it_says_where_it_stands(undisturbed: Callable[[str], Whole], name: str) -> None:
    told = undisturbed(name).stage.told
    steps = [p.step for p in told]
    assert steps == sorted(steps)
    for progress in told:
        assert 0 <= progress.step <= progress.steps
        assert progress.best
        assert progress.train_accuracy is None or 0 <= progress.train_accuracy <= 1
