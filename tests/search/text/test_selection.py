"""The final choice: convincing or the start, simple rather than lucky, and blind to test images."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from llmopt.errors import BudgetExhausted
from llmopt.search.base import LANGUAGE_MODEL, Search
from llmopt.search.text.archive import Scored
from llmopt.search.text.chat import Chat
from llmopt.search.text.selection import FINALISTS, Choice, as_good, choose, greedy_ensemble
from llmopt.spend.ledger import Ledger
from llmopt.stats import log_likelihoods
from llmopt.task import FewShot, Labelled, Task
from llmopt.template import PLAIN, Template
from llmopt.testing.world import NAMES, make_task

K = len(NAMES)
Margins = Callable[[int, str], float]


class Written:
    """A metered box whose scores are written down.

    ``margins[text](i, split)`` is by how much the true class of image i leads (negative: trails).
    """

    def __init__(self, margins: dict[str, Margins], val_paid: bool = True) -> None:
        self.margins, self.val_paid = margins, val_paid
        self.asked: list[tuple[str, int]] = []

    def score_templates(
        self, images: Labelled, templates: Any, classnames: Any, reduce: Any = None
    ) -> Any:
        split = images.images[0].name.partition("/")[0]
        self.asked.append((split, len(templates)))
        if split == "val" and not self.val_paid:
            raise BudgetExhausted("queries", 0)
        scores = np.zeros((len(templates), len(images), K), dtype=np.float32)
        for j, template in enumerate(templates):
            for i, label in enumerate(images.labels.tolist()):
                scores[j, i, label] = self.margins[template.text](i, split)
        return scores if reduce is None else reduce(scores, images.labels)


def run(
    margins: dict[str, Margins],
    shots: int = 4,
    val: int | None = None,
    val_paid: bool = True,
    **options: Any,
) -> tuple[Choice, Written]:
    task = make_task(shots=shots, val=val)
    box = Written({PLAIN: lambda i, split: 0.5, **margins}, val_paid)
    search = Search(
        task, box, None, 1, journal=None, ledger=None, checkpoints=None  # type: ignore[arg-type]
    )  # fmt: skip
    candidates = [scored(box, text, task) for text in margins]
    candidates.sort(key=lambda one: -one.fitness)
    box.asked.clear()
    return choose(search, candidates, **options), box


def scored(box: Written, text: str, task: Task) -> Scored:
    template = Template(text)
    return Scored.of(template, box.score_templates(task.train, [template], NAMES)[0], task.train)


def texts(choice: Choice) -> list[str]:
    return [t.text for t in choice.predictor.templates]


def better(i: int, split: str) -> float:
    return 3.0 + 0.1 * (i % 3)


def test_what_is_better_everywhere_is_taken() -> None:
    choice, _ = run({"a small {}.": better})
    assert texts(choice) == ["a small {}."]
    assert not choice.fallback
    assert [t.text for t in choice.templates] == ["a small {}.", PLAIN]
    assert [t.weight for t in choice.templates] == [1.0, 0.0]
    assert choice.templates[0].train_logprob > choice.templates[1].train_logprob
    assert choice.predictor.classnames == NAMES


@pytest.mark.parametrize(
    "margins",
    [
        pytest.param(lambda i, split: 0.5, id="equal"),
        pytest.param(lambda i, split: 0.2, id="worse"),
        pytest.param(lambda i, split: 9.0 if i == 0 else 0.45, id="one lucky image"),
        pytest.param(lambda i, split: 2.5 if split == "train" else -2.5, id="on train only"),
        pytest.param(lambda i, split: 3.0 if i % 2 else -1.8, id="as often worse as better"),
    ],
)
def test_what_does_not_convince_leaves_the_start(margins: Margins) -> None:
    choice, _ = run({"a lucky {}.": margins})
    assert choice.fallback
    assert texts(choice) == [PLAIN]
    assert choice.templates[0].text == PLAIN
    assert choice.templates[0].weight == 1.0


def test_likelier_but_less_accurate_is_no_gain() -> None:
    def confident(i: int, split: str) -> float:
        return -0.01 if i == 0 else 5.0

    choice, _ = run({"a sure {}.": confident})
    assert choice.fallback
    choice, _ = run({"a sure {}.": lambda i, split: max(confident(i, split), 0.4)})
    assert not choice.fallback


@pytest.mark.parametrize("lead", [2.0, 1.0])
def test_what_was_known_is_replaced_as_the_start_would_be(lead: float) -> None:
    """Likelier than the start is not enough beside what is known to be better than that."""
    known, new = Template("a small {}."), Template("a tiny {}.")
    margins = {known.text: lambda i, split: 0.9, new.text: lambda i, split: lead + 0.3 * (i % 4)}
    choice, _ = run(margins, known=known)
    assert texts(choice) == [new.text]
    assert not choice.fallback
    margins[known.text] = better
    choice, _ = run(margins, known=known)
    assert texts(choice) == [known.text]
    assert choice.fallback
    assert {t.text for t in choice.templates} == {known.text, new.text}


@pytest.mark.parametrize(("lead", "taken"), [(6.0, "the model's"), (1.5, "the probes'")])
def test_what_a_conversation_brings_has_to_convince_beside_the_probes(
    lead: float, taken: str
) -> None:
    """A little likelier on the few shots is luck, of many that were tried."""
    texts_of = {"the probes'": "a small {}.", "the model's": "a tiny {} here."}

    def lucky(i: int, split: str) -> float:
        return lead if i % 3 else 1.2

    known, new = texts_of.values()
    task = make_task(shots=4)
    box = Written({PLAIN: lambda i, split: 0.5, known: lambda i, split: 1.45, new: lucky})
    search = Search(
        task, box, None, 1, journal=None, ledger=Ledger(), checkpoints=None  # type: ignore[arg-type]
    )  # fmt: skip
    opened = [scored(box, text, task) for text in (known, PLAIN)]
    found = [scored(box, new, task), *opened]
    outcome = Chat(polish=False)._choose(search, found, opened, Counter(calls=1), "iterations")
    assert outcome.before is not None
    assert outcome.before.text is not None
    assert outcome.before.text.templates[0].text == known
    assert outcome.predictor.text is not None
    assert outcome.predictor.text.templates[0].text == texts_of[taken]
    assert (outcome.source == LANGUAGE_MODEL) is (taken == "the model's")
    assert {t.text for t in outcome.templates} == {known, new, PLAIN}
    assert (new in {t.text for t in outcome.front}) is (taken == "the model's")


def test_finalists_of_two_choices_are_listed_once() -> None:
    first, _ = run({"a small {}.": better, "a {} at rest.": lambda i, split: 0.5})
    second, _ = run({"a small {}.": better, "a tiny {}.": better}, known=Template("a small {}."))
    assert [(t.text, t.weight) for t in first.beside(second).templates] == [
        *((t.text, t.weight) for t in first.templates),
        ("a tiny {}.", 0.0),
    ]


def test_nothing_to_choose_from() -> None:
    choice, box = run({})
    assert texts(choice) == [PLAIN]
    assert choice.fallback
    assert [t.text for t in choice.templates] == [PLAIN]
    assert box.asked == [("train", 1), ("val", 1)]


def test_a_single_candidate_and_few_images() -> None:
    choice, _ = run({"a small {}.": better}, shots=1, val=0)
    assert texts(choice) == ["a small {}."]


def test_one_image_in_all() -> None:
    task = make_task(shots=1, val=0)
    task = dataclasses.replace(task, train=FewShot(task.train.images[:1], task.train.labels[:1]))
    box = Written({PLAIN: lambda i, split: 0.5, "a small {}.": better})
    search = Search(
        task, box, None, 1, journal=None, ledger=None, checkpoints=None  # type: ignore[arg-type]
    )  # fmt: skip
    choice = choose(search, [scored(box, "a small {}.", task)])
    assert len(texts(choice)) == 1
    assert all(np.isfinite(t.train_logprob) for t in choice.templates)


def test_without_validation_images_training_images_decide() -> None:
    choice, box = run({"a small {}.": better}, val=0)
    assert texts(choice) == ["a small {}."]
    assert [t.val_accuracy for t in choice.templates] == [None, None]
    assert {split for split, _ in box.asked} == {"train"}


def test_validation_images_that_cannot_be_paid_for_do_not_count() -> None:
    choice, _ = run({"a small {}.": better}, val_paid=False)
    assert texts(choice) == ["a small {}."]
    assert [t.val_accuracy for t in choice.templates] == [None, None]


def test_validation_images_take_part() -> None:
    overfit = {"a lucky {}.": lambda i, split: 6.0 if split == "train" else -1.0}
    choice, _ = run({"a small {}.": better, **overfit})
    assert texts(choice) == ["a small {}."]
    by_text = {t.text: t for t in choice.templates}
    assert by_text["a lucky {}."].train_accuracy == 1.0
    assert by_text["a lucky {}."].val_accuracy == 0.0
    assert by_text["a small {}."].val_accuracy == 1.0


def test_only_finalists_are_looked_at_again() -> None:
    many = {f"a {n} small {{}}.": (lambda i, s, n=n: 1.0 + n / 10) for n in range(20)}
    choice, box = run(many)
    assert box.asked == [("train", FINALISTS + 1), ("val", FINALISTS + 1)]
    assert len(choice.templates) == FINALISTS + 1
    choice, box = run(many, finalists=2)
    assert box.asked == [("train", 3), ("val", 3)]


def test_the_start_among_the_candidates_is_not_looked_at_twice() -> None:
    choice, box = run({"a small {}.": better, PLAIN: lambda i, split: 0.5})
    assert box.asked[0] == ("train", 2)
    assert [t.text for t in choice.templates] == ["a small {}.", PLAIN]


def test_of_equals_the_shortest_is_taken_and_of_those_always_the_same() -> None:
    same = {
        "a grainy photo of a small {} on the left.": better,
        "a small {}.": better,
        "a tiny {}.": better,
    }
    first, _ = run(same)
    assert texts(first) in (["a small {}."], ["a tiny {}."])
    for _ in range(3):
        assert texts(run(same)[0]) == texts(first)


def test_a_little_worse_is_good_enough_if_shorter_but_not_much_worse() -> None:
    long = "a grainy photo of a small {} on the left."
    little = {long: better, "a small {}.": lambda i, s: better(i, s) - 0.1}
    assert texts(run(little)[0]) == ["a small {}."]
    much = {long: better, "a small {}.": lambda i, s: better(i, s) - 1.5}
    assert texts(run(much)[0]) == [long]


def test_as_good() -> None:
    start, best = np.full(8, -2.0), np.full(8, -1.0)
    assert as_good(best, best, start)
    assert as_good(best - 0.19, best, start)
    assert not as_good(best - 0.21, best, start)
    wobbly = best - 0.3 + np.tile([-1.0, 1.0], 4)
    assert as_good(wobbly, best, start)


# ------------------------------------------------------------------------------- the ensemble


def random_logits(seed: int, members: int = 4, images: int = 30) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, images)
    logits = rng.normal(size=(members, images, K))
    logits[..., np.arange(images), labels] += 0.8
    return logits.astype(np.float32), labels


def value(logits: npt.NDArray[Any], labels: Any, weights: dict[int, float]) -> float:
    mixed = sum(weight * logits[j].astype(np.float64) for j, weight in weights.items())
    return float(log_likelihoods(mixed, labels).mean())


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_the_best_pairs(seed: int) -> None:
    logits, labels = random_logits(seed)
    found = greedy_ensemble(logits, labels, first=0, size=2)
    best = max(
        [{0: 1.0}, *({0: 0.5, j: 0.5} for j in range(1, 4))],
        key=lambda weights: value(logits, labels, weights),
    )
    assert found == best


@pytest.mark.parametrize(("seed", "size"), list(itertools.product(range(5), (1, 3, 8))))
def test_members_only_join_if_they_help(seed: int, size: int) -> None:
    logits, labels = random_logits(seed)
    weights = greedy_ensemble(logits, labels, first=2, size=size)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert 2 in weights
    assert all(weight > 0 for weight in weights.values())
    assert all(float(w * size).is_integer() or size > 1 for w in weights.values())
    assert value(logits, labels, weights) >= value(logits, labels, {2: 1.0})


def test_copies_of_the_first_add_nothing() -> None:
    logits, labels = random_logits(0, members=1)
    assert greedy_ensemble(np.repeat(logits, 5, axis=0), labels, 3, 8) == {3: 1.0}


def test_an_ensemble_of_complements() -> None:
    halves = {
        "a small {}.": lambda i, split: 6.0 if i % 2 else 1.0,
        "a tiny {}.": lambda i, split: 1.0 if i % 2 else 6.0,
    }
    choice, _ = run(halves, ensemble=4)
    assert set(texts(choice)) == set(halves)
    assert sum(choice.predictor.weights) == pytest.approx(1.0)
    weights = {t.text: t.weight for t in choice.templates}
    assert weights == {
        **dict(zip(texts(choice), choice.predictor.weights, strict=True)),
        PLAIN: weights[PLAIN],
    }
    alone, _ = run(halves)
    assert len(texts(alone)) == 1


def test_no_ensemble_where_the_start_is_kept() -> None:
    choice, _ = run({"a lucky {}.": lambda i, split: 0.5}, ensemble=4)
    assert texts(choice) == [PLAIN]
