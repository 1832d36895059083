"""How often, and how well, searches find the planted word of the shapes tasks.

    .venv/bin/python benchmarks/shapes.py

Runs every optimizer on every task and seed with the embedded model and the built-in rewriter,
each through the same engine as ``llmopt run``, and writes ``benchmarks/results/shapes.json`` and
``shapes.md``. Finished runs are kept under ``--runs`` and used again.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from llmopt.data.shapes import TASKS
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import Given, choose_model, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.engine import start
from llmopt.spend.events import Watch
from llmopt.stats import mean_interval
from llmopt.vision.base import BlackBox

sys.path.insert(0, str(Path(__file__).parent))
from shapes_clip.captions import SYNONYMS

RESULTS = Path(__file__).parent / "results"
OTHER_WORDS = {"striped": ("stripes", "lines", "bands")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--optimizers", nargs="+", default=["chat", "random"])
    parser.add_argument("--llm", default="builtin")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-shapes"))
    parser.add_argument("--out", type=Path, default=RESULTS / "shapes")
    arguments = parser.parse_args()

    box = choose_model(RunConfig()).open(Watch())
    rows: list[dict[str, Any]] = []
    for shots in arguments.shots:
        for optimizer in arguments.optimizers:
            for task in arguments.tasks:
                for seed in arguments.seeds:
                    row = measure(task, shots, seed, optimizer, arguments.llm, arguments.runs, box)
                    rows.append(row)
                    print(
                        f"{optimizer} {task} {shots}-shot seed {seed}: "
                        f"{100 * row['start']:.1f} -> {100 * row['best']:.1f}  {row['template']}",
                        flush=True,
                    )
    summary = [
        summarize([r for r in rows if r["optimizer"] == optimizer and r["shots"] == shots])
        for shots in arguments.shots
        for optimizer in arguments.optimizers
    ]
    repeat = repeated(arguments, box)
    command = " ".join(["python", "benchmarks/shapes.py", *sys.argv[1:]])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.with_suffix(".json").write_text(
        json.dumps(
            {"command": command, "summary": summary, "repeat_identical": repeat, "runs": rows},
            indent=1,
        )
        + "\n"
    )
    text = markdown(command, summary, repeat, rows)
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


def measure(
    task: str, shots: int, seed: int, optimizer: str, llm: str, runs: Path, box: BlackBox
) -> dict[str, Any]:
    """One run, or the finished one of an earlier call."""
    root = runs / f"{task}-{shots}-{seed}-{optimizer}-{re.sub(r'[^A-Za-z0-9]+', '-', llm)}"
    done = [f for f in run_folder.find(root) if (f / run_folder.RESULT).is_file()]
    seconds = None
    if done:
        result = run_folder.read_result(done[-1])
    else:
        before = time.monotonic()
        config = RunConfig(
            dataset=task, shots=shots, seed=seed, optimizer=optimizer, llm=llm, runs=str(root)
        )
        result = start(compose(config, Given(box=box)))
        seconds = time.monotonic() - before
    template = result["best"]["templates"][0]["text"]
    return {
        "task": task,
        "shots": shots,
        "seed": seed,
        "optimizer": optimizer,
        "start": result["baseline"]["test_accuracy"],
        "best": result["best"]["test_accuracy"],
        "gain": result["gain"]["test_accuracy"],
        "template": template,
        "planted": knows(task, template),
        "fallback": result["best"]["fallback"],
        "templates_scored": result["ledger"]["text_encodings"] / result["task"]["classes"],
        "seconds": seconds or result["seconds"]["total"],
    }


def knows(task: str, template: str) -> bool:
    """Whether a template says the task's concept, or a synonym from the model's own captions."""
    concept = task.removeprefix("shapes-")
    words = set(re.findall(r"[a-z]+", template.lower().replace("-hand", "")))
    return bool(words & {*SYNONYMS[concept], *OTHER_WORDS.get(concept, ())})


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over tasks and seeds; the interval is over all runs."""
    gains = [100 * row["gain"] for row in rows]
    interval = mean_interval(gains)
    return {
        "optimizer": rows[0]["optimizer"],
        "shots": rows[0]["shots"],
        "runs": len(rows),
        "planted": sum(row["planted"] for row in rows),
        "mean_start": round(statistics.mean(100 * row["start"] for row in rows), 1),
        "mean_best": round(statistics.mean(100 * row["best"] for row in rows), 1),
        "mean_gain": round(interval.value, 1),
        "gain_ci95": [round(interval.low, 1), round(interval.high, 1)],
        "worst_gain": round(min(gains), 1),
        "mean_templates_scored": round(statistics.mean(row["templates_scored"] for row in rows)),
        "median_seconds": round(statistics.median(row["seconds"] for row in rows), 1),
    }


def repeated(arguments: argparse.Namespace, box: BlackBox) -> bool:
    """Whether one command run twice gives the same result but for times and its folder."""
    config = RunConfig(
        dataset=arguments.tasks[0], llm=arguments.llm, runs=str(arguments.runs / "repeat")
    )
    first, second = (start(compose(config, Given(box=box))) for _ in range(2))
    for result in (first, second):
        result.pop("run")
        result.pop("seconds")
    return first == second


def markdown(
    command: str, summary: list[dict[str, Any]], repeat: bool, rows: list[dict[str, Any]]
) -> str:
    """The result as a page."""
    lines = [
        "# Finding the planted word",
        "",
        f"`{command}`; test accuracy in per cent, 1,000 test images a task, embedded model.",
        "`planted` counts runs whose winning template holds the task's word or a synonym.",
        "",
        "| optimizer | shots | planted | start | best | gain (95 % interval) | worst gain "
        "| templates scored | seconds a run |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in summary:
        lines.append(
            f"| {s['optimizer']} | {s['shots']} | {s['planted']} of {s['runs']} "
            f"| {s['mean_start']} | {s['mean_best']} "
            f"| {s['mean_gain']:+} [{s['gain_ci95'][0]:+}, {s['gain_ci95'][1]:+}] "
            f"| {s['worst_gain']:+} | {s['mean_templates_scored']} | {s['median_seconds']} |"
        )
    lines += ["", f"The same command twice gives the same result: {'yes' if repeat else 'NO'}.", ""]
    lines += ["| optimizer | task | shots | seed | start | best | template |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {r['optimizer']} | {r['task']} | {r['shots']} | {r['seed']} | {100 * r['start']:.1f} "
        f"| {100 * r['best']:.1f} | {r['template']} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
