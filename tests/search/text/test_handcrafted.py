from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmopt.data.benchmarks.handcrafted import templates_for
from llmopt.errors import ConfigError
from llmopt.predictor import TextPredictor
from llmopt.resources import read_lines
from llmopt.search.text.handcrafted import Handcrafted, HandcraftedSettings
from llmopt.search.text.zeroshot import ZeroShot, ZeroShotSettings
from llmopt.spend.ledger import Caps
from llmopt.template import PLAIN
from llmopt.testing.world import NAMES, FakeBox, make_task, stage
from llmopt.vision.base import Access

TASK = make_task(shots=2)
K = len(NAMES)
OWN = "a photo of a {}, a type of shape."


def found(tmp_path: Path, access: Access = Access.FEATURES, **settings: str):  # type: ignore[no-untyped-def]
    with stage(tmp_path, TASK, FakeBox(access)) as s:
        outcome = Handcrafted(HandcraftedSettings(**settings)).run(s.search)
        bounds = Handcrafted(HandcraftedSettings(**settings)).bounds(TASK)
        if access >= Access.FEATURES:
            assert s.ledger["text_encodings"] <= bounds["text_encodings"]
        return outcome, s


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        ("dataset", [OWN]),
        ("generic", read_lines("templates/generic.txt")),
        ("subset", [OWN, *read_lines("templates/clip_subset.txt")]),
        ("openai", [template.text for template in templates_for("imagenet", "openai")]),
    ],
)
def test_ensembles_are_even_and_of_the_whole_list(
    tmp_path: Path, templates: str, expected: list[str]
) -> None:
    outcome, _ = found(tmp_path, templates=templates)
    predictor = outcome.predictor
    assert isinstance(predictor, TextPredictor)
    assert [t.text for t in predictor.templates] == expected
    assert predictor.weights == pytest.approx([1 / len(expected)] * len(expected))
    assert not outcome.fallback


def test_results_list_the_members_with_their_weights(tmp_path: Path) -> None:
    outcome, _ = found(tmp_path, templates="subset")
    weights = {t.text: t.weight for t in outcome.templates if t.weight > 0}
    members = [t.text for t in outcome.predictor.templates]
    assert weights == pytest.approx(dict.fromkeys(members, 1 / len(members)))


def test_the_best_is_chosen_on_the_few_shots(tmp_path: Path) -> None:
    outcome, _ = found(tmp_path, templates="subset", mode="best")
    assert outcome.predictor.describe() == "a photo of the small {}."
    assert outcome.templates[0].train_accuracy == 1.0


def test_a_box_of_scores_averages_scores(tmp_path: Path) -> None:
    outcome, s = found(tmp_path, Access.SCORES, templates="subset")
    scores = outcome.predictor.scores(s.search.box, TASK.train)
    each = s.search.box.score_templates(TASK.train, outcome.predictor.templates, NAMES)
    np.testing.assert_allclose(scores, each.mean(axis=0), rtol=1e-5)


def test_a_budget_for_less_than_the_list_ends_with_one_template(tmp_path: Path) -> None:
    with stage(tmp_path, TASK, caps=Caps(queries=3 * K)) as s:
        outcome = Handcrafted(HandcraftedSettings(templates="generic")).run(s.search)
        assert s.ledger["text_encodings"] == 3 * K
    assert outcome.stop_reason == "budget: queries"
    assert len(outcome.predictor.templates) == 1


def test_an_interrupt_is_called_one(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        s.search.box.score_templates(TASK.train, [TASK.start], NAMES)
        s.ledger.stop()
        outcome = Handcrafted(HandcraftedSettings(templates="generic")).run(s.search)
    assert outcome.stop_reason == "interrupted"


@pytest.mark.parametrize("wrong", [{"templates": "nice"}, {"mode": "worst"}])
def test_wrong_settings(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        HandcraftedSettings(**wrong)


def test_zeroshot_is_the_start_and_costs_one_template(tmp_path: Path) -> None:
    with stage(tmp_path, TASK) as s:
        outcome = ZeroShot(ZeroShotSettings()).run(s.search)
        assert s.ledger["text_encodings"] == s.box.asked["text_encodings"] == K
    assert outcome.predictor.describe() == PLAIN
    assert not outcome.fallback
    assert [t.text for t in outcome.templates] == [PLAIN]
    assert outcome.templates[0].val_accuracy is not None
