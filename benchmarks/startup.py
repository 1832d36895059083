"""Start-up of the command line against a bare typer app, and where the default run spends its time.

    .venv/bin/python benchmarks/startup.py

Both programs are started in turn, many times; the ratio is that of the medians of their wall times.
The profile is of a whole ``llmopt run`` in this process, after imports, with an empty cache. Writes
``benchmarks/results/startup.json`` and ``.md``.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ROUNDS = 15
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
PARTS = {
    "encode the test images (1,000)": ("evaluate.py", "evaluate"),
    "encode the few shots (24)": ("engine.py", "_score_start"),
    "encode templates": ("openclip.py", "text_features"),
    "tokenise and compare templates": ("openclip.py", "normal_forms"),
    "check the length of templates": ("base.py", "check"),
    "built-in rewriter": ("builtin.py", "_generate"),
    "write the journal": ("journal.py", "_append"),
    "load the model": ("openclip.py", "load_model"),
    "hash the weights": ("openclip.py", "_sha256"),
    "list and sample the data set": ("engine.py", "prepare"),
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
        f"The default run takes {total} s in one process after imports, with an empty cache:",
        "",
        "| part | share of the run |",
        "|---|---|",
        *(f"| {name} | {100 * share:.1f} % |" for name, share in shares.items()),
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
    """Seconds of the default run, and the share of each part of it."""
    from llmopt.blackbox import openclip  # noqa: F401  (imports are not part of the profile)
    from llmopt.chat import builtin, metered  # noqa: F401
    from llmopt.run.config import RunConfig
    from llmopt.run.engine import start

    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMOPT_CACHE"] = folder
        config = RunConfig(llm="builtin", runs=str(Path(folder) / "runs"))
        before = time.perf_counter()
        start(config)
        plain = time.perf_counter() - before
        os.environ["LLMOPT_CACHE"] = str(Path(folder) / "second")
        profile = cProfile.Profile()
        profile.runcall(start, config)
    stats = pstats.Stats(profile)
    total = stats.total_tt  # type: ignore[attr-defined]
    shares = {}
    for name, (file, function) in PARTS.items():
        cumulative = sum(
            entry[3]
            for (path, _, found), entry in stats.stats.items()  # type: ignore[attr-defined]
            if Path(path).name == file and found == function and "llmopt" in path
        )
        shares[name] = round(cumulative / total, 4)
    return round(plain, 2), dict(sorted(shares.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
