from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmopt.errors import BudgetExhausted
from llmopt.search.text.archive import Archive, Scored, coarse
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.stats import log_likelihoods
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox, make_task, stage
from llmopt.vision.base import Access

TASK = make_task(shots=2)
K = len(NAMES)


def templates(*texts: str) -> list[Template]:
    return [Template(text) for text in texts]


SOME = templates("a photo of a {}.", "a small {}.", "a large {}.", "itap of a {}.")


def test_scores_are_of_the_training_images(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        scored = Archive(s.search).score(SOME)
        logits = FakeBox().scores(TASK.train.images, SOME[1].fill_all(NAMES))
        assert [one.template for one in scored] == SOME
        small = scored[1]
        np.testing.assert_allclose(small.likelihoods, log_likelihoods(logits, TASK.train.labels))
        assert small.predicted.tolist() == logits.argmax(axis=1).tolist()
        assert small.accuracy == (logits.argmax(axis=1) == TASK.train.labels).mean() == 1.0
        assert small.logprob == pytest.approx(small.likelihoods.mean())
        assert small.fitness == small.score == coarse(small.logprob)
        assert s.box.images == {image.name for image in TASK.train.images}


def test_the_planted_template_wins_and_its_opposite_loses(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        archive = Archive(s.search)
        archive.score(SOME)
        ranked = [one.template.text for one in archive.ranked()]
        assert (ranked[0], ranked[-1]) == ("a small {}.", "a large {}.")
        assert archive.best().template.text == "a small {}."
        assert len(archive) == 4
        assert archive.find(Template("A SMALL {}.")) is archive.best()
        assert archive.find(Template("a tiny {}.")) is None


def test_fitness_may_be_accuracy_with_likelihood_breaking_ties(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        archive = Archive(s.search, fitness="accuracy")
        archive.score(templates("a small small {}.", "a small {}.", "a tiny small {}."))
        ranked = archive.ranked()
        assert {one.fitness for one in ranked} == {1.0}
        assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)


def test_among_equals_the_shortest_stands_first_then_the_earliest(tmp_path: Path) -> None:
    with stage(tmp_path, TASK, FakeBox(flat=True)) as s:
        archive = Archive(s.search)
        given = templates("a photo of a {}.", "a small {}.", "a large {}.", "a {}.")
        archive.score(given[:2])
        archive.score(given[2:])
        assert [one.template for one in archive.ranked()] == [given[i] for i in (3, 1, 2, 0)]
        assert len({one.fitness for one in archive.ranked()}) == 1


@pytest.mark.parametrize(
    ("logprob", "score"),
    [(-3.14159, -3.14), (-0.5, -0.5), (-0.09876, -0.099), (-0.00123456, -0.0012), (-1e-9, 0.0)],
)
def test_scores_are_as_coarse_as_every_processor_can_promise(logprob: float, score: float) -> None:
    assert coarse(logprob) == score
    assert str(coarse(logprob)).count("e") == 0
    assert coarse(logprob + 1e-7) == score


def test_fresh_leaves_out_what_was_tried_what_repeats_and_what_is_too_long(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        archive = Archive(s.search)
        archive.score(SOME[:1])
        offered = templates(
            "a  PHOTO of a {}.", "a small {}.", "A small {}.", "very " * 30 + "{}.", "the {}."
        )
        assert archive.fresh(offered) == templates("a small {}.", "the {}.")
        assert archive.fresh([]) == []


def test_scoring_nothing_costs_nothing(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        assert Archive(s.search).score([]) == []
        assert not s.box.asked
    assert list(read_journal(tmp_path / "journal.jsonl")) == []


@pytest.mark.parametrize("affordable", range(5))
@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
def test_a_cap_keeps_what_it_paid_for(tmp_path: Path, access: Access, affordable: int) -> None:
    caps = Caps(queries=affordable * K + K - 1)
    with stage(tmp_path, TASK, FakeBox(access), caps=caps) as s:
        archive = Archive(s.search)
        if affordable >= 4:
            archive.score(SOME)
        else:
            with pytest.raises(BudgetExhausted):
                archive.score(SOME)
        assert [archive.find(t) is not None for t in SOME] == [
            i < affordable for i in range(len(SOME))
        ]
        assert s.ledger["text_encodings"] == affordable * K


def test_scores_are_journaled_in_their_stream(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        Archive(s.search, "restart-2").score(SOME[:2])
    (record,) = read_journal(tmp_path / "journal.jsonl")
    assert (record["kind"], record["stream"]) == ("scored", "restart-2")
    assert [one["text"] for one in record["data"]["templates"]] == [t.text for t in SOME[:2]]


def test_evaluate_needs_no_search() -> None:
    logits = np.array([[2.0, 0, 0, 0, 0]] * len(TASK.train), dtype=np.float32)
    one = Scored.of(SOME[0], logits, TASK.train, "accuracy")
    assert one.accuracy == one.fitness == 0.2
    assert one.predicted.tolist() == [0] * len(TASK.train)
