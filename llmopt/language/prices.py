"""What a call may cost: prices, and upper bounds that really are bounds.

Prices come from ``prices.toml``, which carries the date they were read. A model that is not in it
has no price: its tokens are counted, its money is not known, and a cap on money is refused.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from llmopt.errors import ConfigError

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_MILLION = 1_000_000
_LONGEST_TOKEN = 128
# What a service may wrap around the text: its chat template, a default system text, a schema.
_PER_REQUEST = 512
_PER_MESSAGE = 16
# The most any priced model charges for one picture (2,048 pixels wide, high detail).
_PER_IMAGE = 50_000
# Snapshots ("gpt-4o-2024-08-06", "claude-haiku-4-5-20251001") cost what their model costs.
_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$|-latest$")
FREE_PROVIDERS = ("builtin", "replay")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens.

    Attributes:
        input: what is sent.
        output: what is written, reasoning included.
        cache_read: sent before and still in the service's prompt cache; None is as ``input``.
        cache_write: put into that cache, where that costs extra; None is as ``input``.
        long_after, long_factor: beyond so many input tokens all rates are multiplied.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    long_after: int | None = None
    long_factor: float = 1.0

    def bound(self, tokens_in: int, tokens_out: int) -> float:
        """The most a call of that size can cost."""
        dearest = max(self.input, self.cache_read or 0.0, self.cache_write or 0.0)
        return self._dollars(tokens_in, tokens_in * dearest, tokens_out)

    def cost(self, tokens_in: int, tokens_out: int, read: int = 0, written: int = 0) -> float:
        """What a call cost of which ``read`` and ``written`` input tokens met the cache."""
        read = min(read, tokens_in)
        written = min(written, tokens_in - read)
        rate_read = self.input if self.cache_read is None else self.cache_read
        rate_written = self.input if self.cache_write is None else self.cache_write
        plain = tokens_in - read - written
        paid_in = plain * self.input + read * rate_read + written * rate_written
        return self._dollars(tokens_in, paid_in, tokens_out)

    def _dollars(self, tokens_in: int, paid_in: float, tokens_out: int) -> float:
        long = self.long_after is not None and tokens_in > self.long_after
        factor = self.long_factor if long else 1.0
        return factor * (paid_in + tokens_out * self.output) / _MILLION


FREE = Price(0.0, 0.0)


@dataclass(frozen=True)
class Bound:
    """The most tokens one call can take."""

    tokens_in: int
    tokens_out: int

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.tokens_in + self.tokens_out


def price_of(spec: str, given: str = "", base_url: str = "") -> Price | None:
    """The price of ``provider:model``, or None where it is not known.

    Args:
        spec: as ``--llm`` takes it.
        given: ``INPUT,OUTPUT`` in dollars per million tokens from the user; wins over the table.
        base_url: of a compatible server, whose prices the table does not know.
    """
    if given:
        return parse_price(given)
    provider, _, model = spec.partition(":")
    if provider in FREE_PROVIDERS:
        return FREE
    if base_url:
        return None
    table = _table()["models"].get(provider, {})
    entry = table.get(model) or table.get(_SNAPSHOT.sub("", model))
    return Price(**entry) if entry else None


PER_TOKEN: Final = "INPUT,OUTPUT in US dollars per million tokens"
"""How the price of a model that is paid by the token is given."""


def parse_price(text: str, form: str = PER_TOKEN) -> Price:
    """A price the user gives as ``INPUT,OUTPUT``.

    Args:
        text: two amounts.
        form: what they are, for the error.
    """
    try:
        input_, output = (float(part) for part in text.split(","))
        if not 0 <= input_ < 1e6 or not 0 <= output < 1e6:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"the price {text!r} is not two amounts; write {form}, as in 0.25,2.00"
        ) from None
    return Price(input_, output)


def require_price(
    spec: str,
    known: bool,
    max_usd: float | None,
    option: str = "--llm-set",
    form: str = PER_TOKEN,
    instead: str = "--max-tokens",
) -> None:
    """Refuse a cap on money that could not be kept.

    Raises:
        ConfigError: there is a cap and no price.
    """
    if max_usd is not None and not known:
        raise ConfigError(
            f"--max-usd {max_usd:g} cannot be kept: the price of '{spec}' is not known; give it "
            f"as {option} price={form}, or cap {instead}"
        )


def prices_date() -> str:
    """The day the table of prices was read, as ``YYYY-MM-DD``."""
    return str(_table()["date"])


def text_bound(text: str) -> int:
    """The most tokens a text can take in any tokenizer.

    Byte-level tokenizers never make more tokens than there are UTF-8 bytes; those that normalise
    first (NFKC) may see more bytes than were written, so both forms are measured.
    """
    compatible = unicodedata.normalize("NFKC", text)
    return max(_bytes(text), _bytes(compatible)) + 1


def text_least(text: str) -> int:
    """The fewest tokens a text can take in any tokenizer in use.

    None joins words, and none has a token of more than 128 bytes.
    """
    return max(len(text.split()), ceil(_bytes(text) / _LONGEST_TOKEN))


def call_bound(messages: Iterable[BaseMessage], reply_tokens: int) -> Bound:
    """The most tokens a call with these messages and a reply of so many tokens can take."""
    total = _PER_REQUEST
    for message in messages:
        total += _PER_MESSAGE + _content_bound(message.content)
    return Bound(total, reply_tokens)


def _content_bound(content: str | Sequence[Any]) -> int:
    if isinstance(content, str):
        return text_bound(content)
    total = 0
    for part in content:
        if isinstance(part, str):
            total += text_bound(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            total += text_bound(part["text"])
        else:
            total += _PER_IMAGE
    return total


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


@cache
def _table() -> dict[str, Any]:
    source = files("llmopt.language").joinpath("prices.toml").read_text(encoding="utf-8")
    return tomllib.loads(source)
