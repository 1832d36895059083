"""Hill climbing with a chat model: what it says, what it does with any answer, how it ends."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import scripted
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from reach import reachable

from llmopt.errors import ConfigError, ContentRefused, ContextOverflow, ServiceError
from llmopt.language.builtin import BuiltinRewriter
from llmopt.resources import read_lines
from llmopt.search import make_optimizer
from llmopt.search.base import Outcome
from llmopt.search.text.chat import Chat, draw_pool
from llmopt.search.text.climbing import ChatSettings
from llmopt.search.text.polishing import polish
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.task import TestSet
from llmopt.template import PLAIN, Template
from llmopt.testing.world import NAMES, FakeBox, make_task, stage
from llmopt.vision.base import Access

TASK = make_task(shots=2)


@pytest.fixture(autouse=True)
def every_turn_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done with replies is looked at here, not when there are enough (test_policy.py)."""
    monkeypatch.setattr("llmopt.search.text.climbing.nothing_left", lambda best: False)
    monkeypatch.setattr("llmopt.search.text.climbing.next_purpose", lambda *known: "explore")


K = len(NAMES)
REFUSED = ContentRefused("test:model: refuses the content")
TOO_LONG = ContextOverflow("test:model: the conversation is too long for the model")


def chat(**settings: Any) -> Chat:
    small = {
        "probes": 0,
        "restarts": 1,
        "iterations": 3,
        "pool": 6,
        "proposals": 3,
        "k": 2,
        "polish": False,
    }
    return make_optimizer("chat", {**small, **settings})


def run(folder: Path, model: Any, optimizer: Chat, **options: Any) -> tuple[Outcome, Any]:
    with stage(folder, options.pop("task", TASK), chat=model, **options) as s:
        return optimizer.run(s.search), s


def said(messages: list[Any]) -> str:
    return "\n".join(str(m.content) for m in messages)


def numbered(prefix: str = "a very") -> Callable[[list[Any]], str]:
    """New useless templates for ever."""
    count = itertools.count()
    return lambda messages: f"- {prefix} {next(count)} {{}}."


# ------------------------------------------------------------------------------- the good case


def test_it_climbs_to_the_planted_word(tmp_path: Path) -> None:
    model = scripted("- a large {}.\n- a tiny {}.", "- a small {}.", then=numbered())
    outcome, s = run(tmp_path, model, chat())
    assert outcome.predictor.describe() == "a small {}."
    assert not outcome.fallback
    assert outcome.stop_reason == "iterations"
    assert outcome.templates[0].train_accuracy == 1.0
    assert s.ledger["llm_calls"] == len(model.heard) == 3
    assert s.ledger["text_encodings"] == s.box.asked["text_encodings"] == K * (6 + 4)
    assert [p.best for p in s.told][-1] == "a small {}."
    assert s.told[-1].val_accuracy is not None


def test_the_built_in_rewriter_finds_it_too(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, BuiltinRewriter(seed=1), Chat(ChatSettings()))
    words = set(outcome.predictor.describe().replace(".", "").split())
    assert words & {"small", "tiny", "little"}
    assert outcome.templates[0].train_accuracy > 0.9


def test_every_turn_shows_what_became_of_the_last(tmp_path: Path) -> None:
    model = scripted(
        "- a small {}.\n- a photo of a {}.\n- a {} and {}\n- a ring {}.", then=numbered()
    )
    _, s = run(tmp_path, model, chat())
    first, second, third = model.heard
    assert [type(m) for m in first] == [SystemMessage, HumanMessage]
    assert [type(m) for m in second] == [SystemMessage, HumanMessage, AIMessage, HumanMessage]
    assert len(third) == 6
    assert second[:2] == first
    asked = str(second[-1].content)
    small = s.search.box.score_templates(TASK.train, [Template("a small {}.")], NAMES)
    assert small.shape[1] == len(TASK.train)
    assert "Your last templates, best first, each with its change against the best" in asked
    assert re.search(
        r"\n- a small \{\}\. \(score -[\d.]+, accuracy 100.0%, \+[\d.]+ ± [\d.]+\)", asked
    )
    assert "tried before: a photo of a {}." in asked
    assert "* a {} and {}: " in asked
    assert "* a ring {}.: " in asked
    assert 'The best of them, "a small {}.", wins ' in asked
    assert "Write 3 new templates" in str(first[-1].content)


def test_confused_classes_are_named(tmp_path: Path) -> None:
    model = scripted(then=numbered())
    run(tmp_path, model, chat(confusions=2), task=make_task(shots=8))
    first = str(model.heard[0][-1].content)
    assert "The classes it confuses most:" in first
    assert len(re.findall(r" is taken for [\w ]+ \([2-9] images\)", first)) == 2
    model = scripted(then=numbered())
    run(tmp_path / "none", model, chat(confusions=0))
    assert "is taken for" not in said(model.heard[0])


# ------------------------------------------------------------------------------ small and equal


@pytest.mark.parametrize("pool", [1, 2, 3, 5])
def test_a_pool_smaller_than_both_lists(tmp_path: Path, pool: int) -> None:
    model = scripted("- a small {}.", then=numbered())
    outcome, _ = run(tmp_path, model, chat(pool=pool, k=6, iterations=3, restarts=1))
    assert outcome.stop_reason == "iterations"
    listed = [row for row in str(model.heard[0][-1].content).splitlines() if row.startswith("- ")]
    assert 1 <= len(listed) == len(set(listed)) <= pool + 2


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
def test_a_world_where_all_is_equal(tmp_path: Path, access: Access) -> None:
    model = scripted(then=numbered())
    outcome, _ = run(tmp_path, model, chat(polish=True, ensemble=4), box=FakeBox(access, flat=True))
    assert outcome.fallback
    assert outcome.predictor.describe() == PLAIN
    assert outcome.stop_reason == "iterations"


def test_no_validation_images(tmp_path: Path) -> None:
    model = scripted("- a small {}.", then=numbered())
    outcome, s = run(tmp_path, model, chat(), task=make_task(shots=2, val=0))
    assert outcome.predictor.describe() == "a small {}."
    assert outcome.templates[0].val_accuracy is None
    assert {p.val_accuracy for p in s.told} == {None}


def test_no_iterations_choose_from_the_pool(tmp_path: Path) -> None:
    model = scripted(then="- a small {}.")
    outcome, s = run(tmp_path, model, chat(iterations=0))
    assert not model.heard
    assert outcome.stop_reason == "iterations"
    assert s.ledger["text_encodings"] == 6 * K


# ------------------------------------------------------------------------- models that don't help


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param("I see.", "malformed", id="prose"),
        pytest.param("I'm sorry, but I can't help with that.", "refusal", id="refusal"),
        pytest.param("- a photo\n- of a thing", "slots", id="no slot"),
        pytest.param("- {} {} {}", "slots", id="slots"),
        pytest.param("- a ring beside a {}.", "classname", id="class name"),
        pytest.param("- " + "very " * 40 + "{}.", "too_long", id="too long"),
        pytest.param("\x00\u202e{}{{{" * 5_000, None, id="garbage"),
        pytest.param(f"- {PLAIN}\n- a PHOTO of  a {{}}.", "duplicates", id="duplicates"),
        pytest.param("<think>- a small {}.", None, id="never stops thinking"),
    ],
)
def test_useless_replies_end_it_with_the_incumbent(
    tmp_path: Path, reply: str, reason: str | None
) -> None:
    model = scripted(then=reply)
    outcome, s = run(tmp_path, model, chat(iterations=8, tries=3))
    assert outcome.stop_reason == "3 replies in a row without a new template"
    assert outcome.fallback
    assert outcome.predictor.describe() == PLAIN
    assert s.ledger["llm_calls"] == len(model.heard) == 3
    assert s.ledger["text_encodings"] == s.box.asked["text_encodings"] == 6 * K
    assert outcome.summary["calls"] == 3
    assert outcome.summary.get("scored", 0) == 0
    if reason:
        assert outcome.summary[reason] >= 3


def test_fruitless_replies_are_forgiven_by_a_useful_one(tmp_path: Path) -> None:
    model = scripted("hm", "hm", "- a small {}.", "hm", "hm", "- a tiny {}.", then="hm")
    outcome, _ = run(tmp_path, model, chat(iterations=20, tries=3))
    assert len(model.heard) == 9
    assert outcome.predictor.describe() == "a small {}."


def test_duplicates_cost_calls_and_no_queries(tmp_path: Path) -> None:
    model = scripted("- a small {}.\n- A small  {}.", then="- a SMALL {}.\n- a photo of a {}.")
    outcome, s = run(tmp_path, model, chat(iterations=3))
    assert s.ledger["llm_calls"] == 3
    assert s.ledger["text_encodings"] == s.box.asked["text_encodings"] == (6 + 1) * K
    assert outcome.summary["duplicates"] == 1 + 2 + 2
    assert outcome.summary["scored"] == 1
    assert "duplicate" not in outcome.summary


def test_the_summary_adds_up(tmp_path: Path) -> None:
    model = scripted(
        "- a small {}.\n- a small {}.\n- nothing\n- {} {}\n- a ring {}.", "no", then=numbered()
    )
    outcome, _ = run(tmp_path, model, chat(iterations=4))
    summary = dict(outcome.summary)
    proposals = summary.pop("proposals")
    calls = summary.pop("calls")
    assert calls == 4
    assert proposals == sum(summary.values()) == 5 + 1 + 2


def test_no_more_is_scored_than_asked_for(tmp_path: Path) -> None:
    flood = "\n".join(f"- a very {i} {{}}." for i in range(60))
    outcome, s = run(tmp_path, scripted(then=flood), chat(iterations=1, proposals=3))
    assert outcome.summary["scored"] == 3
    assert outcome.summary["surplus"] == 57
    assert s.ledger["text_encodings"] == (6 + 3) * K


def test_a_refused_content_is_asked_for_otherwise_once(tmp_path: Path) -> None:
    model = scripted(REFUSED, "- a small {}.", REFUSED, REFUSED, then=numbered())
    outcome, s = run(tmp_path, model, chat(iterations=4))
    assert outcome.predictor.describe() == "a small {}."
    assert outcome.summary["refusals"] == 3
    assert outcome.summary["calls"] == 3
    assert s.ledger["llm_calls"] == len(model.heard) == 6
    first, again = model.heard[:2]
    assert again[:-1] == first
    assert "everyday pictures" in str(again[-1].content)


def test_one_that_always_refuses(tmp_path: Path) -> None:
    outcome, s = run(tmp_path, scripted(then=REFUSED), chat(iterations=8))
    assert outcome.stop_reason == "3 replies in a row without a new template"
    assert outcome.fallback
    assert s.ledger["llm_calls"] == 6
    assert outcome.summary == {"refusals": 6}


def test_a_conversation_too_long_goes_on_shorter(tmp_path: Path) -> None:
    def limited(messages: list[Any]) -> str:
        if len(messages) > 4:
            raise TOO_LONG
        return next(useless)

    useless = (f"- a very {i} {{}}." for i in itertools.count())
    model = scripted(then=limited)
    outcome, s = run(tmp_path, model, chat(iterations=8))
    assert outcome.stop_reason == "iterations"
    assert outcome.summary["calls"] == 8
    assert outcome.summary["compactions"] == s.ledger["llm_calls"] - 8 > 0
    for messages in model.heard:
        kinds = [type(m) for m in messages]
        assert kinds[0] is SystemMessage
        assert kinds[1::2] == [HumanMessage] * (len(kinds) // 2)
        assert kinds[2::2] == [AIMessage] * (len(kinds) // 2 - 1)


@pytest.mark.parametrize("conversational", [True, False])
@pytest.mark.parametrize("replies", [0, 2])
def test_one_that_takes_no_conversation_at_all(
    tmp_path: Path, conversational: bool, replies: int
) -> None:
    some = ["- a small {}.", "- a tiny {}."][:replies]
    model = scripted(*some, then=TOO_LONG)
    outcome, _ = run(tmp_path, model, chat(iterations=6, conversational=conversational))
    assert "length" in outcome.stop_reason
    assert outcome.predictor.describe() == ("a small {}." if replies else PLAIN)
    assert outcome.fallback == (not replies)
    for messages in model.heard:
        assert [type(m) for m in messages].count(SystemMessage) == 1


def test_refused_and_then_too_long(tmp_path: Path) -> None:
    model = scripted("- a tiny {}.", "- a wee {}.", REFUSED, TOO_LONG, then="- a small {}.")
    outcome, _ = run(tmp_path, model, chat(iterations=3))
    assert outcome.predictor.describe() == "a small {}."
    refused, longer, shorter = model.heard[2:5]
    assert longer[:-1] == refused
    assert shorter == [longer[0], *longer[3:]]


def test_a_service_that_fails_for_good_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(ServiceError):
        run(tmp_path, scripted(then=RuntimeError("boom")), chat())
    kinds = [r["kind"] for r in read_journal(tmp_path / "journal.jsonl")]
    assert "llm_intent" in kinds


# --------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("cap", range(5))
def test_a_cap_on_calls_ends_it_with_the_best_so_far(tmp_path: Path, cap: int) -> None:
    model = scripted("- a tiny {}.", "- a small {}.", then=numbered())
    outcome, s = run(tmp_path, model, chat(iterations=4), caps=Caps(llm_calls=cap))
    assert s.ledger["llm_calls"] == len(model.heard) == min(cap, 4)
    assert outcome.stop_reason == ("budget: llm_calls" if cap < 4 else "iterations")
    best = {0: PLAIN, 1: "a tiny {}."}.get(cap, "a small {}.")
    assert outcome.predictor.describe() == best


@pytest.mark.parametrize("queries", [K, K + 1, 3 * K, 6 * K, 7 * K, 8 * K - 1, 9 * K])
@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
def test_a_cap_on_queries_ends_it_with_the_best_so_far(
    tmp_path: Path, access: Access, queries: int
) -> None:
    model = scripted("- a small {}.\n- a big {}.", then=numbered())
    box = FakeBox(access)
    outcome, s = run(tmp_path, model, chat(polish=True), box=box, caps=Caps(queries=queries))
    assert s.ledger["text_encodings"] == box.asked["text_encodings"] <= queries
    assert outcome.stop_reason == "budget: queries"
    expected = "a small {}." if queries >= 7 * K else PLAIN
    assert outcome.predictor.describe() == expected


def test_a_cap_on_seconds_ends_it_with_the_best_so_far(tmp_path: Path) -> None:
    now = [0.0]

    def slow(messages: list[Any]) -> str:
        now[0] += 10.0
        return next(replies)

    replies = iter(["- a small {}.", *(f"- a very {i} {{}}." for i in range(9))])
    outcome, s = run(
        tmp_path,
        scripted(then=slow),
        chat(iterations=8),
        caps=Caps(seconds=25.0),
        clock=lambda: now[0],
    )
    assert outcome.stop_reason == "budget: seconds"
    assert outcome.predictor.describe() == "a small {}."
    assert s.ledger["llm_calls"] == 3


def test_tokens_are_capped_before_they_are_spent(tmp_path: Path) -> None:
    model = scripted("- a small {}.", then=numbered())
    outcome, s = run(tmp_path, model, chat(iterations=8), caps=Caps(llm_tokens=14_000))
    assert outcome.stop_reason == "budget: llm_tokens"
    assert 1 <= s.ledger["llm_calls"] < 8
    assert s.ledger["llm_tokens_in"] + s.ledger["llm_tokens_out"] <= 14_000


# -------------------------------------------------------------------------------- side by side


def echo(messages: list[Any]) -> str:
    """A reply that follows from the messages alone, slower for some than for others."""
    import hashlib
    import time

    digest = hashlib.sha256(said(messages).encode()).hexdigest()
    time.sleep(int(digest[:2], 16) / 20_000)
    words = ["small", "tiny", "old", "wet", "big", "red", "new", "odd"]
    first, second = (words[int(c, 16) % 8] for c in digest[2:4])
    return f"- a {first} {second} {{}}.\n- a {digest[:6]} {{}}.\n- a photo of a {{}}."


@pytest.mark.parametrize("parallel", [2, 4, 8])
@pytest.mark.parametrize("model", ["scripted", "builtin"])
def test_conversations_side_by_side_end_as_one_after_another(
    tmp_path: Path, parallel: int, model: str
) -> None:
    def result(name: str, parallel: int) -> Any:
        talker = scripted(then=echo) if model == "scripted" else BuiltinRewriter(seed=2)
        optimizer = chat(restarts=4, iterations=3, parallel=parallel, polish=True, ensemble=3)
        outcome, s = run(tmp_path / name, talker, optimizer)
        tensors, config = outcome.predictor.state()
        spent = s.ledger.snapshot()
        # Which of two conversations pays for a template both propose is a matter of speed.
        del spent["black_box_calls"]
        streams: dict[str, list[str]] = {}
        for record in read_journal(tmp_path / name / "journal.jsonl"):
            if record["kind"] == "scored":
                streams.setdefault(record["stream"], []).append(json.dumps(record["data"]))
        return (
            config,
            tensors["weights"].tolist(),
            outcome.templates,
            outcome.summary,
            spent,
            streams,
        )

    alone = result("alone", 1)
    assert result("together", parallel) == alone
    assert set(alone[-1]) == {
        "opening", "conversation-1", "conversation-2", "conversation-3", "conversation-4", "polish"
    }  # fmt: skip


def test_the_seed_draws_the_pools(tmp_path: Path) -> None:
    def heard(name: str, seed: int) -> str:
        model = scripted(then="hm")
        run(tmp_path / name, model, chat(tries=1), seed=seed)
        return said(model.heard[0])

    assert heard("a", 1) == heard("b", 1) != heard("c", 2)


def test_draw_pool_is_a_sample_without_repeats() -> None:
    import numpy as np

    pool = draw_pool(10_000, ["heron"], np.random.default_rng(0))
    assert len(pool) == len(set(pool)) == len(read_lines("templates/captions.txt"))
    assert draw_pool(0, NAMES, np.random.default_rng(0)) == []


def test_the_pool_names_no_class_in_singular_or_plural() -> None:
    import numpy as np

    names = ["dog", "Fountain", "bus", "story", "glass"]
    pool = draw_pool(10_000, names, np.random.default_rng(0))
    words = {word for template in pool for word in re.findall(r"[a-z]+", template.text.lower())}
    assert not words & {"dog", "dogs", "fountain", "bus", "buses", "story", "stories", "glass"}


# ------------------------------------------------------------------------- end and interruption


def test_an_interrupt_ends_it_with_the_best_so_far(tmp_path: Path) -> None:
    def then(messages: list[Any]) -> str:
        stages[0].ledger.stop()
        return "- a wee {}."

    model = scripted("- a small {}.", then=then)
    stages: list[Any] = []
    with stage(tmp_path, TASK, chat=model) as s:
        stages.append(s)
        outcome = chat(polish=True).run(s.search)
    assert outcome.stop_reason == "interrupted"
    assert outcome.predictor.describe() == "a small {}."
    assert len(model.heard) == 2


@pytest.mark.parametrize("settings", [{}, {"polish": True, "restarts": 3}, {"ensemble": 3}])
def test_an_interrupt_before_anything_was_scored(tmp_path: Path, settings: dict[str, Any]) -> None:
    with stage(tmp_path, TASK, chat=scripted()) as s:
        s.search.box.score_templates(TASK.train, [TASK.start], NAMES)  # as the engine does
        s.ledger.stop()
        outcome = chat(**settings).run(s.search)
    assert outcome.predictor.describe() == PLAIN
    assert outcome.stop_reason == "interrupted"


@pytest.mark.parametrize("stop_at", range(1, 9))
def test_steps_after_an_interrupt_are_those_of_an_undisturbed_run(
    tmp_path: Path, stop_at: int
) -> None:
    optimizer = chat(restarts=2, polish=True)
    replies = ["- a tiny {}.", "- a small old {}.", "hm", "- a wet {}."]
    whole, _ = run(tmp_path / "whole", scripted(*replies, then="- a sad {}."), optimizer)

    box = FakeBox()

    def interrupt() -> None:
        if box.asked["black_box_calls"] == stop_at:
            stages[0].ledger.stop()

    box.before = interrupt
    stages: list[Any] = []
    model = scripted(*replies, then="- a sad {}.")
    with stage(tmp_path / "cut", TASK, box, chat=model) as s:
        stages.append(s)
        optimizer.run(s.search)
    with stage(tmp_path / "cut", TASK, chat=model) as s:
        again = optimizer.run(s.search)
        assert not s.journal.diverged
    assert again.predictor.state()[1] == whole.predictor.state()[1]
    assert again.templates == whole.templates
    assert again.summary == whole.summary
    records = [list(read_journal(tmp_path / n / "journal.jsonl")) for n in ("whole", "cut")]
    events = [[(r["stream"], r["data"]) for r in rs if r["kind"] == "scored"] for rs in records]
    for stream in {stream for stream, _ in events[0]}:
        assert [d for n, d in events[1] if n == stream] == [d for n, d in events[0] if n == stream]


def test_polish_takes_out_what_does_not_help(tmp_path: Path) -> None:
    from llmopt.search.text.archive import Archive

    with stage(tmp_path, TASK) as s:
        archive = Archive(s.search)
        long = "a snapshot of a wet small odd {} in a box, a type of toy."
        archive.score([TASK.start, Template(long)])
        found = polish(s.search, archive.ranked(), "likelihood")
        texts = [one.template.text for one in found]
        assert "a photo of a small {}." in texts
        assert len(set(texts)) == len(texts)
        assert long in texts
        assert s.ledger["text_encodings"] <= (2 + 24) * K
        assert found[0].template.text in ("a photo of a small {}.", "a small {}.")


def test_the_model_and_the_search_see_no_test_image(tmp_path: Path) -> None:
    model = scripted("- a small {}.", then=numbered())
    with stage(tmp_path, TASK, chat=model) as s:
        chat(images=2).run(s.search)
        found = reachable(s.search)
    assert not any(isinstance(thing, TestSet) for thing in found)
    seen = {thing.name for thing in found if hasattr(type(thing), "load") and hasattr(thing, "key")}
    assert seen == {image.name for image in (*TASK.train.images, *TASK.val.images)}
    assert s.box.images == seen


def test_pictures_of_mistakes_go_along_when_asked_for(tmp_path: Path) -> None:
    model = scripted(then=numbered())
    run(tmp_path, model, chat(images=2))
    parts = model.heard[0][-1].content
    assert [part["type"] for part in parts] == ["text", "image_url", "image_url"]
    assert ", taken for " in parts[0]["text"]


# -------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"restarts": 0},
        {"pool": 0},
        {"proposals": 0},
        {"k": 0},
        {"tries": 0},
        {"finalists": 0},
        {"ensemble": 0},
        {"parallel": -1},
        {"probes": -1},
        {"iterations": -1},
        {"confusions": -1},
        {"fitness": "luck"},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=name) as refused:
        ChatSettings(**wrong)
    assert str(value) in str(refused.value)
