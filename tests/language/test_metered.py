"""The metered chat: order of journal, budget and call; resume at every point; threads."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from patience import HUNG
from scripted import Scripted, answer

from llmopt.errors import (
    AuthenticationFailed,
    BudgetExhausted,
    CircuitOpen,
    ContentRefused,
    ContextOverflow,
    MalformedResponse,
    RateLimited,
    RunFolderError,
    ServiceTimeout,
    ServiceUnavailable,
)
from llmopt.language.cache import ResponseCache
from llmopt.language.llm import Llm
from llmopt.language.metered import MeteredChat
from llmopt.language.records import INTENT, REPLY
from llmopt.language.settings import LlmSettings
from llmopt.spend.journal import Journal, read_journal
from llmopt.spend.ledger import Caps, Ledger

SETTINGS = {
    "max_tokens": 100,
    "price": "1,4",
    "attempts": 4,
    "first_pause": 0.0,
    "call_seconds": 5.0,
    "breaker": 6,
}
LOST = ("llm_calls_lost", "llm_tokens_lost", "llm_usd_lost")


_opened: list[Journal] = []


@pytest.fixture(autouse=True)
def _close_journals() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


class Bench:
    """A metered chat over a scripted model, its journal kept in one file."""

    def __init__(
        self,
        path: Path,
        *script: Any,
        caps: Caps | None = None,
        model: Any = None,
        seed: int = 0,
        cache: ResponseCache | None = None,
        **settings: Any,
    ) -> None:
        self.model = model or Scripted(script=list(script))
        self.ledger = Ledger(caps)
        self.journal = Journal(path)
        _opened.append(self.journal)
        self.said: list[str] = []
        self.chat = MeteredChat(
            Llm("test:scripted", settings=LlmSettings(**SETTINGS | settings), model=self.model),
            self.ledger,
            self.journal,
            seed=seed,
            cache=cache,
            notify=self.said.append,
        )

    def ask(self, text: str = "hello", **place: Any) -> str:
        return self.chat.ask([HumanMessage(text)], **place).text

    def spent(self, *but: str) -> dict[str, Any]:
        return {k: v for k, v in self.ledger.snapshot().items() if k not in but and v}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def records(path: Path, kind: str) -> list[dict[str, Any]]:
    return [r["data"] for r in read_journal(path) if r["kind"] == kind]


def test_a_reply_is_charged_and_journaled(path: Path) -> None:
    bench = Bench(path, answer("<think>hm</think>- a {}", system_fingerprint="fp"))
    reply = bench.chat.ask([HumanMessage("hello")])
    assert (reply.text, reply.finish_reason, reply.model) == ("- a {}", "stop", "fake-1")
    assert (reply.tokens_in, reply.tokens_out, reply.calls) == (10, 5, 1)
    assert reply.usd == pytest.approx(30e-6)
    assert not reply.estimated
    assert bench.spent() == {
        "llm_calls": 1,
        "llm_tokens_in": 10,
        "llm_tokens_out": 5,
        "llm_usd": pytest.approx(30e-6),
    }
    (intent,), (written,) = records(path, INTENT), records(path, REPLY)
    assert intent["messages"] == [["human", "hello"]]
    assert written["text"] == "<think>hm</think>- a {}"
    assert written["fingerprint"] == "fp"


def test_the_reply_is_on_disk_before_it_is_handed_out(path: Path) -> None:
    bench = Bench(path)
    text = bench.ask()
    assert json.loads(path.read_text().splitlines()[-1])["data"]["text"] == text


def test_the_intent_is_on_disk_before_anything_is_sent(path: Path) -> None:
    seen = []

    class Spy(Scripted):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(len(records(path, INTENT)))
            return super()._generate(messages, *args, **kwargs)

    Bench(path, model=Spy()).ask()
    assert seen == [1]


def test_nothing_is_sent_that_cannot_be_journaled(path: Path) -> None:
    bench = Bench(path)
    bench.journal.close()
    bench.journal._file = _Full()
    with pytest.raises(RunFolderError, match="No space left"):
        bench.ask()
    assert bench.model.calls == 0
    assert bench.spent() == {}


class _Full:
    """A file on a full disk."""

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def truncate(self, size: int) -> None:
        pass

    def close(self) -> None:
        pass


def test_without_usage_the_upper_bound_is_charged(path: Path) -> None:
    from langchain_core.messages import AIMessage

    bench = Bench(path, AIMessage("- a {}"))
    reply = bench.chat.ask([HumanMessage("hello")])
    assert reply.estimated
    assert reply.tokens_out == 100
    assert reply.tokens_in >= len("hello")


def test_without_a_price_money_is_not_known(path: Path) -> None:
    bench = Bench(path, price="")
    assert bench.chat.ask([HumanMessage("hello")]).usd is None
    assert bench.ledger.snapshot()["llm_usd"] is None


# -------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize(
    "caps", [Caps(llm_calls=2), Caps(llm_tokens=1400), Caps(llm_usd=0.0018), Caps(llm_calls=0)]
)
def test_no_cap_is_passed(path: Path, caps: Caps) -> None:
    bench = Bench(path, *[answer("x")] * 5, caps=caps)
    with pytest.raises(BudgetExhausted):
        _ = [bench.ask("hello " * 10, turn=turn) for turn in range(200)]
    spent = bench.ledger
    assert bench.model.calls == spent["llm_calls"]
    assert caps.llm_calls is None or spent["llm_calls"] == caps.llm_calls
    assert caps.llm_tokens is None or spent["llm_tokens_in"] + spent["llm_tokens_out"] <= 1400
    assert caps.llm_usd is None or spent["llm_usd"] <= caps.llm_usd


def test_failed_calls_count(path: Path) -> None:
    bench = Bench(path, RateLimited("no"), ServiceUnavailable("no"), "- a {}")
    assert bench.chat.ask([HumanMessage("hello")]).calls == 3
    # A call turned away cost no tokens; one that broke off may have, so it costs its upper bound.
    assert bench.spent()["llm_calls"] == 3
    assert bench.spent()["llm_tokens_out"] == 100 + 5


def test_retries_keep_to_the_cap_on_calls(path: Path) -> None:
    bench = Bench(path, *[RateLimited("no")] * 9, caps=Caps(llm_calls=2))
    with pytest.raises(BudgetExhausted):
        bench.ask()
    assert bench.model.calls == 2


def test_a_pause_that_outlasts_the_run_ends_it(path: Path) -> None:
    bench = Bench(path, RateLimited("no", retry_after=200.0), caps=Caps(seconds=150.0))
    began = time.monotonic()
    with pytest.raises(BudgetExhausted, match="150 seconds"):
        bench.ask()
    assert time.monotonic() - began < HUNG


def test_an_interrupt_ends_a_pause(path: Path) -> None:
    bench = Bench(path, RateLimited("no", retry_after=100.0))
    threading.Timer(0.2, bench.ledger.stop).start()
    began = time.monotonic()
    with pytest.raises(BudgetExhausted, match="interrupted"):
        bench.ask()
    assert time.monotonic() - began < HUNG
    assert bench.said == [s for s in bench.said if re.match(r"waiting 1[01]\d s", s)]


def test_a_call_that_takes_too_long_is_left_behind(path: Path) -> None:
    slow = Scripted(latency=1.0)
    bench = Bench(path, model=slow, attempts=1, call_seconds=0.1, caps=Caps(llm_calls=9))
    with pytest.raises(ServiceTimeout, match="gave up after 1 try"):
        bench.ask()
    assert set(bench.spent()) == {"llm_calls_lost", "llm_tokens_lost", "llm_usd_lost"}
    assert bench.ledger["llm_calls_lost"] == 1
    assert bench.ledger["llm_tokens_lost"] > 100
    assert bench.ledger["llm_usd_lost"] > 0
    (said,) = [line for line in bench.said if "counts as lost" in line]
    assert "did not answer within 0.1 s" in said
    assert said.endswith("lost (1 of 9 calls used)")
    again = Bench(path, "- a {}")
    assert again.chat.ask([HumanMessage("hello")]).calls == 2
    assert again.ledger["llm_calls_lost"] == 1
    time.sleep(1.0)  # its thread ends within the test


# ------------------------------------------------------------------------------------- failures


def test_giving_up_says_how_to_go_on(path: Path) -> None:
    bench = Bench(path, *[ServiceUnavailable("it is down")] * 9)
    with pytest.raises(ServiceUnavailable, match=r"down; gave up after 4 tries.*llmopt resume"):
        bench.ask()
    assert bench.model.calls == 4
    # Resumed, the failures are counted but do not use up the patience of this sitting.
    again = Bench(path)
    assert again.chat.ask([HumanMessage("hello")]).calls == 5
    assert again.spent()["llm_calls"] == 5
    assert again.model.calls == 1


def test_the_circuit_opens_for_all(path: Path) -> None:
    bench = Bench(path, *[ServiceUnavailable("it is down")] * 99)
    with pytest.raises(ServiceUnavailable):
        bench.ask(stream="a")
    with pytest.raises(CircuitOpen, match="6 calls in a row failed"):
        bench.ask(stream="b")
    with pytest.raises(CircuitOpen, match="llmopt resume"):
        bench.ask(stream="c")
    assert bench.model.calls == bench.ledger["llm_calls"] == 6


def test_a_bad_key_stops_every_conversation(path: Path) -> None:
    bench = Bench(path, AuthenticationFailed("the key is wrong"))
    with pytest.raises(AuthenticationFailed):
        bench.ask(stream="a")
    with pytest.raises(CircuitOpen, match="the key is wrong"):
        bench.ask(stream="b")
    assert bench.model.calls == 1
    assert bench.spent() == {"llm_calls": 1}
    assert Bench(path).ask(stream="a").startswith("- photo")


def test_course_failures_come_again_on_resume(path: Path) -> None:
    script = (ContextOverflow("too long"), "- b {}", ContentRefused("no"), "- c {}")
    for sitting in range(2):
        bench = Bench(path, *(script if sitting == 0 else ()))
        with pytest.raises(ContextOverflow):
            bench.ask("a", turn=0)
        assert bench.ask("b", turn=0) == "- b {}"
        with pytest.raises(ContentRefused):
            bench.ask("c", turn=1)
        assert bench.ask("c2", turn=1) == "- c {}"
        assert bench.spent()["llm_calls"] == 4
        assert bench.model.calls == (4 if sitting == 0 else 0)


def test_an_empty_answer_is_tried_again_at_its_price(path: Path) -> None:
    bench = Bench(path, answer(""), answer("  "), "- a {}")
    assert bench.ask() == "- a {}"
    assert bench.spent()["llm_tokens_out"] == 15


def test_a_bug_in_our_own_models_is_shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmopt.language.builtin import BuiltinRewriter

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("bug")

    monkeypatch.setattr(BuiltinRewriter, "_generate", broken)
    with pytest.raises(KeyError):
        Bench(path, model=BuiltinRewriter(seed=1)).ask()


def test_only_a_class_that_says_so_is_local(path: Path) -> None:
    """A model of a user is never taken for one of ours, whatever its module is called."""

    class Foreign(Scripted):
        pass

    Foreign.__module__ = "llmopt.language.foreign"
    assert Bench(path, model=Foreign(script=[KeyError("bug")])).ask()


def test_an_error_of_no_known_kind_is_an_unreadable_answer(path: Path) -> None:
    bench = Bench(path, KeyError("choices"), "- a {}")
    assert bench.ask() == "- a {}"
    (failed, _) = records(path, REPLY)
    assert failed["error"]["type"] == "MalformedResponse"


def test_a_reply_that_is_all_thought_says_what_to_set(path: Path) -> None:
    bench = Bench(path, answer("<think>so many options", finish_reason="length"))
    reply = bench.chat.ask([HumanMessage("hello")])
    assert (reply.text, reply.finish_reason) == ("", "length")
    assert "max_tokens" in bench.said[0]


def test_another_model_is_noticed(path: Path) -> None:
    bench = Bench(path, answer("a", model_name="m-1"), answer("b", model_name="m-2"))
    bench.ask(turn=0)
    bench.ask(turn=1)
    assert bench.said == ["test:scripted now answers as m-2, before as m-1"]


# --------------------------------------------------------------------------------------- resume


def conversation(bench: Bench, turns: int = 6) -> list[str]:
    """What a search would do: each question depends on the replies before."""
    said = ""
    replies = []
    for turn in range(turns):
        said += bench.ask(f"{turn}: {said}", turn=turn)
        replies.append(said)
    return replies


def test_resumed_at_every_byte(tmp_path: Path) -> None:
    """Cut the journal anywhere, as a crash may: the same course, and one call lost at most."""
    flaky = [RateLimited("no"), "- a {}", ServiceUnavailable("no"), MalformedResponse("no")]
    whole = tmp_path / "whole.jsonl"
    undisturbed = Bench(whole, *flaky)
    course = conversation(undisturbed)
    raw = whole.read_bytes()
    starts = [0, *[i + 1 for i, b in enumerate(raw) if b == 10]]
    rng = random.Random(1)
    cuts = sorted({*starts, *(rng.randrange(len(raw)) for _ in range(25))})
    for cut in cuts:
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(raw[:cut])
        answered = [r for r in read_journal(path) if r["kind"] == REPLY]
        in_flight = len([r for r in read_journal(path) if r["kind"] == INTENT]) - len(answered)
        resumed = Bench(path, *flaky[len(answered) :])
        assert conversation(resumed) == course
        assert resumed.spent(*LOST) == undisturbed.spent(*LOST)
        assert resumed.ledger["llm_calls_lost"] == in_flight <= 1
        assert resumed.model.calls == undisturbed.model.calls - len(answered)
        # A second resume finds everything, the loss included.
        again = Bench(path)
        assert conversation(again) == course
        assert again.model.calls == 0
        assert again.ledger.snapshot() == resumed.ledger.snapshot()


def test_lost_calls_count_against_the_caps(path: Path) -> None:
    Bench(path).ask()
    intent = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(intent)
    bench = Bench(path, caps=Caps(llm_calls=1))
    with pytest.raises(BudgetExhausted):
        bench.ask()
    assert bench.spent() == {
        "llm_calls_lost": 1,
        "llm_tokens_lost": bench.ledger["llm_tokens_lost"],
        "llm_usd_lost": pytest.approx(bench.ledger["llm_usd_lost"]),
    }
    assert bench.ledger["llm_tokens_lost"] > 100


def test_what_was_paid_is_counted_even_when_the_time_is_up(path: Path) -> None:
    course = conversation(Bench(path))
    resumed = Bench(path, caps=Caps(seconds=0.0, llm_calls=2))
    assert conversation(resumed) == course
    assert resumed.ledger["llm_calls"] == 6


def test_another_model_or_temperature_asks_anew(path: Path) -> None:
    first = Bench(path, model=Scripted(temperature=0.5))
    first.ask()
    second = Bench(path, model=Scripted(temperature=0.6))
    second.ask()
    assert second.model.calls == 1


def test_the_same_question_twice_is_two_questions(path: Path) -> None:
    bench = Bench(path, "one", "two", "three")
    assert [bench.ask(), bench.ask(), bench.ask(stream="b")] == ["one", "two", "three"]
    again = Bench(path)
    assert [again.ask(), again.ask(), again.ask(stream="b")] == ["one", "two", "three"]
    assert again.model.calls == 0


# ---------------------------------------------------------------------------------------- cache


def test_the_cache_answers_another_run(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "cache")
    first = Bench(tmp_path / "a.jsonl", "one", "two", cache=cache)
    assert [first.ask(), first.ask()] == ["one", "two"]
    second = Bench(tmp_path / "b.jsonl", cache=cache)
    assert [second.ask(), second.ask()] == ["one", "two"]
    assert second.model.calls == 0
    # Both runs of the command spend the same; what was really sent is the difference.
    assert second.spent("llm_calls_cached") == first.spent()
    assert second.ledger["llm_calls_cached"] == 2
    # Resumed, it needs neither cache nor service.
    third = Bench(tmp_path / "b.jsonl")
    assert [third.ask(), third.ask()] == ["one", "two"]
    assert third.ledger.snapshot() == second.ledger.snapshot()


def test_another_seed_or_stream_is_another_sample(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "cache")
    Bench(tmp_path / "a.jsonl", "one", cache=cache).ask()
    assert Bench(tmp_path / "b.jsonl", "two", cache=cache, seed=1).ask() == "two"
    assert Bench(tmp_path / "c.jsonl", "three", cache=cache).ask(stream="x") == "three"


def test_the_cache_keeps_to_the_caps(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "cache")
    Bench(tmp_path / "a.jsonl", cache=cache).ask()
    bench = Bench(tmp_path / "b.jsonl", cache=cache, caps=Caps(llm_calls=0))
    with pytest.raises(BudgetExhausted):
        bench.ask()


@pytest.mark.parametrize("text", ["hello sk-abcdefghijklmnop", "my-own-secret-key"])
def test_nothing_with_a_secret_is_cached(tmp_path: Path, text: str) -> None:
    from pydantic import SecretStr

    cache = ResponseCache(tmp_path / "cache")
    for name in "ab":
        model = Scripted(api_key=SecretStr("my-own-secret-key"))
        bench = Bench(tmp_path / f"{name}.jsonl", model=model, cache=cache)
        bench.ask(text)
        assert bench.model.calls == 1
    assert not list(tmp_path.glob("cache/**/*.json"))


def test_a_damaged_cache_is_no_cache(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "cache")
    Bench(tmp_path / "a.jsonl", "one", cache=cache).ask()
    (entry,) = (tmp_path / "cache").glob("*/*.json")
    for n, damage in enumerate(["", "{", "[]", '{"version": 1, "reply": {"text": 3}}']):
        entry.write_text(damage)
        assert Bench(tmp_path / f"{n}.jsonl", "two", cache=cache).ask() == "two"


# -------------------------------------------------------------------------------------- threads


def test_conversations_side_by_side(tmp_path: Path) -> None:
    """Same replies and ledger as one after another, with all of them on their way at once."""

    def run(bench: Bench, parallel: int) -> list[list[str]]:
        def one(number: int) -> list[str]:
            said = ""
            course = []
            for turn in range(3):
                said += bench.ask(f"{number} {turn} {said}", stream=f"s{number}", turn=turn)
                course.append(said)
            return course

        with ThreadPoolExecutor(parallel) as pool:
            return list(pool.map(one, range(8)))

    alone = Bench(tmp_path / "alone.jsonl", model=Scripted())
    course = run(alone, 1)
    beside = Bench(tmp_path / "beside.jsonl", model=Scripted(together=8))
    assert run(beside, 8) == course
    assert beside.ledger.snapshot() == alone.ledger.snapshot()
    # And it resumes in any order.
    again = Bench(tmp_path / "beside.jsonl")
    assert run(again, 3) == course
    assert again.model.calls == 0


def test_threads_cannot_overrun_a_cap_together(tmp_path: Path) -> None:
    for cap in (Caps(llm_calls=10), Caps(llm_tokens=7000), Caps(llm_usd=0.01)):
        model = Scripted(latency=0.002)
        bench = Bench(tmp_path / f"{cap}.jsonl", model=model, caps=cap)

        def one(number: int, bench: Bench = bench) -> None:
            try:
                for turn in range(50):
                    bench.ask(f"{number} {turn}", stream=f"s{number}", turn=turn)
            except BudgetExhausted:
                pass

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        spent = bench.ledger
        assert model.calls == spent["llm_calls"] > 5
        assert cap.llm_calls is None or spent["llm_calls"] == 10
        assert spent["llm_tokens_in"] + spent["llm_tokens_out"] <= (cap.llm_tokens or 1e9)
        assert spent["llm_usd"] <= (cap.llm_usd or 1e9)


def test_one_limiter_paces_all(tmp_path: Path) -> None:
    """600 requests a minute are 10 a second once the first minute's stock is gone."""
    bench = Bench(tmp_path / "j.jsonl", requests_per_minute=600)
    for _ in range(598):
        bench.chat._caller.line.wait(1)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: bench.ask(str(n), stream=str(n)), range(8)))
    assert time.monotonic() - began >= 0.4
    assert bench.model.calls == 8


def test_nothing_of_the_key_is_shown(path: Path) -> None:
    from pydantic import SecretStr

    secret = "a-very-private-key-42"
    model = Scripted(
        api_key=SecretStr(secret),
        script=[
            RuntimeError(f"header was {secret}"),
            AuthenticationFailed(f"you sent {secret}"),
        ],
    )
    bench = Bench(path, model=model)
    with pytest.raises(AuthenticationFailed) as caught:
        bench.ask(f"my key is {secret}")
    assert secret not in path.read_text()
    assert "a-very" not in repr(bench.chat)
    assert caught.value.__cause__ is None
