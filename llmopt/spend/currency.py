"""What can be spent, and what caps it: the two tables everything else reads.

A new currency is a line here. Ledger, plan, results, comparisons, reports and trackers take its
name, label, unit and cap from that line.

What a black box spends is what it receives. A box that gives features gets each image and each
prompt once in a run. One that takes images and prompts together (access levels ``labels`` and
``scores``, remote or a function) gets both again with every call: a template's K prompts on N
images, 64 at a time, are ``ceil(N / 64)`` calls, N image encodings, K text encodings a call and N *
K pairs; images that it holds by name count when they are sent. A remote box's calls are HTTP
requests, and one that fails and is sent again is paid for again. Asking a box what it is
(``GET /info``) is no call. Pairs of features are multiplied here and counted all the same.

Counts are those of a run on a clean machine. A repeat within the run costs nothing and is listed
under ``cache_hits``; what an *earlier* run left in a cache on disk saves time, never counts, so
that two runs of one command spend the same. ``llm_calls_cached`` says how many of the ``llm_calls``
were answered that way; the difference is what was really sent. ``box_answers_kept`` counts answers
of a box that costs money which earlier runs had bought.

A call to the chat model or to a remote box that was in progress when the machine died may have been
paid for. A resumed run asks again, so that call is no part of what an undisturbed run spends: it
stands apart as *lost*, at its upper bound; so does a call to the chat model that timed out or broke
off. The caps cover both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True)
class Cap:
    """A limit on one or several currencies.

    Attributes:
        name: in ledgers and plans.
        option: the field of a config that sets it.
        label: for people.
        unit: ``USD``, ``s``, or nothing for counts.
        short: what it is called where only what matters most is told; empty if it is not.
    """

    name: str
    option: str
    label: str
    unit: str = ""
    short: str = ""

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
        price_of: what it pays for, of money. Where none of that was spent it comes to nothing, even
            if the price is unknown.
        rare: told only where there is some; few black boxes take any.
        kind: ``spent``; ``lost``: paid for, perhaps, and never answered; ``aside``, told but no
            cost. Comparisons set what is spent beside accuracy.
    """

    name: str
    label: str
    unit: str = ""
    cap: str = ""
    starts_work: bool = False
    price_of: str = ""
    rare: bool = False
    kind: Literal["spent", "lost", "aside"] = "spent"


def _table(*entries: Any) -> dict[str, Any]:
    return {entry.name: entry for entry in entries}


CAPS: Final[Mapping[str, Cap]] = _table(
    Cap("queries", "max_queries", "queries (prompts encoded)", short="prompts"),
    Cap("image_encodings", "max_images", "image encodings", short="images"),
    Cap("pairs_scored", "max_pairs", "pairs scored"),
    Cap("black_box_calls", "max_box_calls", "black-box calls"),
    Cap("llm_calls", "max_llm_calls", "LLM calls", short="LLM calls"),
    Cap("llm_tokens", "max_tokens", "LLM tokens", short="tokens"),
    Cap("llm_usd", "max_usd", "cost", "USD", "cost"),
    Cap("seconds", "max_seconds", "seconds", "s"),
)

CURRENCIES: Final[Mapping[str, Currency]] = _table(
    Currency("image_encodings", "image encodings", cap="image_encodings"),
    Currency("text_encodings", "text encodings", cap="queries", starts_work=True),
    Currency("soft_prompt_encodings", "soft-prompt encodings", cap="queries", starts_work=True),
    Currency("pairs_scored", "pairs scored", cap="pairs_scored"),
    Currency("black_box_calls", "black-box calls", cap="black_box_calls"),
    Currency("box_tokens_in", "black-box tokens in", rare=True),
    Currency("box_tokens_out", "black-box tokens out", rare=True),
    Currency("box_usd", "black-box cost", "USD", cap="llm_usd", rare=True),
    Currency("llm_calls", "LLM calls", cap="llm_calls", starts_work=True),
    Currency("llm_tokens_in", "LLM tokens in", cap="llm_tokens"),
    Currency("llm_tokens_out", "LLM tokens out", cap="llm_tokens"),
    Currency("llm_usd", "LLM cost", "USD", "llm_usd", price_of="llm_calls"),
    Currency("llm_calls_lost", "LLM calls lost", cap="llm_calls", kind="lost"),
    Currency("llm_tokens_lost", "LLM tokens lost (at most)", cap="llm_tokens", kind="lost"),
    Currency(
        "llm_usd_lost",
        "LLM cost lost (at most)",
        "USD",
        "llm_usd",
        price_of="llm_calls_lost",
        kind="lost",
    ),
    Currency(
        "box_calls_lost", "black-box calls lost", cap="black_box_calls", rare=True, kind="lost"
    ),
    Currency(
        "box_usd_lost",
        "black-box cost lost (at most)",
        "USD",
        "llm_usd",
        rare=True,
        kind="lost",
    ),
    Currency("llm_calls_cached", "LLM calls answered from the cache", kind="aside"),
    Currency("box_answers_kept", "black-box answers of earlier runs", rare=True, kind="aside"),
    Currency("labelled_images", "labelled images", kind="aside"),
    Currency("cache_hits", "cache hits", kind="aside"),
)
"""In the order in which results list them."""

BILLED: Final = ("box_tokens_in", "box_tokens_out", "box_usd")
"""What a black box that is paid for charges beside what it receives: known only afterwards, so that
a call puts the most aside before it is sent."""

_MOST: Final = 2**53  # what a float counts exactly; nobody spends more


def _entry(name: str) -> Currency | Cap | None:
    return CURRENCIES.get(name) or CAPS.get(name)


def label(name: str) -> str:
    """What people call a currency or a cap."""
    entry = _entry(name)
    return name.replace("_", " ") if entry is None else entry.label


def is_money(name: str) -> bool:
    """Whether a currency or a cap is in US dollars."""
    entry = _entry(name)
    return entry is not None and entry.unit == "USD"


def amount(name: str, value: float | None, absent: str = "unknown") -> str:
    """An amount for people: ``12,345``, ``$0.0123``, or ``absent`` for None."""
    if value is None:
        return absent
    return f"${value:.4f}" if is_money(name) else f"{value:,.0f}"


def covered(cap: str, *, lost: bool = True) -> list[str]:
    """The currencies that a cap holds together; with or without what was lost."""
    return [c.name for c in CURRENCIES.values() if c.cap == cap and (lost or c.kind != "lost")]


def amounts(found: object) -> dict[str, float]:
    """Amounts by currency, as a file holds them.

    Raises:
        ValueError: it is no table, or holds what is no currency or no amount.
    """
    if not isinstance(found, Mapping):
        raise ValueError("amounts are no table")
    for name, value in found.items():
        if name not in CURRENCIES:
            raise ValueError(f"unknown currency {name!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MOST:
            raise ValueError(f"{name} cannot be {value!r}")
    return dict(found)


def phrase(name: str, value: float | None) -> str:
    """An amount and what it is of: ``12,345 LLM calls``, ``LLM cost $0.0123``."""
    parts = (label(name), amount(name, value))
    return " ".join(parts if is_money(name) else reversed(parts))


def briefly(spent: Mapping[str, float | None]) -> str:
    """What matters most of a ledger, one short line: ``2,304 prompts, 20 LLM calls, $0.10``."""
    read, told = Spend.read(spent), []
    for cap in CAPS.values():
        held = [name for name in worth_telling(spent) if name in covered(cap.name)]
        if cap.short and held:
            value = None if any(spent[name] is None for name in held) else read.under(cap.name)
            said = amount(cap.name, value)
            told.append(said if value is not None and cap.unit else f"{said} {cap.short}")
    return ", ".join(told)


def worth_telling(spent: Mapping[str, float | None]) -> list[str]:
    """What a reader wants to see of a ledger: all but zeros, and the cost of what has a price."""
    payers = {one.name: one.price_of for one in CURRENCIES.values() if one.price_of}
    return [name for name in spent if spent.get(payers.get(name, name))]


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

    def __iter__(self) -> Iterator[str]:
        return iter(CURRENCIES)

    def __len__(self) -> int:
        return len(CURRENCIES)

    def __add__(self, other: Mapping[str, float | None]) -> Spend:
        return Spend(**{name: self[name] + (other.get(name) or 0) for name in CURRENCIES})

    def __mul__(self, times: float) -> Spend:
        return Spend(**{name: times * amount for name, amount in self._amounts.items()})

    def __repr__(self) -> str:
        return f"Spend({', '.join(f'{name}={value}' for name, value in self._amounts.items())})"

    @classmethod
    def read(cls, amounts: Mapping[str, float | None]) -> Spend:
        """From a result or a journal; currencies that this version lacks are passed over."""
        return cls(**{name: amounts[name] for name in CURRENCIES if name in amounts})

    def under(self, cap: str, *, lost: bool = True) -> float:
        """What counts against a cap, such as ``queries``; with or without what was lost."""
        return sum(self[name] for name in covered(cap, lost=lost))

    @property
    def queries(self) -> float:
        """Prompts encoded, text and soft ones together."""
        return self.under("queries")
