"""The ledger: no cap is ever passed, by one thread or by many."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.errors import BudgetExhausted
from llmopt.spend.currency import CURRENCIES
from llmopt.spend.ledger import Caps, Ledger

QUICK = settings(max_examples=200, derandomize=True)


def test_reserve_and_settle() -> None:
    ledger = Ledger(Caps(llm_calls=2, llm_tokens=100))
    with ledger.reserve(llm_calls=1, llm_tokens_in=30, llm_tokens_out=50) as reservation:
        assert ledger.room("llm_tokens") == 20
        assert ledger["llm_calls"] == 0
        reservation.settle(llm_calls=1, llm_tokens_in=20, llm_tokens_out=10)
    assert ledger["llm_tokens_in"] == 20
    assert ledger.room("llm_tokens") == 70
    with pytest.raises(BudgetExhausted, match="100 llm tokens") as caught:
        ledger.reserve(llm_calls=1, llm_tokens_out=71)
    assert (caught.value.currency, caught.value.cap) == ("llm_tokens", 100)
    ledger.reserve(llm_calls=1, llm_tokens_out=70).release()
    assert ledger.room("llm_tokens") == 70
    assert ledger["llm_calls"] == 1


def test_a_part_has_tighter_caps_and_leaves_the_others_as_they_were() -> None:
    ledger = Ledger(Caps(queries=100))
    ledger.charge(text_encodings=10)
    with ledger.within(queries=30, llm_calls=2):
        assert (ledger.room("queries"), ledger.room("llm_calls")) == (30, 2)
        with pytest.raises(BudgetExhausted):
            ledger.charge(text_encodings=31)
        ledger.charge(text_encodings=30, llm_calls=2)
    assert (ledger.room("queries"), ledger.room("llm_calls")) == (60, float("inf"))
    with ledger.within(queries=1000):
        assert ledger.room("queries") == 60
    state = ledger.state()
    ledger.charge(llm_calls=1, cache_hits=5)
    assert ledger.since(state) == {"llm_calls": 1}


def test_what_is_never_settled_stays_charged() -> None:
    ledger = Ledger(Caps(llm_calls=5))
    with pytest.raises(RuntimeError), ledger.reserve(llm_calls=1, llm_usd=0.5):
        raise RuntimeError
    assert ledger["llm_calls"] == 1
    assert ledger["llm_usd"] == 0.5


def test_settled_once() -> None:
    reservation = Ledger().reserve(llm_calls=1)
    reservation.settle(llm_calls=1)
    with pytest.raises(RuntimeError, match="settled already"):
        reservation.settle(llm_calls=1)


def test_wrong_names_and_amounts() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="unknown currency"):
        ledger.charge(llm_cents=1)
    with pytest.raises(ValueError, match="cannot spend"):
        ledger.charge(llm_calls=-1)
    with pytest.raises(ValueError, match="cannot spend"):
        ledger.charge(llm_calls=float("nan"))
    with pytest.raises(ValueError, match="must be 0 or more"):
        Caps(llm_usd=-1.0)
    assert not any(ledger[name] for name in CURRENCIES)


def test_lost_calls_count_against_the_caps_of_what_they_are() -> None:
    ledger = Ledger(Caps(llm_calls=2, llm_tokens=100, llm_usd=1.0))
    ledger.record(llm_calls_lost=1, llm_tokens_lost=60, llm_usd_lost=0.9)
    assert ledger.room("llm_calls") == 1
    assert ledger.room("llm_tokens") == 40
    assert ledger.room("llm_usd") == pytest.approx(0.1)
    assert ledger["llm_calls"] == 0


def test_record_asks_no_cap() -> None:
    ledger = Ledger(Caps(llm_calls=1, seconds=0.0))
    ledger.record(llm_calls=3)
    assert ledger["llm_calls"] == 3
    with pytest.raises(BudgetExhausted):
        ledger.charge(llm_calls=1)


def test_time_and_interrupt() -> None:
    now = 0.0
    ledger = Ledger(Caps(seconds=10.0), clock=lambda: now)
    assert ledger.room("seconds") == 10.0
    ledger.charge(llm_calls=1)
    now = 10.0
    with pytest.raises(BudgetExhausted, match="10 seconds"):
        ledger.charge(llm_calls=1)
    ledger.charge(cache_hits=1)  # looking at what is paid for is allowed
    other = Ledger()
    assert not other.stopped
    other.stop()
    assert other.stopped
    with pytest.raises(BudgetExhausted, match="interrupted"):
        other.charge(text_encodings=1)


def test_snapshot() -> None:
    ledger = Ledger()
    ledger.charge(llm_calls=1, llm_usd=0.1)
    ledger.charge(llm_usd=0.2)
    snapshot = ledger.snapshot()
    assert list(snapshot) == [name for name, one in CURRENCIES.items() if not one.rare]
    assert snapshot["llm_usd"] == 0.3
    assert snapshot["llm_calls"] == 1
    assert isinstance(snapshot["llm_calls"], int)
    ledger.price_known = False
    assert ledger.snapshot()["llm_usd"] is None
    assert ledger.snapshot()["llm_usd_lost"] is None
    ledger.charge(box_usd=0.5)
    assert ledger.snapshot()["box_usd"] == 0.5  # the price of the box is known


_SPENDS = st.lists(
    st.tuples(
        st.integers(0, 3),  # calls
        st.integers(0, 60),  # tokens in, upper bound
        st.integers(0, 60),  # tokens out, upper bound
        st.floats(0, 0.2),  # dollars, upper bound
        st.integers(0, 20),  # prompts encoded
        st.sampled_from(["settle", "less", "release", "fail"]),
    ),
    max_size=30,
)
_CAPS = st.builds(
    Caps,
    llm_calls=st.none() | st.integers(0, 10),
    llm_tokens=st.none() | st.integers(0, 300),
    llm_usd=st.none() | st.floats(0, 1.0),
    queries=st.none() | st.integers(0, 60),
)


def spend(ledger: Ledger, amounts: tuple[int, int, int, float, int, str]) -> None:
    calls, tokens_in, tokens_out, usd, queries, end = amounts
    upper = {
        "llm_calls": calls,
        "llm_tokens_in": tokens_in,
        "llm_tokens_out": tokens_out,
        "llm_usd": usd,
        "text_encodings": queries // 2,
        "soft_prompt_encodings": queries - queries // 2,
    }
    try:
        with ledger.reserve(**upper) as reservation:
            if end == "settle":
                reservation.settle(**upper)
            elif end == "less":
                reservation.settle(**{name: value / 2 for name, value in upper.items()})
            elif end == "release":
                reservation.release()
    except BudgetExhausted:
        pass


def check(ledger: Ledger) -> None:
    caps = ledger.caps
    assert caps.llm_calls is None or ledger["llm_calls"] <= caps.llm_calls
    tokens = ledger["llm_tokens_in"] + ledger["llm_tokens_out"]
    assert caps.llm_tokens is None or tokens <= caps.llm_tokens
    assert caps.llm_usd is None or ledger["llm_usd"] <= caps.llm_usd + 1e-6
    queries = ledger["text_encodings"] + ledger["soft_prompt_encodings"]
    assert caps.queries is None or queries <= caps.queries


@QUICK
@given(_CAPS, _SPENDS)
def test_no_cap_is_passed(caps: Caps, spends: list[tuple[int, int, int, float, int, str]]) -> None:
    ledger = Ledger(caps)
    for amounts in spends:
        spend(ledger, amounts)
        check(ledger)
    for cap in ("llm_calls", "llm_tokens", "llm_usd", "queries"):
        assert ledger.room(cap) >= -1e-6  # nothing is left reserved


@settings(max_examples=20, derandomize=True)
@given(_CAPS, st.integers(0, 2**32))
def test_no_cap_is_passed_by_threads(caps: Caps, seed: int) -> None:
    ledger = Ledger(caps)

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        for _ in range(15):
            ends = ["settle", "less", "release", "fail"]
            amounts = [rng.randrange(n) for n in (3, 60, 60)]
            spend(ledger, (*amounts, rng.random() * 0.2, rng.randrange(20), rng.choice(ends)))  # type: ignore[arg-type]
            check(ledger)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    check(ledger)


def test_open_reservations_of_others_are_waited_for() -> None:
    """A cautious upper bound of one thread must not end the search of another."""
    ledger = Ledger(Caps(llm_tokens=100))
    first = ledger.reserve(llm_tokens_out=90)
    got = threading.Event()

    def second() -> None:
        with ledger.reserve(llm_tokens_out=90) as reservation:
            reservation.settle(llm_tokens_out=1)
        got.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not got.wait(0.1)
    first.settle(llm_tokens_out=5)
    thread.join(5)
    assert got.is_set()
    with pytest.raises(BudgetExhausted):
        ledger.reserve(llm_tokens_out=95)
