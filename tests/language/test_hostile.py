"""The real OpenAI client against a server that misbehaves.

Whatever the server does, the run must not crash, hang, overspend or miscount; and it must come out
the same when it is resumed from its journal without a server.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hostile_server import ACTS, BEYOND, COURSE, FATAL, GOOD, RETRYABLE, SLOW, SMALL, HostileServer
from hostile_server import wait_until_idle as settled
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from patience import HUNG

from llmopt.errors import (
    AuthenticationFailed,
    BadRequest,
    BudgetExhausted,
    CapBroken,
    ContentRefused,
    ContextOverflow,
    LlmoptError,
    NotConnected,
    QuotaExhausted,
    RateLimited,
    Redirected,
    ServiceError,
    ServiceModelNotFound,
    ServiceUnavailable,
)
from llmopt.language.llm import Llm
from llmopt.language.metered import MeteredChat, Reply
from llmopt.language.settings import LlmSettings
from llmopt.search.text.replies import parse_reply
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Caps, Ledger

SETTINGS = LlmSettings(
    max_tokens=400,
    timeout=2.0,
    call_seconds=6.0,
    attempts=5,
    deadline=20.0,
    first_pause=0.001,
    breaker=9,
    seed=3,
    structured=True,
    price="1,4",
)


REFUSED_FORMS = ("no temperature", "no seed", "other name", "no system", "two roles")


@dataclass
class Course:
    """What became of a conversation."""

    replies: list[Reply] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    ended_by: LlmoptError | None = None


def converse(chat: MeteredChat, turns: int, stream: str = "main") -> Course:
    """Ask turn by turn; compact when it gets too long, rephrase once when it is refused."""
    course = Course()
    messages: list[BaseMessage] = [SystemMessage("You write templates.")]
    try:
        for turn in range(turns):
            messages.append(HumanMessage(f"Write 5 templates with {{}}, please ({stream} {turn})."))
            rephrased = False
            while True:
                try:
                    reply = chat.ask(messages, stream=stream, turn=turn)
                except ContextOverflow:
                    course.events.append("compacted")
                    if len(messages) <= 2:
                        messages[-1] = HumanMessage(str(messages[-1].content)[:-1])
                    del messages[1:-1]
                except ContentRefused:
                    course.events.append("refused")
                    if rephrased:
                        messages.pop()
                        break
                    rephrased = True
                    messages[-1] = HumanMessage(f"Kindly: {messages[-1].content}")
                else:
                    course.replies.append(reply)
                    course.events.append(str(parse_reply(reply.text)))
                    messages.append(AIMessage(reply.text))
                    break
    except LlmoptError as error:
        course.ended_by = error
    return course


def meter(url: str, path: Path, caps: Caps | None = None, settings: LlmSettings = SETTINGS):
    """A metered chat with the real client, its ledger and its journal."""
    ledger, journal = Ledger(caps), Journal(path)
    return MeteredChat(Llm("openai:hostile", url, settings), ledger, journal), ledger, journal


def play(server: HostileServer, path: Path, turns: int, caps: Caps | None = None):
    """A conversation with the server: what became of it, and what it cost."""
    chat, ledger, journal = meter(server.url, path, caps)
    with chat:
        course = converse(chat, turns)
    journal.close()
    return course, ledger.snapshot()


def sent(spent: Mapping[str, float]) -> float:
    """Calls that were answered, and those that never came back."""
    return spent["llm_calls"] + spent["llm_calls_lost"]


def broken_calls(path: Path) -> list[dict[str, float]]:
    """What was charged of the calls that took more than was reserved."""
    records = (json.loads(line) for line in path.read_text().splitlines())
    return [one["data"]["charged"] for one in records if one["data"].get("broken")]


def run_scenario(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    pools = [GOOD, RETRYABLE, COURSE, FATAL, SLOW, BEYOND]
    kinds = rng.choices(pools, weights=[8, 10, 2, 0.4, 0.3, 0.5], k=rng.randrange(1, 16))
    script = [rng.choice(list(kind)) for kind in kinds]
    turns = rng.randrange(1, 6)
    caps = Caps(
        llm_calls=rng.choice([None, 3, 8, 20]),
        llm_tokens=rng.choice([None, 2_000, 8_000]),
        llm_usd=rng.choice([None, 0.005, 0.02]),
        seconds=rng.choice([None, None, 30.0]),
    )
    path = folder / f"{seed}.jsonl"
    where = f"seed {seed}: {turns} turns of {script} under {caps}"

    began = time.monotonic()
    with HostileServer(script) as server:
        course, spent = play(server, path, turns, caps)
        assert time.monotonic() - began < HUNG, f"{where}: it hung"
        assert settled(server) == sent(spent), f"{where}: it miscounted"
    allowed = (BudgetExhausted, ServiceError)
    assert course.ended_by is None or isinstance(course.ended_by, allowed), where
    assert caps.llm_calls is None or sent(spent) <= caps.llm_calls, where
    broken = broken_calls(path)
    tokens = spent["llm_tokens_in"] + spent["llm_tokens_out"] + spent["llm_tokens_lost"]
    tokens -= sum(one["llm_tokens_in"] + one["llm_tokens_out"] for one in broken)
    usd = spent["llm_usd"] + spent["llm_usd_lost"] - sum(one["llm_usd"] for one in broken)
    assert caps.llm_tokens is None or tokens <= caps.llm_tokens, where
    assert caps.llm_usd is None or usd <= caps.llm_usd + 1e-9, where
    assert len(broken) <= 1 or (caps.llm_tokens, caps.llm_usd) == (None, None), where
    assert course.ended_by is not None or len(course.replies) >= 1 or "refused" in course.events

    if course.ended_by is None or isinstance(course.ended_by, BudgetExhausted):
        # Resumed, it takes every step from the journal: there is nobody left to ask.
        chat, ledger, journal = meter("http://127.0.0.1:9/v1", path, caps)
        with chat:
            again = converse(chat, turns)
        journal.close()
        assert again.replies == course.replies, where
        assert again.events == course.events, where
        assert type(again.ended_by) is type(course.ended_by), where
        assert ledger.snapshot() == spent, where
    else:
        # It ended because of the service: with a healthy one it goes on, repeating nothing.
        with HostileServer() as healthy:
            resumed, total = play(healthy, path, turns)
            assert resumed.ended_by is None, where
            assert resumed.replies[: len(course.replies)] == course.replies, where
            assert settled(healthy) == sent(total) - sent(spent), where


@pytest.mark.parametrize("seed", range(50))
def test_scenarios(seed: int, tmp_path: Path) -> None:
    run_scenario(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_many_scenarios(block: int, tmp_path: Path) -> None:
    for seed in range(1000 + 25 * block, 1025 + 25 * block):
        run_scenario(seed, tmp_path)


@pytest.mark.parametrize("act", sorted({**GOOD, **RETRYABLE, **COURSE}))
def test_every_act_is_survived(act: str, tmp_path: Path) -> None:
    with HostileServer([act]) as server:
        course, spent = play(server, tmp_path / "journal.jsonl", turns=1)
        assert course.ended_by is None
        assert len(course.replies) == 1
        refused = act in REFUSED_FORMS or act in SMALL
        expected = 1 if act in GOOD and not refused else 2
        assert settled(server) == sent(spent) == expected
    assert "wrong" not in course.replies[0].text


@pytest.mark.parametrize("act", sorted(SLOW))
def test_slow_acts_are_cut_short(act: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with HostileServer([act]) as server:
        course, spent = play(server, tmp_path / "journal.jsonl", turns=1)
        assert time.monotonic() - began < HUNG
        assert course.ended_by is None
        assert settled(server) == sent(spent) == 2
        assert spent["llm_calls_lost"] == (act in ("hang", "drip for ever"))


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        ("401", AuthenticationFailed),
        ("403", AuthenticationFailed),
        ("402", QuotaExhausted),
        ("402 in 200", QuotaExhausted),
        ("402 word in 200", QuotaExhausted),
        ("402 text in 200", QuotaExhausted),
        ("402 flat in 200", QuotaExhausted),
        ("402 flag in 200", QuotaExhausted),
        ("402 choice in 200", QuotaExhausted),
        ("moved", Redirected),
        ("found", Redirected),
        ("see other", Redirected),
        ("loop", Redirected),
        ("moved for good", Redirected),
        ("moved far", Redirected),
        ("moved to a secret", Redirected),
        ("moved nowhere", Redirected),
        ("quota", QuotaExhausted),
        ("no model", ServiceModelNotFound),
        ("bad request", BadRequest),
    ],
)
def test_what_cannot_pass_ends_at_once(act: str, kind: type, tmp_path: Path) -> None:
    with HostileServer([act]) as server:
        course, spent = play(server, tmp_path / "journal.jsonl", turns=3)
        assert type(course.ended_by) is kind
        assert settled(server) == spent["llm_calls"] == 1
        assert spent["llm_tokens_in"] == 0
        # The cause is mended: the same run goes on.
        course, spent = play(server, tmp_path / "journal.jsonl", turns=3)
        assert course.ended_by is None
        assert settled(server) == spent["llm_calls"] == 4


@pytest.mark.parametrize(
    ("act", "target"),
    [
        ("moved", r"http://127\.0\.0\.1:\d+/v2/chat/completions; .*--llm-base-url \S+/v2\)$"),
        ("see other", r"https://other\.example/v1; if you trust it"),
        ("moved for good", r"--llm-base-url http://other\.example/v1\)$"),
        ("moved far", r"https://other\.example/x{270,290};"),
        ("moved to a secret", r"other\.example/\[secret\]/v1;"),
        ("moved nowhere", "it does not say where"),
    ],
)
def test_a_redirect_is_named_and_not_followed(act: str, target: str, tmp_path: Path) -> None:
    with HostileServer([act]) as server:
        course, _ = play(server, tmp_path / "journal.jsonl", turns=1)
        assert settled(server) == 1
    assert re.search(target, str(course.ended_by)), course.ended_by
    assert "pass-phrase" not in str(course.ended_by)


@pytest.mark.parametrize("act", [name for name in RETRYABLE if name.endswith("in 200")])
def test_an_error_inside_an_answer_costs_no_tokens(act: str, tmp_path: Path) -> None:
    with HostileServer([act]) as server:
        settings = dataclasses.replace(SETTINGS, attempts=1)
        chat, ledger, journal = meter(server.url, tmp_path / "journal.jsonl", settings=settings)
        with chat, journal:
            kind = RateLimited if "rate limit" in act else ServiceUnavailable
            assert isinstance(converse(chat, 1).ended_by, kind)
    assert ledger.snapshot()["llm_calls"] == 1
    assert ledger["llm_tokens_in"] == ledger["llm_tokens_out"] == ledger["llm_usd"] == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://nobody.invalid/v1"])
def test_what_was_never_sent_costs_nothing(url: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    chat, ledger, journal = meter(url, path)
    with chat, journal:
        ended_by = converse(chat, 1).ended_by
    assert isinstance(ended_by, NotConnected)
    assert re.search(r"nothing was sent \(ConnectError: \[Errno -?\d+\] \w+", str(ended_by))
    assert not any(ledger.state().values())
    # Somebody is there now: the journal of failures before is no obstacle.
    with HostileServer() as server:
        course, spent = play(server, path, turns=1)
    assert len(course.replies) == 1
    assert spent["llm_calls"] == 1


@pytest.mark.parametrize("act", SMALL)
@pytest.mark.parametrize("other", [False, True])
def test_replies_get_the_room_that_there_is(act: str, other: bool, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with HostileServer([*(["other name"] if other else []), act, act, act]) as server:
        chat, ledger, journal = meter(server.url, path)
        with chat, journal:
            course = converse(chat, 1)
        assert len(course.replies) == 1
        name = "max_completion_tokens" if other else "max_tokens"
        asked = [body[name] for body in server.seen[other:]]
        assert asked[0] == 400
        assert 256 <= asked[1] < 300
        assert chat.remarks[other:] == [
            f"openai:hostile has no room for replies of 400 tokens: asking for at most {asked[1]}"
        ]
        spent = ledger.snapshot()
        assert settled(server) == spent["llm_calls"]
    # A resumed run knows it from its journal.
    chat, ledger, journal = meter("http://127.0.0.1:9/v1", path)
    with chat, journal:
        assert converse(chat, 1).replies == course.replies
    assert len(chat.remarks) == 1 + other
    assert ledger.snapshot() == spent


def test_a_model_without_room_for_any_question_contributed_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with HostileServer(["too long elsewhere", "ok"]) as server:
        chat, _, journal = meter(server.url, path)
        with chat, journal:
            with pytest.raises(ContextOverflow):
                chat.ask([HumanMessage("a")])
            with pytest.raises(ContextOverflow, match=r"it answered no question, .*--set k=3"):
                chat.check_answered()
            chat.ask([HumanMessage("b")])
            chat.check_answered()


def test_parameters_that_are_refused_are_left_out_for_good(tmp_path: Path) -> None:
    script = ["no temperature", "no seed", "ok", "ok"]
    with HostileServer(script) as server:
        course, spent = play(server, tmp_path / "journal.jsonl", turns=2)
        assert course.ended_by is None
        assert spent["llm_calls"] == 4
        sent = [("temperature" in body, "seed" in body) for body in server.seen]
        assert sent == [(True, True), (False, True), (False, False), (False, False)]
        assert all("response_format" in body for body in server.seen)


def test_every_form_that_is_refused_is_changed_for_good_and_costs_no_patience(
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(SETTINGS, attempts=1, top_p=0.9)
    refused = ["no system", "other name", "no temperature", "no seed", "ok"]
    path = tmp_path / "journal.jsonl"
    with HostileServer([*refused, "two roles"]) as server:
        chat, ledger, journal = meter(server.url, path, settings=settings)
        with chat, journal:
            course = converse(chat, 2)
        assert course.ended_by is None
        assert settled(server) == ledger.snapshot()["llm_calls"] == len(refused) + 1
        for body in server.seen[-2:]:
            assert body["messages"][0]["role"] == "user"
            assert body["messages"][0]["content"].startswith("You write templates.\n\nWrite 5")
            assert body["max_completion_tokens"] == settings.max_tokens
            assert not {"max_tokens", "temperature", "seed"} & set(body)
            assert body["top_p"] == 0.9
    # A resumed run knows it from its journal.
    with HostileServer(["two roles"]) as server:
        chat, ledger, journal = meter(server.url, path, settings=settings)
        with chat, journal:
            again = converse(chat, 3)
        assert again.replies[:2] == course.replies
        assert settled(server) == 1
        assert "max_tokens" not in server.seen[0]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("tool call", r"empty \(it calls the tool 'search', and none was offered; finish_reason"),
        ("content null", r"the answer is empty \(finish_reason 'stop'\)"),
        ("no choices", "holds no choices, so neither a reply nor an error"),
        ("choices null", "holds no choices"),
        ("huge", "the answer is longer than 8 MiB"),
        ("bomb", "the answer is longer than 8 MiB"),
        ("error in 200", r"could not answer now, HTTP 500 \(worker died\)"),
        ("error text in 200", r"could not answer now, HTTP 500 \(worker died\)"),
        ("error flat in 200", r"could not answer now, HTTP 500 \(worker died\)"),
        ("rate limit in 200", r"asks for fewer requests, HTTP 429"),
        ("402 flat in 200", r"HTTP 402 \(Insufficient balance\)"),
        ("402 flag in 200", r"HTTP 402 \(pay first\)"),
        ("402 choice in 200", r"HTTP 402 \(broke\)"),
    ],
)
def test_the_cause_is_named_in_words(act: str, says: str, tmp_path: Path) -> None:
    with HostileServer([act]) as server:
        settings = dataclasses.replace(SETTINGS, attempts=1)
        path = tmp_path / "journal.jsonl"
        chat, _, journal = meter(server.url, path, settings=settings)
        began = time.monotonic()
        with chat, journal:
            ended_by = converse(chat, 1).ended_by
        assert time.monotonic() - began < HUNG
    assert re.search(says, str(ended_by)), ended_by
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize("act", ["429 endless", "429 for good"])
def test_an_endless_wait_ends_one_conversation_and_holds_no_other(act: str, tmp_path: Path) -> None:
    with HostileServer([act]) as server:
        chat, _, journal = meter(server.url, tmp_path / "journal.jsonl")
        began = time.monotonic()
        with chat, journal:
            ended = converse(chat, 1, stream="a")
            course = converse(chat, 1, stream="b")
        assert time.monotonic() - began < HUNG
    assert "asks to wait 366 days; gave up after 1 try" in str(ended.ended_by)
    assert len(course.replies) == 1


@pytest.mark.parametrize("act", sorted(BEYOND))
def test_what_is_beyond_the_bound_is_recorded_said_and_ends_a_run_with_a_cap(
    act: str, tmp_path: Path
) -> None:
    path, said = tmp_path / "journal.jsonl", "[0-9,]+ tokens (in|out) where [0-9,]+ were reserved"
    took = {"dear": 90_000, "dear to ask": 10, "dear both ways": 90_000, "dear refusal": 90_000}
    with HostileServer(["ok", act]) as server:
        for sitting in range(2):  # the second takes it from the journal
            warned: list[str] = []
            ledger, journal = Ledger(Caps(llm_usd=0.5)), Journal(path)
            llm = Llm("openai:hostile", server.url, SETTINGS)
            with MeteredChat(llm, ledger, journal, warn=warned.append) as chat, journal:
                course = converse(chat, 4)
            assert isinstance(course.ended_by, CapBroken), sitting
            assert course.ended_by.stop_reason == "cap broken by the service"
            assert len(course.replies) == (1 if act == "dear refusal" else 2)
            assert re.search(said, str(course.ended_by))
            assert len(warned) == 1
            assert warned[0] in chat.remarks
            assert re.search(said, warned[0])
            assert settled(server) == ledger["llm_calls"] == 2
            if act in took:
                assert 0 < ledger["llm_tokens_out"] - took[act] < 400
        assert re.search(said, path.read_text())


def test_a_conversation_that_waits_for_room_under_a_cap_is_not_sent_after_a_broken_bound(
    tmp_path: Path,
) -> None:
    with HostileServer(["a little dear"], latency=0.2) as server:
        # Room for one bound at a time; for a second call too, by what the first took.
        chat, ledger, journal = meter(server.url, tmp_path / "j.jsonl", Caps(llm_tokens=1_700))
        with chat, journal, ThreadPoolExecutor(2) as pool:
            courses = list(pool.map(lambda name: converse(chat, 1, stream=name), "ab"))
        assert settled(server) == ledger["llm_calls"] == 1
    assert ledger.spent("llm_tokens") < 700
    assert sorted(len(one.replies) for one in courses) == [0, 1]
    (ended,) = [one.ended_by for one in courses if one.ended_by]
    assert isinstance(ended, CapBroken)


def test_without_a_cap_what_is_beyond_the_bound_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    with HostileServer(["dear", "beyond belief"]) as server:
        chat, ledger, journal = meter(server.url, tmp_path / "journal.jsonl")
        with chat, journal:
            course = converse(chat, 3)
        assert course.ended_by is None
        assert len(course.replies) == 3
    assert len(chat.remarks) == 1
    assert "the run goes on" in chat.remarks[0]
    assert 90_000 < ledger["llm_tokens_out"] < 91_000


@pytest.mark.parametrize(("act", "low"), [("counts low", "in"), ("counts nothing written", "out")])
def test_at_least_what_was_sent_and_received_is_charged(act: str, low: str, tmp_path: Path) -> None:
    with HostileServer([act] * 2) as server:
        chat, ledger, journal = meter(server.url, tmp_path / "journal.jsonl")
        with chat, journal:
            course = converse(chat, 2)
    first = course.replies[0]
    assert first.tokens_out == len(first.text.split())
    assert first.tokens_in == (11 if low == "in" else 400)
    assert first.estimated
    assert ledger["llm_tokens_out"] == sum(len(one.text.split()) for one in course.replies)
    assert len(chat.remarks) == 1
    assert "fewer tokens" in chat.remarks[0]


def test_every_act_belongs_to_one_group() -> None:
    assert len(ACTS) == sum(map(len, (GOOD, RETRYABLE, SLOW, COURSE, FATAL, BEYOND)))
