"""What can be spent, and what caps it: the two tables everything else reads.

A new currency is a line here. Ledger, plan, results, comparisons, reports and trackers take its
name, label, unit and cap from that line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Cap:
    """A limit on one or several currencies.

    Attributes:
        name: in ledgers and plans.
        option: the field of a config that sets it.
        label: for people.
        unit: ``USD``, ``s``, or nothing for counts.
    """

    name: str
    option: str
    label: str
    unit: str = ""

    @property
    def flag(self) -> str:
        """The option on a command line."""
        return f"--{self.option.replace('_', '-')}"


@dataclass(frozen=True)
class Currency:
    """One kind of spend.

    Attributes:
        name: in ledgers, results and journals.
        label: for people.
        unit: ``USD``, or nothing for counts.
        cap: the name of the cap that holds it; empty where none does.
        starts_work: it pays for new work, which is not begun once time is up or the run is
            interrupted; what is paid for already may still be looked at.
        compared: comparisons set it beside accuracy.
    """

    name: str
    label: str
    unit: str = ""
    cap: str = ""
    starts_work: bool = False
    compared: bool = True


def _table(*entries: Any) -> dict[str, Any]:
    return {entry.name: entry for entry in entries}


CAPS: Final[Mapping[str, Cap]] = _table(
    Cap("queries", "max_queries", "queries (prompts encoded)"),
    Cap("llm_calls", "max_llm_calls", "LLM calls"),
    Cap("llm_tokens", "max_tokens", "LLM tokens"),
    Cap("llm_usd", "max_usd", "LLM cost", "USD"),
    Cap("seconds", "max_seconds", "seconds", "s"),
)

CURRENCIES: Final[Mapping[str, Currency]] = _table(
    Currency("image_encodings", "image encodings"),
    Currency("text_encodings", "text encodings", cap="queries", starts_work=True),
    Currency("soft_prompt_encodings", "soft-prompt encodings", cap="queries", starts_work=True),
    Currency("pairs_scored", "pairs scored"),
    Currency("black_box_calls", "black-box calls"),
    Currency("llm_calls", "LLM calls", cap="llm_calls", starts_work=True),
    Currency("llm_tokens_in", "LLM tokens in", cap="llm_tokens"),
    Currency("llm_tokens_out", "LLM tokens out", cap="llm_tokens"),
    Currency("llm_usd", "LLM cost", "USD", cap="llm_usd"),
    Currency("llm_calls_lost", "LLM calls lost", cap="llm_calls", compared=False),
    Currency("llm_tokens_lost", "LLM tokens lost", cap="llm_tokens", compared=False),
    Currency("llm_usd_lost", "LLM cost lost", "USD", cap="llm_usd", compared=False),
    Currency("llm_calls_cached", "LLM calls answered from the cache", compared=False),
    Currency("labelled_images", "labelled images", compared=False),
    Currency("cache_hits", "cache hits", compared=False),
)
"""In the order in which results list them."""


def _entry(name: str) -> Currency | Cap:
    return CURRENCIES[name] if name in CURRENCIES else CAPS[name]


def label(name: str) -> str:
    """What people call a currency or a cap."""
    known = name in CURRENCIES or name in CAPS
    return _entry(name).label if known else name.replace("_", " ")


def is_money(name: str) -> bool:
    """Whether a currency or a cap is in US dollars."""
    return (name in CURRENCIES or name in CAPS) and _entry(name).unit == "USD"


def amount(name: str, value: float | None, absent: str = "unknown") -> str:
    """An amount for people: ``12,345``, ``$0.0123``, or ``absent`` for None."""
    if value is None:
        return absent
    return f"${value:.4f}" if is_money(name) else f"{value:,.0f}"


class Spend(Mapping[str, float]):
    """Amounts by currency; what is not named is 0.

    Args:
        amounts: such as ``text_encodings=3``; None, of which nothing is known, counts as 0.

    Raises:
        ValueError: a name that is no currency.
    """

    def __init__(self, **amounts: float | None) -> None:
        if unknown := amounts.keys() - CURRENCIES.keys():
            raise ValueError(f"unknown currency {min(unknown)!r}")
        self._amounts = {name: value for name, value in amounts.items() if value}

    def __getitem__(self, name: str) -> float:
        if name not in CURRENCIES:
            raise KeyError(name)
        return self._amounts.get(name, 0)

    def __getattr__(self, name: str) -> Any:
        if name in CURRENCIES:
            return self[name]
        raise AttributeError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(CURRENCIES)

    def __len__(self) -> int:
        return len(CURRENCIES)

    def __add__(self, other: Mapping[str, float | None]) -> Spend:
        return Spend(**{name: self[name] + (other.get(name) or 0) for name in CURRENCIES})

    def __repr__(self) -> str:
        return f"Spend({', '.join(f'{name}={value}' for name, value in self._amounts.items())})"

    def under(self, cap: str) -> float:
        """What counts against a cap, such as ``queries``."""
        return sum(self[one.name] for one in CURRENCIES.values() if one.cap == cap)

    @property
    def queries(self) -> float:
        """Prompts encoded, text and soft ones together."""
        return self.under("queries")
