"""``chat`` as published: against the algorithm written down once more here, in plain numpy."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import scripted
from fuzz import fuzz
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

import llmopt
from llmopt.errors import ContentRefused, TemplateError, UserError
from llmopt.language.builtin import BuiltinRewriter
from llmopt.resources import read_lines
from llmopt.runs.config import RunConfig
from llmopt.search import make_optimizer
from llmopt.search.base import Outcome
from llmopt.search.text.chat_published import ChatPaper, ChatReleased
from llmopt.search.text.published_messages import read_proposals
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.template import PLAIN, Template
from llmopt.testing.world import NAMES, FakeBox, make_task, stage
from llmopt.vision.base import Access

TASK = make_task(shots=3)
K = len(NAMES)
CAPTIONS = read_lines("templates/captions.txt")


def released(**settings: Any) -> ChatReleased:
    return ChatReleased(**settings)


def run(folder: Path, model: Any, optimizer: Any, **options: Any) -> tuple[Outcome, Any]:
    with stage(folder, options.pop("task", TASK), chat=model, **options) as s:
        return optimizer.run(s.search), s


def accuracy(text: str, task: Any = TASK) -> float:
    """By the definition: the share of images whose own class scores highest."""
    scores = FakeBox().scores(task.train.images, [text.replace("{}", n) for n in plain(NAMES)])
    return float(np.mean(np.array(scores).argmax(axis=1) == task.train.labels))


def plain(names: tuple[str, ...]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def listed(message: Any) -> list[list[str]]:
    """The lists of a message, without their bullets."""
    blocks = re.split(r"\n\n", str(message.content))
    rows = [[r[2:] for r in b.splitlines() if r.startswith("- ")] for b in blocks]
    return [block for block in rows if block]


def words(*texts: str) -> Callable[[list[Any]], str]:
    """These replies for ever."""
    endless = itertools.cycle(texts)
    return lambda messages: f"- {next(endless)}"


# ------------------------------------------------------------------ the algorithm, written again


PROPOSED = [
    "a big {}.", "a tiny {}.", "a photo of {}", "a little {} here.", "a tiny {}.", "one {}.",
    "a small little {}.", "a tiny little {}.", "the {}.", "a huge {}.",
]  # fmt: skip


def test_it_is_the_published_algorithm(tmp_path: Path) -> None:
    model = scripted(*(f"- {text}" for text in PROPOSED))
    outcome, s = run(tmp_path, model, released())

    pool = random.Random(TASK.seed).sample(CAPTIONS, 80)
    known = [(text, accuracy(text)) for text in pool]
    own: list[tuple[str, float]] = []
    for (message,), proposal in zip(model.heard, PROPOSED, strict=True):
        assert isinstance(message, HumanMessage)
        best_first = [text for text, _ in sorted(known, key=lambda one: -one[1])]
        assert listed(message) == [best_first[:3], best_first[-3:]]
        if proposal not in [text for text, _ in known]:
            known.append((proposal, accuracy(proposal)))
            own.append(known[-1])
    values = np.array([value for _, value in own])
    assert outcome.predictor.describe() == own[int(values.argmax())][0]  # the first of equals
    assert s.ledger["llm_calls"] == len(model.heard) == 10
    assert s.ledger["text_encodings"] == K * (80 + 9)
    assert s.ledger["image_encodings"] == len(TASK.train)
    assert outcome.summary == {"calls": 10, "proposals": 10, "scored": 9, "duplicates": 1}
    assert [t.text for t in outcome.templates] == [
        own[i][0] for i in np.argsort(-values, kind="stable")[:8]
    ]
    assert [t.weight for t in outcome.templates] == [1.0] + [0.0] * 7


def test_no_caption_and_no_start_can_win_and_nothing_else_is_looked_at(tmp_path: Path) -> None:
    model = scripted(then=words("a large {}."))
    outcome, s = run(tmp_path, model, released(start_in_pool=True))
    assert outcome.predictor.describe() == "a large {}."
    assert accuracy("a large {}.") < accuracy(PLAIN)
    assert not outcome.fallback
    assert s.ledger["llm_calls"] == 10
    assert outcome.summary["duplicates"] == 9


def test_a_reply_that_is_no_template_is_asked_for_again(tmp_path: Path) -> None:
    useless = [
        "hm",
        "a small {}.",
        "- a {} and a {}",
        "- a ring",
        "- a {0}",
        "- " + "very " * 60 + "{}",
    ]
    model = scripted(*useless, "- a tiny {}.\n- a {", then=words("a little {}."))
    outcome, s = run(tmp_path, model, released(iterations=2))
    assert outcome.stop_reason == "iterations"
    assert s.ledger["llm_calls"] == 7 + 2
    assert outcome.summary["malformed"] == 7
    assert {str(messages) for messages in model.heard[:8]} == {str(model.heard[0])}


def test_templates_that_name_a_class_are_taken(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, scripted(then=words("a ring, a {}.")), released())
    assert outcome.predictor.describe() == "a ring, a {}."


def test_it_gives_up_after_fifteen_useless_replies(tmp_path: Path) -> None:
    model = scripted("- a tiny {}.", "no", ContentRefused("test:model: refuses"), then="no")
    outcome, s = run(tmp_path, model, released())
    assert outcome.stop_reason == "15 replies in a row without a template"
    assert s.ledger["llm_calls"] == 1 + 15 <= released().bounds(TASK)["llm_calls"]
    assert outcome.summary["refusals"] == 1
    assert outcome.predictor.describe() == "a tiny {}."


def test_without_any_proposal_the_start_is_left(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, scripted(then="no"), released())
    assert outcome.fallback
    assert outcome.predictor.describe() == PLAIN


# ---------------------------------------------------------------------------- the paper's loops


def test_the_papers_loops(tmp_path: Path) -> None:
    paper = ChatPaper(restarts=2, resets=3, iterations=4, pool=12, k=2)
    replies = [f"a {w} {n} {{}}." for n in range(8) for w in ("big", "tiny", "small")]
    model = scripted(*(f"- {text}" for text in replies))
    outcome, s = run(tmp_path, model, paper)
    assert s.ledger["llm_calls"] == 2 * 3 * 4
    assert s.ledger["text_encodings"] <= K * (2 * 12 + 24) == paper.bounds(TASK)["text_encodings"]

    dice = random.Random(TASK.seed)
    for restart in range(2):
        pool = dice.sample(CAPTIONS, 12)
        best_first = sorted(pool, key=lambda text: -accuracy(text))
        for reset in range(3):
            first = 12 * restart + 4 * reset
            conversation = model.heard[first + 3]
            kinds = [HumanMessage, *[AIMessage, HumanMessage] * 3]
            assert [type(message) for message in conversation] == kinds
            for turn in range(4):
                assert model.heard[first + turn] == conversation[: 2 * turn + 1]
            assert listed(conversation[0]) == [best_first[:2], best_first[-2:]]
            before = accuracy(best_first[0])
            for turn in range(3):
                text = replies[first + turn]
                now = accuracy(text)
                sign = int(np.sign(now - before))
                moved = {1: "improves to", -1: "drops to", 0: "stays at"}[sign]
                said = str(conversation[2 * turn + 2].content)
                assert f'With "{text}" the accuracy {moved} {100 * now:.2f}%.\n' in said
                before = now
    best = max(replies, key=accuracy)
    assert outcome.predictor.describe() == best
    streams = {r["stream"] for r in read_journal(tmp_path / "journal.jsonl")}
    assert "restart-2-reset-3" in streams


def test_parallel_restarts_find_the_same(tmp_path: Path) -> None:
    small = {"restarts": 3, "resets": 2, "iterations": 3, "pool": 6, "k": 2}
    one, _ = run(tmp_path / "1", BuiltinRewriter(seed=1), ChatPaper(**small))
    three, _ = run(tmp_path / "3", BuiltinRewriter(seed=1), ChatPaper(**small, parallel=3))
    assert one.templates == three.templates
    assert one.summary == three.summary


@pytest.mark.parametrize("profile", ["released", "paper"])
@pytest.mark.parametrize("conversational", [True, False])
@pytest.mark.parametrize(
    ("lists", "titles"),
    [
        ("good", ["Good templates:"]),
        ("good+bad", ["Good templates:", "Bad templates:"]),
        ("good+random", ["Good templates:", "Random templates:"]),
    ],
)
def test_each_ablation_says_what_it_shows(
    tmp_path: Path, profile: str, conversational: bool, lists: str, titles: list[str]
) -> None:
    given = {"profile": profile, "lists": lists, "conversational": str(conversational).lower()}
    small = {"restarts": "1", "resets": "1", "iterations": "2", "k": "2", "pool": "9"}
    model = scripted(then=words("a tiny {}.", "a big {}."))
    run(tmp_path, model, make_optimizer("chat", {**given, **small}))
    text = str(model.heard[0][0].content)
    assert re.findall(r"^\w+ templates:$", text, re.MULTILINE) == titles
    assert [len(one) for one in listed(model.heard[0][0])] == [2] * len(titles)
    assert ("bad" in text.lower()) == (lists == "good+bad")
    assert "two lists" in text or lists == "good"
    assert "$" not in text
    assert "\n\n\n" not in text
    assert [len(messages) for messages in model.heard] == [1, 3 if conversational else 1]


# -------------------------------------------------------------------------------------- the pool


def test_the_pool_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.txt"
    path.write_text("a tiny {}\r\n\r\na huge {}\n" + "very " * 30 + "{}\n", encoding="utf-8")
    optimizer = released(pool_file=str(path), start_in_pool=True, iterations=1)
    optimizer.check(FakeBox(), TASK)
    model = scripted("- a {}")
    run(tmp_path, model, optimizer)
    shown = {text for one in listed(model.heard[0][0]) for text in one}
    assert shown <= {"a tiny {}", "a huge {}", PLAIN}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pool_file: .*pool.txt cannot be read"),
        (b"", "pool_file: .*pool.txt is empty"),
        (b"\n \n", "pool_file: .*pool.txt is empty"),
        (b"a photo of a {}\na dog\n", "pool_file: line 2 of .*pool.txt: .*has no '{}'"),
        (b"{} and {}", "pool_file: line 1"),
        (b"\xff\xfe{}", "pool_file: .* is not text in UTF-8"),
    ],
)
def test_a_pool_file_that_is_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "pool.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        released(pool_file=str(path)).check(FakeBox(), TASK)


@pytest.mark.parametrize("pool", [1, 2, 3, 5])
def test_a_pool_smaller_than_both_lists(tmp_path: Path, pool: int) -> None:
    model = scripted(then=words("a tiny {}.", "a big {}.", "a {}."))
    outcome, _ = run(tmp_path, model, released(pool=pool, k=6, iterations=3))
    assert outcome.stop_reason == "iterations"
    for (message,) in model.heard:
        shown = [text for one in listed(message) for text in one]
        assert 1 <= len(shown) == len(set(shown)) <= pool + 2


# -------------------------------------------------------------------------------- caps and access


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
def test_every_access_level_finds_the_same(tmp_path: Path, access: Access) -> None:
    model = scripted(*(f"- {text}" for text in PROPOSED))
    outcome, _ = run(tmp_path, model, released(), box=FakeBox(access))
    best = max(dict.fromkeys(PROPOSED), key=accuracy)
    assert outcome.predictor.describe() == best


def test_a_cap_on_calls_leaves_the_best_so_far(tmp_path: Path) -> None:
    model = scripted("- a big {}.", "- a small {}.", then=words("a {}."))
    outcome, _ = run(tmp_path, model, released(), caps=Caps(llm_calls=2))
    assert outcome.stop_reason == "budget: llm_calls"
    assert outcome.predictor.describe() == "a small {}."


# ---------------------------------------------------------------------------------- outside text


@fuzz(reply=st.one_of(st.text(), st.lists(st.text()).map(lambda t: "\n".join(f"- {x}" for x in t))))
def test_any_reply_is_templates_or_refused(reply: str) -> None:
    try:
        found = read_proposals(reply)
    except TemplateError:
        return
    assert found
    assert all(isinstance(one, Template) for one in found)


@fuzz(content=st.binary(max_size=300))
def test_any_pool_file_is_drawn_from_or_refused(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        with contextlib.suppress(UserError):
            released(pool_file=file.name).check(FakeBox(), TASK)


# ------------------------------------------------------------------------------------- for real


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("dataset", ["shapes-small", "shapes-red", "shapes-striped"])
def test_on_the_shapes_it_returns_its_best_proposal(
    tmp_path: Path, dataset: str, seed: int
) -> None:
    config = RunConfig(
        dataset, seed=seed, settings={"profile": "released"}, llm="builtin", runs=str(tmp_path)
    )
    result = llmopt.run(config).result
    (folder,) = tmp_path.iterdir()
    records = list(read_journal(folder / "journal.jsonl"))
    scored = [r["data"]["templates"] for r in records if r["kind"] == "scored"]
    own = [template for templates in scored[1:] for template in templates]
    best = own[int(np.argmax([template["train_accuracy"] for template in own]))]
    assert result["best"]["templates"][0]["text"] == best["text"]
    assert result["ledger"]["llm_calls"] == 10 == sum(r["kind"] == "llm_reply" for r in records)
    assert not result["best"]["fallback"]
