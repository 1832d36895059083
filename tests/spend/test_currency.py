"""What can be spent stands in one table, and everything that prints reads it."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.cli import show
from llmopt.comparison.grid import EQUAL
from llmopt.comparison.table import SPENDS
from llmopt.report import sections
from llmopt.report.story import AXES
from llmopt.runs.config import RunConfig
from llmopt.spend import currency, ledger
from llmopt.spend.currency import CAPS, CURRENCIES, Currency, Spend, amount, label
from llmopt.spend.ledger import Caps, Ledger


def test_every_cap_is_an_option_and_every_currency_knows_its_cap() -> None:
    assert {f.name for f in dataclasses.fields(Caps)} == set(CAPS)
    assert {cap.option for cap in CAPS.values()} <= set(vars(RunConfig()))
    assert {one.cap for one in CURRENCIES.values()} - {""} <= set(CAPS)
    assert set(CAPS) <= set(EQUAL)
    assert set(CAPS) - {"queries"} <= set(AXES)
    assert set(SPENDS) <= set(CURRENCIES)


def test_adding_a_currency_touches_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Currency("pages_printed", "pages on paper", cap="queries")
    monkeypatch.setattr(currency, "CURRENCIES", MappingProxyType({**CURRENCIES, mine.name: mine}))
    monkeypatch.setattr(ledger, "CURRENCIES", currency.CURRENCIES)
    account = Ledger(Caps(queries=5))
    account.charge(pages_printed=2, text_encodings=2)
    assert account.room("queries") == 1
    spent = account.snapshot()
    assert spent["pages_printed"] == 2
    result = {
        "ledger": spent,
        "evaluation": Ledger().snapshot(),
        "seconds": {"total": 1.0, "black_box": 0.0, "llm": 0.0},
    }
    show._print_ledger(show.console(), result)
    assert "2 pages on paper" in capsys.readouterr().out
    assert ("pages on paper", "2", "0") in sections._spent(result)
    assert Spend(**spent).queries == 4


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
    assert both.text_encodings == both["text_encodings"]


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(ValueError, match="goats"):
        Spend(goats=1)
    with pytest.raises(KeyError):
        Spend()["goats"]
    assert Spend(llm_usd=None) == Spend()
