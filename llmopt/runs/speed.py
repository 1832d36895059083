"""How long a run may take, by the speed of earlier runs here with the same models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmopt.errors import LlmoptError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.spend.currency import Spend

LATEST: Final = 20
"""Runs that are looked at, the latest first: older ones may be of another machine."""

_BOX: Final = ("model", "pretrained", "blackbox", "device", "precision", "decoder", "batch_size")
_CHAT: Final = ("llm", "llm_base_url")


@dataclass(frozen=True)
class Speed:
    """What units took in earlier runs.

    Attributes:
        runs: how many were measured.
        query: seconds of the black box, images included, for each prompt; None if unknown.
        call: seconds of the language model for each call; None if unknown.
    """

    runs: int
    query: float | None
    call: float | None

    def of(self, queries: float, calls: float) -> float | None:
        """Seconds that so many take at most; None where a speed is not known."""
        parts = ((queries, self.query), (calls, self.call))
        if any(number and speed is None for number, speed in parts):
            return None
        return sum(number * (speed or 0.0) for number, speed in parts)

    @property
    def told(self) -> str:
        """In words: of how many runs, and what it is."""
        units = {"a prompt": self.query, "an LLM call": self.call}
        told = [f"{1000 * s:,.1f} ms {unit}" for unit, s in units.items() if s is not None]
        return f"{self.runs} earlier run{'s' * (self.runs > 1)} here ({', '.join(told)})"


def measured(config: RunConfig) -> Speed:
    """The speed of the latest finished runs below ``config.runs`` behind the same models."""
    box, chat = _Unit(), _Unit()
    runs = 0
    for result, other in _latest(Path(config.runs)):
        spent, seconds = Spend.read(result["ledger"]), result["seconds"]
        same = [_same(config, other, names) for names in (_BOX, _CHAT)]
        if same[0]:
            box.add(seconds["black_box"], spent.queries)
        if same[1]:
            chat.add(seconds["llm"], spent["llm_calls"] - spent["llm_calls_cached"])
        runs += any(same)
    return Speed(runs, box.speed, chat.speed)


class _Unit:
    """Seconds for so many units, runs together."""

    def __init__(self) -> None:
        self.seconds = self.count = 0.0

    def add(self, seconds: float, count: float) -> None:
        if seconds > 0 and count > 0:
            self.seconds += seconds
            self.count += count

    @property
    def speed(self) -> float | None:
        return self.seconds / self.count if self.count else None


def _same(config: RunConfig, other: RunConfig, names: Iterable[str]) -> bool:
    return all(getattr(config, name) == getattr(other, name) for name in names)


def _latest(root: Path) -> Iterable[tuple[dict[str, Any], RunConfig]]:
    """Results and configs, the latest first; a run that cannot be read is none."""
    for folder in run_folder.find(root)[: -LATEST - 1 : -1]:
        try:
            yield run_folder.read_result(folder), run_folder.read_run_config(folder)
        except LlmoptError:
            continue
