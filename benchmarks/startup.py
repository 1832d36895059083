"""Start-up of the command line against a bare typer app, and where the default run spends its time.

    .venv/bin/python benchmarks/startup.py

Both programs are started in turn, many times; the ratio is that of the medians of their wall times.
The shares are of a whole ``llmopt run`` in this process, after imports, with an empty cache each
time: the quickest of some runs, the one that the rest of the machine disturbed least. Writes
``benchmarks/results/startup.json`` and ``.md``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15
RUNS = 9
BARE = """
import typer
app = typer.Typer()
@app.command()
def one(number: int = 1) -> None:
    "Do one thing."
@app.command()
def other(number: int = 1) -> None:
    "Do another."
app()
"""
# What runs inside of another part counts for the inner one alone.
PARTS = {
    "draw 1,024 images": ("llmopt.data.shapes", "ShapesImage.load"),
    "encode them": ("llmopt.vision.openclip", "OpenClipBlackBox.image_features"),
    "compute text features": ("llmopt.vision.openclip", "OpenClipBlackBox.text_features"),
    "tokenise": ("llmopt.vision.text_engine.engine", "TextEngine.normal_forms"),
    "check the length of templates": ("llmopt.vision.base", "BlackBox.check"),
    "write templates (built-in rewriter)": ("llmopt.language.builtin", "BuiltinRewriter._generate"),
    "read replies": ("llmopt.search.text.climbing", "parse_reply"),
    "score and choose": ("llmopt.vision.metered", "MeteredBox.score_templates"),
    "load the model": ("llmopt.runs.compose", "ModelChoice.open"),
    "hash the weights": ("llmopt.vision.openclip", "OpenClipBlackBox._sha256"),
    "list and sample the data set": ("llmopt.runs.compose", "compose"),
    "write the journal": ("llmopt.spend.journal", "Journal._append"),
}


def main() -> None:
    startup = measure_startup()
    total, shares = profile_run()
    data = {"command": "python benchmarks/startup.py", **startup, "run_seconds": total,
            "shares": shares}  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "startup.json").write_text(json.dumps(data, indent=1) + "\n")
    lines = [
        "# Start-up and the default run",
        "",
        "`python benchmarks/startup.py`",
        "",
        f"`llmopt --help` takes {startup['ratio']} times as long as the help of a bare typer app "
        f"(medians of {ROUNDS} starts each, in turn).",
        "",
        f"The default run takes {total} s in one process after imports, with an empty cache "
        f"(the quickest of {RUNS}):",
        "",
        "| part | share of the run |",
        "|---|---|",
        *(f"| {name} | {100 * share:.1f} % |" for name, share in shares.items()),
        "",
        "The images are 24 few shots and 1,000 test images, which this data set draws when asked "
        "for them; each is drawn and encoded once, each prompt tokenised and encoded once. Writing "
        "templates is weighing some six thousand drafts. On few cores, waking threads for products "
        "as small as this model's adds to what encoding takes.",
    ]
    text = "\n".join(lines) + "\n"
    (RESULTS / "startup.md").write_text(text)
    print(text)


def measure_startup() -> dict[str, float]:
    """Median seconds of both programs and their ratio."""
    seconds: dict[str, list[float]] = {"bare": [], "llmopt": []}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(BARE)
        commands = {
            "bare": [sys.executable, str(script), "--help"],
            "llmopt": [sys.executable, "-c", "from llmopt.cli.app import main; main()", "--help"],
        }
        for _ in range(ROUNDS + 1):
            for name, command in commands.items():
                before = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - before)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {
        "bare_seconds": round(medians["bare"], 3),
        "llmopt_seconds": round(medians["llmopt"], 3),
        "ratio": round(medians["llmopt"] / medians["bare"], 2),
    }


def profile_run() -> tuple[float, dict[str, float]]:
    """Seconds of the quickest of some default runs, and the share of each part of it."""
    from llmopt.runs.compose import compose
    from llmopt.runs.config import RunConfig
    from llmopt.runs.engine import start

    clock = Clock()
    for place in PARTS.items():
        clock.watch(*place)
    runs: list[tuple[float, dict[str, float]]] = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LLMOPT_CACHE"] = folder
            clock.seconds = dict.fromkeys(PARTS, 0.0)
            before = time.perf_counter()
            start(compose(RunConfig(llm="builtin", runs=str(Path(folder) / "runs"))))
            runs.append((time.perf_counter() - before, clock.seconds))
    total, seconds = min(runs, key=lambda run: run[0])
    seconds["the rest"] = total - sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return round(total, 2), {name: round(part / total, 4) for name, part in ordered}


class Clock:
    """Seconds spent in watched functions, each without the watched ones inside of it.

    A profiler would slow Python code and leave compiled code alone, and so shift the shares.

    Args:
        now: seconds on what counts: the wall clock, or that of the processor.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.seconds: dict[str, float] = {}
        self._inside = [0.0]  # seconds of watched calls in each call that is under way

    def watch(self, name: str, place: tuple[str, str]) -> None:
        """Count the seconds of the function at ``(module, attribute)`` under ``name``."""
        owner: Any = importlib.import_module(place[0])
        *classes, attribute = place[1].split(".")
        for one in classes:
            owner = getattr(owner, one)
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            before = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                spent = self.now() - before
                self.seconds[name] += spent - self._inside.pop()
                self._inside[-1] += spent

        setattr(owner, attribute, watched)


if __name__ == "__main__":
    main()
