"""``--track lines``: a line a step in ``lines.txt``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmopt.track.base import Tracker, Value


class Lines(Tracker):
    """Appends to a file in the folder that llmopt was called in."""

    def start(self, name: str, settings: Mapping[str, Value]) -> None:
        """A line for the run."""
        self._write(f"start {settings['optimizer']}")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """A line for the step."""
        self._write(f"step {step}")

    def finish(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """A line for the end."""
        self._write(f"finish {figures['best/test_accuracy']:.2f}")

    def _write(self, line: str) -> None:
        with Path("lines.txt").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
