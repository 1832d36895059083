"""``report`` of 100 runs and ``runs`` of 2,000: seconds, memory, size.

    .venv/bin/python benchmarks/many_runs.py

The runs are written by the engine's own code without a search: 160 proposals in 20 turns, or 60
steps of a continuous search, over 1,000 test images each. Every command is a process of its own;
memory is its largest resident set. Writes ``benchmarks/results/many_runs.json`` and ``.md``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parent / "tests"))
COMMAND = (sys.executable, "-c", "from llmopt.cli.app import main; main()")
REPORTED, LISTED = 100, 2_000
WORDS = ("red", "big", "small", "old", "tiny", "blurry", "bright", "dark", "drawn", "toy")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # In a process of its own: memory is counted from that of the process that starts another.
        subprocess.run([sys.executable, __file__, str(root / "runs")], check=True)
        runs = sorted((root / "runs").iterdir())
        page = root / "report.html"
        rows = [measured(f"report of {REPORTED} runs", "report", *runs, "--out", page)]
        pages = [page, *(root / "report-runs").iterdir()]
        rows[0]["page_megabytes"] = max(path.stat().st_size for path in pages) / 1e6
        for number in range(LISTED - REPORTED):
            shutil.copytree(runs[number % REPORTED], root / "runs" / f"copy-{number}")
        listing = ("runs", "--runs", root / "runs")
        rows.append(measured(f"runs of {LISTED:,}, the first time", *listing))
        rows.append(measured(f"runs of {LISTED:,}, again", *listing))
    write(rows)


def make_run(root: Path, number: int) -> None:
    """One of ten arms with one of ten seeds."""
    import numpy as np
    from paper_runs import paper_run

    from llmopt.data.shapes import SHAPES

    arm, seed = divmod(number, 10)
    dice = np.random.default_rng(number)
    labels = np.arange(1000) % len(SHAPES)
    events: list[tuple[str, str, dict[str, Any]]] = []
    if arm < 6:
        for turn in range(20):
            templates = [
                {"text": f"a {' '.join(dice.choice(WORDS, 3))} {turn}{place} {{}}.",
                 "train_accuracy": float(dice.random()), "train_logprob": -2 * float(dice.random())}
                for place in range(8)
            ]  # fmt: skip
            events.append(("scored", f"restart-{turn % 2}", {"templates": templates}))
    else:
        events = [
            ("step", "main", {"index": step, "loss": 2 / (step + 1), "train_accuracy": 0.5,
                              "soft_prompt_encodings": 96 * step})
            for step in range(60)
        ]  # fmt: skip
    asked = [["system", "Rules. " * 300], ["human", "Better ones? " * 60]]
    paper_run(
        root,
        optimizer="chat" if arm < 6 else "craft",
        settings={"iterations" if arm < 6 else "budget": 40 + arm},
        seed=seed + 1,
        classnames=SHAPES,
        labels=labels,
        before=np.where(dice.random(1000) < 0.5, labels, 0),
        after=np.where(dice.random(1000) < 0.6 + arm / 30, labels, 1),
        events=events,
        replies=[(asked, "- a small {}.\n" * 8)] * 20 if arm < 6 else (),
    )


def measured(name: str, *arguments: Any) -> dict[str, Any]:
    """Wall seconds and largest resident set of one command."""
    before = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, name
    return {
        "what": name,
        "seconds": time.perf_counter() - before,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / 1024,
    }


def write(rows: list[dict[str, Any]]) -> None:
    data = {"command": "python benchmarks/many_runs.py", "rows": rows}
    (RESULTS / "many_runs.json").write_text(json.dumps(data, indent=2) + "\n")
    lines = [
        "| what | seconds | processor seconds | MB | largest page, MB |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        size = row.get("page_megabytes")
        lines.append(
            f"| {row['what']} | {row['seconds']:.1f} | {row['processor_seconds']:.1f} | "
            f"{row['megabytes']:.0f} | {'' if size is None else f'{size:.2f}'} |"
        )
    text = "\n".join(["# Many runs", "", (__doc__ or "").strip(), "", *lines, ""])
    (RESULTS / "many_runs.md").write_text(text)
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        for number in range(REPORTED):
            make_run(Path(sys.argv[1]), number)
    else:
        main()
