"""Continuous prompts on the shapes tasks, at equal query budgets, or every published form.

    .venv/bin/python benchmarks/continuous.py
    .venv/bin/python benchmarks/continuous.py --released

Every entry runs on every task, shot count and seed with the embedded model, through the same engine
as ``llmopt run``, and may encode as many prompts as CraFT as published does: its 2,000, 4,000 or
8,000 contexts by shots and those of its head. Finished runs are kept under ``--runs`` and used
again, so that an interrupted benchmark goes on where it stopped. Writes
``benchmarks/results/continuous.json`` and ``continuous.md``; with ``--released``
``continuous_released.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llmopt.data.shapes import SHAPES, TASKS
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import Given, choose_model, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.engine import start
from llmopt.spend.events import Watch
from llmopt.stats import mean_interval
from llmopt.vision.base import BlackBox

RESULTS = Path(__file__).parent / "results"

Settings = dict[str, str | int | float | bool]

ENTRIES: dict[str, tuple[str, Settings]] = {
    "zeroshot": ("zeroshot", {}),
    "random": ("random", {}),
    "craft": ("craft", {}),
    "craft released (caltech101)": ("craft", {"profile": "released", "row": "caltech101"}),
    "craft released (eurosat)": ("craft", {"profile": "released", "row": "eurosat"}),
    "craft released (oxford_pets)": ("craft", {"profile": "released", "row": "oxford_pets"}),
    **{
        f"craft released ({row}), no mirrors": (
            "craft",
            {"profile": "released", "row": row, "flip": False},
        )
        for row in ("caltech101", "eurosat", "oxford_pets")
    },
    "craft paper (caltech101)": ("craft", {"profile": "paper", "row": "caltech101"}),
    "bbt": ("bbt", {}),
    "bbt released": ("bbt", {"profile": "released"}),
    "bptvlm": ("bptvlm", {}),
    "bptvlm released": ("bptvlm", {"profile": "released"}),
    "cbbt": ("cbbt", {}),
    "cbbt released": ("cbbt", {"profile": "released"}),
    "zip": ("zip", {}),
    "zip released": ("zip", {"profile": "released"}),
    "coop": ("coop", {}),
    "coop released": ("coop", {"profile": "released"}),
    "chat released": ("chat", {"profile": "released"}),
    "chat paper": ("chat", {"profile": "paper"}),
}
"""Optimizer and settings by the name in the table. ``coop`` is the white-box reference."""

RELEASED = tuple(name for name in ENTRIES if "released" in name or "paper" in name)
BEFORE = RESULTS / "continuous_released_before.json"
"""Of commit 3b0ac87, before what differed from the papers' programs was mended."""

ABLATIONS: dict[str, tuple[str, Settings]] = {
    **{f"craft, D = {dim}": ("craft", {"dim": dim}) for dim in (8, 16, 64, 128, 512)},
    "craft, one search": ("craft", {"restarts": 1}),
    "craft, alpha 0.3": ("craft", {"alpha": 0.3}),
    "craft, alpha 3": ("craft", {"alpha": 3.0}),
    "craft, no pull": ("craft", {"weight": 0.0}),
    "craft, no head": ("craft", {"head": "none"}),
}
"""The default with one thing changed: what its dimension and the rest rest on."""

DEFAULT = (
    "zeroshot",
    "craft",
    "craft released (caltech101)",
    "bbt",
    "cbbt",
    "zip",
    "coop",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--shots", nargs="+", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    named = [*ENTRIES, *ABLATIONS]
    parser.add_argument("--released", action="store_true", help="all published forms at 1 shot")
    parser.add_argument("--entries", nargs="+", choices=named)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark-continuous"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    released = arguments.released
    arguments.shots = arguments.shots or ([1] if released else [1, 4, 16])
    arguments.entries = arguments.entries or list(RELEASED if released else DEFAULT)
    out = arguments.out or RESULTS / ("continuous_released" if released else "continuous")

    box = choose_model(RunConfig()).open(Watch())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        # The published profiles encode each image hundreds of times; that need not stay on disk.
        os.environ["LLMOPT_CACHE"] = cache
        for shots in arguments.shots:
            for entry in arguments.entries:
                for task in arguments.tasks:
                    for seed in arguments.seeds:
                        rows.append(measure(entry, task, shots, seed, arguments.runs, box))
                        print(line(rows[-1]), flush=True)
    summary = [
        summarize([r for r in rows if r["entry"] == entry and r["shots"] == shots])
        for shots in arguments.shots
        for entry in arguments.entries
    ]
    against = [
        compare(rows, "craft", entry, shots)
        for shots in arguments.shots
        for entry in arguments.entries
        if "craft" in arguments.entries and entry != "craft"
    ]
    command = shlex.join(["python", "benchmarks/continuous.py", *sys.argv[1:]])
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "summary": summary, "craft_against": against, "runs": rows}
    out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    text = markdown(command, summary, against, rows)
    out.with_suffix(".md").write_text(text)
    print(text)


def contexts(shots: int) -> int:
    """What CraFT as published encodes: its budget, and a context a batch of 256 for the head."""
    budget = 2000 if shots == 1 else 4000 if shots <= 4 else 8000
    return budget + budget // 40 * math.ceil(shots * len(SHAPES) / 256)


def measure(
    entry: str, task: str, shots: int, seed: int, runs: Path, box: BlackBox
) -> dict[str, Any]:
    """One run, or the finished one of an earlier call."""
    optimizer, settings = (ENTRIES | ABLATIONS)[entry]
    root = runs / f"{task}-{shots}-{seed}-{entry.replace(' ', '-')}"
    done = [f for f in run_folder.find(root) if (f / run_folder.RESULT).is_file()]
    if done:
        result = run_folder.read_result(done[-1])
    else:
        config = RunConfig(
            dataset=task,
            shots=shots,
            seed=seed,
            optimizer=optimizer,
            settings=settings,
            # Three more for what every run asks: its start, and its accuracy on both few shots.
            max_queries=(contexts(shots) + 3) * len(SHAPES),
            runs=str(root),
        )
        result = start(compose(config, Given(box=box)))
    ledger, best, said = result["ledger"], result["best"], result["optimizer"]["summary"]
    return {
        "entry": entry,
        "task": task,
        "shots": shots,
        "seed": seed,
        "start": result["baseline"]["test_accuracy"],
        "best": best["test_accuracy"],
        "train": best["train_accuracy"],
        "val": best["val_accuracy"],
        "fallback": best["fallback"],
        "head": best["head"]["name"] if best["head"] else None,
        "stop": result["stop_reason"],
        "prompts": ledger["text_encodings"] + ledger["soft_prompt_encodings"],
        "images": ledger["image_encodings"],
        "as_published": said.get("evaluations_as_published", said.get("calls_as_published")),
    }


def line(row: dict[str, Any]) -> str:
    """A run, for people."""
    return (
        f"{time.strftime('%H:%M:%S')} {row['entry']} {row['task']} {row['shots']}-shot "
        f"seed {row['seed']}: {100 * row['start']:.1f} -> {100 * row['best']:.1f} "
        f"(train {row['train']}, val {row['val']}, head {row['head']}, {row['stop']})"
    )


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over tasks and seeds; the interval is over all runs."""
    accuracy = mean_interval([100 * row["best"] for row in rows])
    by_task = {row["task"]: [] for row in rows}
    for row in rows:
        by_task[row["task"]].append(100 * (row["best"] - row["start"]))
    worst = min(by_task, key=lambda task: statistics.mean(by_task[task]))
    return {
        "entry": rows[0]["entry"],
        "shots": rows[0]["shots"],
        "runs": len(rows),
        "accuracy": round(accuracy.value, 1),
        "accuracy_ci95": [round(accuracy.low, 1), round(accuracy.high, 1)],
        "gain": round(statistics.mean(100 * (r["best"] - r["start"]) for r in rows), 1),
        "worst_task": worst,
        "worst_task_gain": round(statistics.mean(by_task[worst]), 1),
        "worst_run_gain": round(min(100 * (r["best"] - r["start"]) for r in rows), 1),
        "fallbacks": sum(row["fallback"] for row in rows),
        "prompts": round(statistics.mean(row["prompts"] for row in rows)),
        "images": round(statistics.mean(row["images"] for row in rows)),
        "as_published": rows[0]["as_published"],
    }


def compare(rows: list[dict[str, Any]], one: str, other: str, shots: int) -> dict[str, Any]:
    """Paired over tasks and seeds: how far ``one`` is above ``other``."""
    best = {
        (r["entry"], r["task"], r["seed"]): 100 * r["best"] for r in rows if r["shots"] == shots
    }
    gaps = [best[key] - best[other, *key[1:]] for key in best if key[0] == one]
    interval = mean_interval(gaps)
    return {
        "entry": other,
        "shots": shots,
        "above": round(interval.value, 1),
        "ci95": [round(interval.low, 1), round(interval.high, 1)],
    }


def markdown(
    command: str,
    summary: list[dict[str, Any]],
    against: list[dict[str, Any]],
    rows: list[dict[str, Any]],
) -> str:
    """The tables."""
    runs = len({(r["task"], r["seed"]) for r in rows})
    gaps = {(a["entry"], a["shots"]): a for a in against}
    lines = [
        "# Continuous prompts at equal query budgets",
        "",
        f"`{command}`; test accuracy in per cent, 1,000 test images a task, embedded model, "
        f"{runs} runs a line, 95 % intervals. `craft above` is the paired difference to `craft`. "
        "`coop` is white box: the reference, not a competitor. `prompts` counts text and soft "
        "prompts encoded, twelve a context; `images` those encoded for the search; `as published` "
        "is what the paper would have counted instead of both.",
        "",
        "| entry | shots | accuracy | gain over the start | worst task | worst run | start kept | "
        "craft above | prompts | images | as published |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in summary:
        gap = gaps.get((s["entry"], s["shots"]))
        above = f"{gap['above']:+.1f} [{gap['ci95'][0]:+.1f}, {gap['ci95'][1]:+.1f}]" if gap else ""
        lines.append(
            f"| {s['entry']} | {s['shots']} | {s['accuracy']:.1f} "
            f"[{s['accuracy_ci95'][0]:.1f}, {s['accuracy_ci95'][1]:.1f}] | {s['gain']:+.1f} | "
            f"{s['worst_task_gain']:+.1f} ({s['worst_task'].removeprefix('shapes-')}) | "
            f"{s['worst_run_gain']:+.1f} | {s['fallbacks']} | {above} | {s['prompts']:,} | "
            f"{s['images']:,} | {s['as_published'] or '–'} |"
        )
    lines += beside(rows)
    entries = list(dict.fromkeys(s["entry"] for s in summary))
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    for shots in dict.fromkeys(s["shots"] for s in summary):
        header = " | ".join(task.removeprefix("shapes-") for task in tasks)
        lines += ["", f"{shots} shots, mean over seeds:", "", f"| entry | {header} |"]
        lines.append("|---|" + "---|" * len(tasks))
        for entry in entries:
            cells = []
            for task in tasks:
                found = [
                    100 * r["best"]
                    for r in rows
                    if (r["entry"], r["shots"], r["task"]) == (entry, shots, task)
                ]
                cells.append(f"{statistics.mean(found):.1f}")
            lines.append(f"| {entry} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def beside(rows: list[dict[str, Any]]) -> list[str]:
    """What the same runs gave before the published forms were mended."""
    then = {
        (r["entry"], r["task"], r["shots"], r["seed"]): 100 * r["best"]
        for r in json.loads(BEFORE.read_text())["runs"]
    }
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        known = then.get((row["entry"], row["task"], row["shots"], row["seed"]))
        if known is not None and row["entry"] in RELEASED:
            pairs.setdefault(row["entry"], []).append((known, 100 * row["best"]))
    if not pairs:
        return []
    lines = ["", "The same runs at commit 3b0ac87, before the published forms were mended:", ""]
    lines += ["| entry | runs | then | now | difference |", "|---|---|---|---|---|"]
    for entry, found in pairs.items():
        before, now = (statistics.mean(column) for column in zip(*found, strict=True))
        apart = mean_interval([b - a for a, b in found])
        lines.append(
            f"| {entry} | {len(found)} | {before:.1f} | {now:.1f} | "
            f"{apart.value:+.1f} [{apart.low:+.1f}, {apart.high:+.1f}] |"
        )
    return lines


if __name__ == "__main__":
    main()
