"""What each part of the chat optimizer is worth.

    .venv/bin/python benchmarks/chat_ablations.py
    .venv/bin/python benchmarks/chat_ablations.py --llm openai:MODEL --seeds 1 2 3

Each row changes one setting of a conversation without probes, short enough that the search has not
always found the answer: that is where settings differ. Writes
``benchmarks/results/chat_ablations.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from shapes import RESULTS, knows

from llmopt.runs.compose import Given, choose_model, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.engine import start
from llmopt.spend.events import Watch
from llmopt.stats import mean_interval, permutation_test
from llmopt.vision.base import BlackBox

BASE = {"probes": 0, "restarts": 1, "iterations": 6, "pool": 12, "proposals": 6}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no memory of earlier turns": {"conversational": False},
    "scores not shown": {"scores": False},
    "lists of 3": {"k": 3},
    "lists of 12": {"k": 12},
    "3 proposals a call": {"proposals": 3},
    "12 proposals a call": {"proposals": 12},
    "ranked by accuracy": {"fitness": "accuracy"},
    "two conversations of half the length": {"restarts": 2, "iterations": 3},
    "no polish": {"polish": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["small", "right", "red", "green", "solid"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(1, 11)))
    parser.add_argument("--llm", default="builtin")
    parser.add_argument("--out", type=Path, default=RESULTS / "chat_ablations")
    arguments = parser.parse_args()

    box = choose_model(RunConfig()).open(Watch())
    runs = Path(tempfile.mkdtemp(prefix="llmopt-ablations-"))
    gains: dict[str, list[float]] = {}
    rows = []
    for name, change in VARIANTS.items():
        results = [
            measure({**BASE, **change}, f"shapes-{task}", seed, arguments.llm, runs, box)
            for task in arguments.tasks
            for seed in arguments.seeds
        ]
        gains[name] = [r["gain"] for r in results]
        interval = mean_interval(per_seed(gains[name], len(arguments.seeds)))
        rows.append(
            {
                "variant": name,
                "runs": len(results),
                "planted": sum(r["planted"] for r in results),
                "gain": round(interval.value, 1),
                "ci95": [round(interval.low, 1), round(interval.high, 1)],
                "p_against_default": round(against(gains["default"], gains[name]), 3),
                "llm_calls": round(sum(r["llm_calls"] for r in results) / len(results), 1),
                "mean_templates_scored": round(sum(r["scored"] for r in results) / len(results)),
            }
        )
        print(rows[-1], flush=True)
    shutil.rmtree(runs)
    command = " ".join(["python", "benchmarks/chat_ablations.py", *sys.argv[1:]])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    data = {"command": command, "base": BASE, "rows": rows}
    arguments.out.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(markdown(command, rows))


def measure(
    settings: dict[str, Any], task: str, seed: int, llm: str, runs: Path, box: BlackBox
) -> dict[str, Any]:
    """One run's test gain in points, and whether it found the planted word."""
    config = RunConfig(dataset=task, seed=seed, settings=settings, llm=llm, runs=str(runs))
    result = start(compose(config, Given(box=box)))
    return {
        "gain": 100 * result["gain"]["test_accuracy"],
        "planted": knows(task, result["best"]["templates"][0]["text"]),
        "llm_calls": result["ledger"]["llm_calls"],
        "scored": result["ledger"]["text_encodings"] / result["task"]["classes"],
    }


def per_seed(gains: list[float], seeds: int) -> list[float]:
    """Mean over tasks for each seed: what varies from sample to sample."""
    return [sum(gains[s::seeds]) / len(gains[s::seeds]) for s in range(seeds)]


def against(default: list[float], other: list[float]) -> float:
    """Paired permutation test over tasks and seeds."""
    import numpy as np

    differences = np.subtract(other, default)
    if not differences.any():
        return 1.0
    return float(permutation_test(differences, rng=np.random.default_rng(0)))


def markdown(command: str, rows: list[dict[str, Any]]) -> str:
    """The result as a page."""
    lines = [
        "# What each part of the chat optimizer is worth",
        "",
        f"`{command}`; gain in test accuracy over `a photo of a {{}}.`, points, mean and 95 % "
        "interval over seeds; p by a paired permutation test against the default, not corrected "
        "for the number of rows.",
        "",
        "| variant | calls | templates | planted word found | gain | p |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['variant']} | {r['llm_calls']} | {r['mean_templates_scored']} "
        f"| {r['planted']} of {r['runs']} "
        f"| {r['gain']:+} [{r['ci95'][0]:+}, {r['ci95'][1]:+}] | {r['p_against_default']} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
