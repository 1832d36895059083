"""What can be spent stands in one table, and everything that prints reads it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.comparison.grid import EQUAL, left
from llmopt.comparison.table import SPENDS
from llmopt.report.story import AXES
from llmopt.runs.config import RunConfig
from llmopt.spend.currency import (
    CAPS,
    CURRENCIES,
    Spend,
    amount,
    label,
    phrase,
    worth_telling,
)
from llmopt.spend.ledger import Caps, Ledger


def test_every_cap_is_an_option_and_every_currency_knows_its_cap() -> None:
    assert {f.name for f in dataclasses.fields(Caps)} == set(CAPS)
    assert {cap.option for cap in CAPS.values()} <= set(vars(RunConfig()))
    assert {one.cap for one in CURRENCIES.values()} - {""} <= set(CAPS)
    assert set(CAPS) <= set(EQUAL)
    assert set(CAPS) - {"queries"} <= set(AXES)
    assert set(SPENDS) <= set(CURRENCIES)


ADDED = """
from llmopt.spend import currency
from llmopt.spend.currency import Currency

mine = Currency("pages_printed", "pages on paper", cap="queries", starts_work=True)
currency.CURRENCIES = {**currency.CURRENCIES, mine.name: mine}

from llmopt import live
from llmopt.cli import listings, show
from llmopt.comparison import render, table
from llmopt.comparison.grid import EQUAL, left
from llmopt.errors import BudgetExhausted
from llmopt.report import sections
from llmopt.runs.compose import compose
from llmopt.runs.config import RunConfig
from llmopt.runs.load import RunSummary
from llmopt.runs.plan import make_plan
from llmopt.spend.currency import CAPS, Spend
from llmopt.spend.ledger import Caps, Ledger
from llmopt.track.base import Tracking

ledger = Ledger(Caps(queries=5))
ledger.charge(pages_printed=2, text_encodings=2)
assert ledger.room("queries") == 1
try:
    ledger.charge(pages_printed=2)
    raise AssertionError
except BudgetExhausted as error:
    assert error.stop_reason == "budget: queries"
spent = ledger.snapshot()
seconds = {"total": 1.0, "black_box": 0.0, "llm": 0.0}
result = {"ledger": spent, "evaluation": Ledger().snapshot(), "seconds": seconds}
show.print_spent(show.console(), result, verbose=True)
listings.print_runs([RunSummary("folder", "complete", ledger=spent)], ".")
assert ("pages on paper", "2", "0") in sections._spent(result)
assert "pages_printed" in table.SPENDS and EQUAL["pages_printed"] is CAPS["queries"]
row = object.__new__(table.Row)
row.__dict__.update(arm="mine", spend={**Spend(), "pages_printed": 3.0}, gain=None)
table.Row.per_point = lambda row, name: None
header, (line,) = render.spend_table([row])
assert dict(zip(header, line))["pages on paper"] == "3"
assert row.queries == 3
assert left(RunConfig(max_queries=9), CAPS["queries"], spent, 0.0) == 5
view = live._Live(show.console())
view._ledger = ledger
assert ("queries (prompts encoded)", "4 of 5") in view._spend()
setup = compose(RunConfig(dataset="digits", optimizer="zeroshot"))
bounds = setup.optimizer.bounds
setup.optimizer.bounds = lambda task: bounds(task) + Spend(pages_printed=7)
plan = make_plan(setup)
assert {row.label: row.most_text for row in plan.rows}["pages on paper"] == "7"
assert plan.to_json()["upper_bounds"]["pages_printed"] == 7


class Told:
    def finish(self, figures, files):
        assert figures["spent/pages_printed"] == 2


def complain(text):
    raise AssertionError(text)


Tracking(Told(), complain, "told", {}).finished(
    {"baseline": {}, "best": {}, "gain": {}, "seconds": {}, "ledger": spent}
)
"""


def test_adding_a_currency_touches_the_table() -> None:
    """In a fresh interpreter, in which the table has one more line before anything reads it."""
    done = subprocess.run([sys.executable, "-c", ADDED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stdout.split()).count("pages on paper 2 0") == 1
    assert done.stdout.count("pages_printed") == 0


def test_what_was_lost_counts_against_the_caps_but_is_not_asked_of_the_next_run() -> None:
    spent = Spend(llm_calls=3, llm_calls_lost=2)
    assert spent.under("llm_calls") == 5
    assert left(RunConfig(max_llm_calls=9), CAPS["llm_calls"], spent, 0.0) == 6


def test_costs_are_told_of_what_was_bought() -> None:
    free = Ledger()
    free.charge(llm_calls=1, image_encodings=3)
    assert worth_telling(free.snapshot()) == ["image_encodings", "llm_calls", "llm_usd"]
    nothing = Ledger()
    nothing.price_known = False
    assert worth_telling(nothing.snapshot()) == []
    nothing.record(llm_calls_lost=1, llm_usd_lost=0.5)
    told = nothing.snapshot()
    assert [phrase(name, told[name]) for name in worth_telling(told)] == [
        "1 LLM calls lost",
        "LLM cost lost (at most) unknown",
    ]


def test_what_other_versions_count_is_passed_over() -> None:
    assert Spend.read({"goats": 3, "llm_calls": 1, "llm_usd": None}) == Spend(llm_calls=1)


@pytest.mark.parametrize("name", list(CURRENCIES))
def test_no_raw_name_is_printed(name: str) -> None:
    assert label(name) != name
    assert "_" not in label(name)


def test_amounts_for_people() -> None:
    assert amount("llm_usd", 0.01234) == "$0.0123"
    assert amount("llm_usd_lost", 1.0) == "$1.0000"
    assert amount("pairs_scored", 12345) == "12,345"
    assert amount("llm_usd", None) == "unknown"
    assert label("of_another_version") == "of another version"


AMOUNTS = st.dictionaries(st.sampled_from(list(CURRENCIES)), st.integers(0, 10**12))


@given(AMOUNTS, AMOUNTS)
def test_spends_add_up(one: dict[str, int], other: dict[str, int]) -> None:
    both = Spend(**one) + Spend(**other)
    assert all(both[name] == one.get(name, 0) + other.get(name, 0) for name in CURRENCIES)
    assert both.queries == both["text_encodings"] + both["soft_prompt_encodings"]


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(ValueError, match="goats"):
        Spend(goats=1)
    with pytest.raises(KeyError):
        Spend()["goats"]
    assert Spend(llm_usd=None) == Spend()
