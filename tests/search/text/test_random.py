from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmopt.errors import ConfigError
from llmopt.resources import read_lines
from llmopt.search.text.chat import Chat
from llmopt.search.text.climbing import ChatSettings
from llmopt.search.text.random import Random, RandomSettings, draw_template
from llmopt.sentences import Sentence, vocabulary
from llmopt.spend.ledger import Caps
from llmopt.template import PLAIN, Template
from llmopt.testing.world import NAMES, FakeBox, make_task, stage

TASK = make_task(shots=2)
K = len(NAMES)


def test_draws_are_captions_and_sentences_of_the_vocabulary_in_equal_parts() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_template(rng) for _ in range(400)]
    captions = set(read_lines("templates/captions.txt"))
    own = [t for t in drawn if t.text not in captions]
    assert 150 < len(own) < 250
    phrases = vocabulary()
    for template in own:
        parsed = Sentence.parse(template.text)
        assert parsed.frame in ("", *phrases["frame"])
        assert parsed.after in ("", *phrases["after"])
        assert parsed.tail in ("", *phrases["tail"])
        assert len(parsed.before) <= 2
    assert len({t.text for t in drawn}) > 300


def test_draws_follow_the_seed() -> None:
    def some(seed: int) -> list[Template]:
        rng = np.random.default_rng(seed)
        return [draw_template(rng) for _ in range(20)]

    assert some(1) == some(1) != some(2)


@pytest.mark.parametrize("evaluations", [1, 2, 40])
def test_exactly_so_many_templates_are_scored(tmp_path: Path, evaluations: int) -> None:
    with stage(tmp_path, TASK) as s:
        outcome = Random(RandomSettings(evaluations=evaluations)).run(s.search)
        assert s.ledger["text_encodings"] == s.box.asked["text_encodings"] == evaluations * K
    assert outcome.stop_reason == "evaluations"
    assert f"a photo of a {NAMES[0]}." in s.box.prompts


def test_it_finds_the_planted_word_when_it_meets_it(tmp_path: Path) -> None:
    found = []
    for seed in range(4):
        with stage(tmp_path / str(seed), TASK, seed=seed) as s:
            outcome = Random(RandomSettings(evaluations=200)).run(s.search)
            found.append(outcome.templates[0].text)
            best = max(s.told, key=lambda p: p.score).best
            assert {t.text for t in outcome.templates} >= {PLAIN, best}
    assert any(set(text.split()) & {"small", "tiny", "little"} for text in found)


def test_a_cap_ends_it_with_the_best_so_far(tmp_path: Path) -> None:
    with stage(tmp_path, TASK, caps=Caps(queries=12 * K + 2)) as s:
        outcome = Random(RandomSettings()).run(s.search)
        assert s.ledger["text_encodings"] == 12 * K
    assert outcome.stop_reason == "budget: queries"
    assert outcome.predictor.state()[1]["kind"] == "text"


def test_the_default_is_what_chat_may_score() -> None:
    alone = make_task(shots=2, val=0)
    chat = Chat(ChatSettings()).bounds(alone)
    assert Random(RandomSettings()).bounds(alone)["text_encodings"] == chat["text_encodings"]
    assert RandomSettings().evaluations == chat["text_encodings"] // K


@pytest.mark.parametrize("wrong", [{"evaluations": 0}, {"finalists": 0}, {"fitness": "luck"}])
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RandomSettings(**wrong)  # type: ignore[arg-type]


def test_a_world_where_all_is_equal(tmp_path: Path) -> None:
    with stage(tmp_path, TASK, FakeBox(flat=True)) as s:
        outcome = Random(RandomSettings(evaluations=20)).run(s.search)
    assert outcome.fallback
    assert outcome.predictor.describe() == PLAIN
