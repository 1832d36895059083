"""Prices, and bounds that are bounds."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage, SystemMessage

from llmopt.errors import ConfigError
from llmopt.language.prices import (
    FREE,
    Price,
    _table,
    call_bound,
    parse_price,
    price_of,
    prices_date,
    require_price,
    text_bound,
)
from llmopt.language.providers import DEFAULT_OPENAI


def test_the_table_is_dated_and_sane() -> None:
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", prices_date())
    for models in _table()["models"].values():
        for entry in models.values():
            price = Price(**entry)
            assert 0 < price.input <= price.output < 1000
            assert (price.cache_read or 0) <= price.input <= (price.cache_write or 1e9)
            assert price.long_factor >= 1


def test_lookup() -> None:
    assert price_of(f"openai:{DEFAULT_OPENAI}") is not None
    assert price_of("openai:gpt-4o-2024-08-06") == price_of("openai:gpt-4o")
    assert price_of("anthropic:claude-haiku-4-5-20251001") == price_of("anthropic:claude-haiku-4-5")
    assert price_of("openai:no-such-model") is None
    assert price_of("nobody:gpt-4o") is None
    assert price_of("builtin") == price_of("replay:some/file") == FREE
    # A compatible server has prices of its own.
    assert price_of("openai:gpt-4o", base_url="http://localhost/v1") is None
    assert price_of("openai:x", "1,2", base_url="http://localhost/v1") == Price(1.0, 2.0)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1"])
def test_bad_prices(text: str) -> None:
    with pytest.raises(ConfigError, match="INPUT,OUTPUT"):
        parse_price(text)


def test_a_cap_on_money_needs_a_price() -> None:
    require_price("x:y", False, None)
    require_price("x:y", True, 1.0)
    with pytest.raises(ConfigError, match=r"--max-usd 1 cannot be kept.*'x:y'.*price="):
        require_price("x:y", False, 1.0)


def test_cost() -> None:
    price = Price(1.0, 10.0, cache_read=0.1, cache_write=1.25, long_after=1000, long_factor=2.0)
    assert price.cost(100, 10) == pytest.approx(200e-6)
    assert price.cost(100, 0, read=100) == pytest.approx(10e-6)
    assert price.cost(100, 0, read=40, written=40) == pytest.approx((20 + 4 + 50) * 1e-6)
    assert price.cost(100, 0, read=900, written=900) == pytest.approx(10e-6)
    assert price.cost(2000, 0) == pytest.approx(4000e-6)
    assert price.bound(100, 10) == pytest.approx((125 + 100) * 1e-6)


@settings(max_examples=200, derandomize=True)
@given(*[st.integers(0, 10**6)] * 4, st.sampled_from(["openai", "anthropic", "google_genai"]))
def test_no_cost_exceeds_its_bound(
    tokens_in: int, tokens_out: int, read: int, written: int, provider: str
) -> None:
    for entry in _table()["models"][provider].values():
        price = Price(**entry)
        cost = price.cost(tokens_in, tokens_out, read, written)
        assert cost <= price.bound(tokens_in, tokens_out) + 1e-12


@settings(max_examples=300, derandomize=True)
@given(st.text())
def test_no_tokenizer_makes_more_tokens_than_the_bound(text: str) -> None:
    # The finest a tokenizer can cut is one token a byte, of the text as written or normalised.
    import unicodedata

    bound = text_bound(text)
    for form in ("NFC", "NFKC"):
        pieces = unicodedata.normalize(form, text).encode("utf-8", "surrogatepass")
        assert bound >= len(pieces)


def test_the_bound_of_a_call() -> None:
    messages = [SystemMessage("s" * 10), HumanMessage("h" * 20)]
    bound = call_bound(messages, 100)
    assert bound.tokens_out == 100
    assert 30 < bound.tokens_in < 1000
    assert bound.tokens == bound.tokens_in + 100
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    shown = call_bound([HumanMessage([{"type": "text", "text": "look"}, picture])], 100)
    assert shown.tokens_in > 48_000
    assert call_bound([HumanMessage(string.printable * 100)], 0).tokens_in > 10_000
