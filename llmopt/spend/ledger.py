"""The ledger: what a run has spent, and the caps it may not pass.

Every spend is reserved from an upper bound before it happens and settled to the truth after it,
so that no cap is ever passed, not even by several threads together. A reservation that is never
settled (the call failed or was refused) stays charged in full.

What is counted, and how, stands in :mod:`llmopt.spend.currency`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any

from llmopt.errors import BudgetExhausted
from llmopt.spend.currency import CAPS, CURRENCIES, covered, is_money


@dataclass(frozen=True)
class Caps:
    """Hard caps; None is no cap.

    Attributes:
        llm_calls: calls to the chat model, retries included.
        llm_tokens: tokens in and out together.
        llm_usd: US dollars.
        queries: prompts encoded by the black box, text and soft ones together.
        seconds: of the run, earlier sittings of a resumed run included.
        image_encodings, pairs_scored, black_box_calls: of the black box (see
            :mod:`llmopt.spend.currency`).
    """

    llm_calls: int | None = None
    llm_tokens: int | None = None
    llm_usd: float | None = None
    queries: int | None = None
    seconds: float | None = None
    image_encodings: int | None = None
    pairs_scored: int | None = None
    black_box_calls: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value >= 0:
                raise ValueError(f"the cap on {field.name} must be 0 or more, not {value!r}")


# Sums of prices are not exact in binary; a cap is not passed by less than this.
_USD_SLACK = 1e-9


class Reservation:
    """Amounts put aside for one call. Use it as a context manager and settle it inside."""

    def __init__(self, ledger: Ledger, amounts: dict[str, float]) -> None:
        self._ledger = ledger
        self._amounts = amounts
        self._open = True

    def settle(self, **actual: float) -> None:
        """Charge ``actual`` instead of the reservation. May be called once."""
        _check_names(actual)
        if not self._open:
            raise RuntimeError("this reservation is settled already")
        self._open = False
        self._ledger._settle(self._amounts, actual)

    def release(self) -> None:
        """Charge nothing: the call was never sent."""
        self.settle()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._open:
            self.settle(**self._amounts)


class Ledger:
    """Counts every spend of one run.

    Args:
        caps: what may not be passed.
        clock: seconds the run has taken so far; defaults to the time since construction.

    Attributes:
        price_known: False where the chat model has no known price; money is then None in results.
        stopped: the run was interrupted.
    """

    def __init__(self, caps: Caps | None = None, clock: Callable[[], float] | None = None) -> None:
        self.caps = caps or Caps()
        self.price_known = True
        start = time.monotonic()
        self._clock = clock or (lambda: time.monotonic() - start)
        self._spent: dict[str, float] = dict.fromkeys(CURRENCIES, 0)
        self._reserved: dict[str, float] = dict.fromkeys(CURRENCIES, 0)
        self._changed = threading.Condition()
        self._covered = {cap: covered(cap) for cap in CAPS if cap != "seconds"}
        self.stopped = False

    def stop(self) -> None:
        """Begin no more work: the run was interrupted."""
        self.stopped = True

    def reserve(self, **amounts: float) -> Reservation:
        """Put ``amounts`` aside, or raise.

        Where only the open reservations of other threads stand in the way, this waits until they
        are settled, so that a cautious upper bound of one call never ends another.

        Raises:
            BudgetExhausted: a cap would be passed even if nothing else were in progress.
        """
        _check_names(amounts)
        with self._changed:
            while blocked := self._blocking(amounts):
                cap_name, hopeless = blocked
                if hopeless:
                    raise BudgetExhausted(cap_name, getattr(self.caps, cap_name, 0))
                self._changed.wait(timeout=1.0)
            for currency, amount in amounts.items():
                self._reserved[currency] += amount
        return Reservation(self, dict(amounts))

    def charge(self, **amounts: float) -> None:
        """Reserve and settle in one step, for spends whose size is known."""
        self.reserve(**amounts).settle(**amounts)

    def record(self, **amounts: float) -> None:
        """Count what an earlier sitting of this run spent.

        No cap is asked: the money is gone, and the sitting that spent it was within its caps.
        """
        _check_names(amounts)
        self._settle({}, amounts)

    def room(self, cap: str) -> float:
        """What is left under ``cap`` (``queries``, ``seconds`` …), infinite without that cap."""
        limit = getattr(self.caps, cap)
        if limit is None:
            return float("inf")
        if cap == "seconds":
            return float(limit) - self._clock()
        with self._changed:
            return float(limit) - self._under(self._spent, cap) - self._under(self._reserved, cap)

    @contextmanager
    def within(self, **most: float) -> Iterator[None]:
        """Tighter caps for a part of a run: no more than ``most`` from here on, by cap."""
        whole = self.caps
        tighter: dict[str, Any] = {
            cap: self.spent(cap) + min(more, self.room(cap)) for cap, more in most.items()
        }
        self.caps = replace(whole, **tighter)
        try:
            yield
        finally:
            self.caps = whole

    def spent(self, cap: str) -> float:
        """What counts against ``cap`` so far."""
        with self._changed:
            return self._under(self._spent, cap)

    def seconds(self) -> float:
        """Seconds the run has taken so far."""
        return self._clock()

    def __getitem__(self, currency: str) -> float:
        return self._spent[currency]

    def snapshot(self) -> dict[str, float | int | None]:
        """All currencies, whole numbers but for money, which is None where a price is unknown."""
        with self._changed:
            counts: dict[str, float | int | None] = {
                name: round(value) if not is_money(name) else round(float(value), 9)
                for name, value in self._spent.items()
                if value or not CURRENCIES[name].rare
            }
        ours = [name for name in counts if is_money(name) and not CURRENCIES[name].rare]
        unknown = {name: None for name in ours if not self.price_known}
        return counts | unknown

    def state(self) -> dict[str, float]:
        """All counts, for a checkpoint."""
        with self._changed:
            return dict(self._spent)

    def since(self, state: dict[str, float]) -> dict[str, float]:
        """What was spent since a state, by currency; what is told aside is left out."""
        now = self.state()
        spent = {n: now[n] - state[n] for n, one in CURRENCIES.items() if one.kind != "aside"}
        return {name: value for name, value in spent.items() if value}

    def set_state(self, state: dict[str, float]) -> None:
        """Take the counts of a checkpoint."""
        _check_names(state)
        with self._changed:
            self._spent.update(state)

    def _blocking(self, amounts: dict[str, float]) -> tuple[str, bool] | None:
        """The cap in the way, and whether waiting for others is no help."""
        if any(amounts[name] for name in amounts if CURRENCIES[name].starts_work):
            if self.stopped:
                return "interrupted", True
            if self.caps.seconds is not None and self._clock() >= self.caps.seconds:
                return "seconds", True
        found: tuple[str, bool] | None = None
        for cap_name, names in self._covered.items():
            cap = getattr(self.caps, cap_name)
            asked = sum(amounts.get(name, 0) for name in names)
            if cap is None or not asked:
                continue
            slack = _USD_SLACK if is_money(cap_name) else 0
            spent = self._under(self._spent, cap_name)
            reserved = self._under(self._reserved, cap_name)
            if spent + asked > cap + slack:
                return cap_name, True
            if spent + reserved + asked > cap + slack:
                found = cap_name, False
        return found

    def _under(self, counts: dict[str, float], cap: str) -> float:
        return sum(counts[name] for name in self._covered[cap])

    def _settle(self, reserved: dict[str, float], actual: dict[str, float]) -> None:
        with self._changed:
            for currency, amount in reserved.items():
                self._reserved[currency] -= amount
            for currency, amount in actual.items():
                self._spent[currency] += amount
            self._changed.notify_all()


def _check_names(amounts: dict[str, float]) -> None:
    for name, amount in amounts.items():
        if name not in CURRENCIES:
            raise ValueError(f"unknown currency {name!r}")
        if not amount >= 0:
            raise ValueError(f"cannot spend {amount!r} {name}")
