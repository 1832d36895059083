"""Does the same command give the same answer on another processor?

    .venv/bin/python benchmarks/machines.py [--parts run comparison long]

Runs the default command (``run``), the README's comparison, and a long search on every
shapes task and seed, once for each of twelve machines: one and two threads, three instruction sets,
two kernels of OpenBLAS. The instruction sets are those that PyTorch, MKL, oneDNN and NumPy are held
to by their environment variables, each machine in a process of its own. The reference is the first.
Writes
``benchmarks/results/machines.json`` and ``machines.md``; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "machines.json"
SEEDS = (1, 2, 3)
PARTS = {
    "run": (),
    "comparison": ("text=chat", "random=random,evaluations=24"),
    "long": ("long=craft",),
}

_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
INSTRUCTIONS = {
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": _AVX512,
    },
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NPY_DISABLE_CPU_FEATURES": f"AVX2 FMA3 {_AVX512}",
    },
}
KERNELS = ("SkylakeX", "Haswell")
THREADS = (2, 1)
MACHINES = {
    f"{threads} thread{'s' * (threads > 1)}, {name}, {kernel}": {
        **INSTRUCTIONS[name],
        "OPENBLAS_CORETYPE": kernel,
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")},
    }
    for threads, name, kernel in itertools.product(THREADS, INSTRUCTIONS, KERNELS)
}

Answers = dict[str, list[tuple[str, int, str, float]]]
"""Of a part and a task: arm, seed, best prompt and its test accuracy of each run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--machines", nargs="+", type=int, default=range(len(MACHINES)))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(answer(arguments.tasks[0], arguments.parts[0])))
        return

    from llmopt.data.shapes import TASKS

    tasks = arguments.tasks or list(TASKS)
    kept = json.loads(arguments.out.read_text())["answers"] if arguments.out.is_file() else {}
    for number in arguments.machines:
        name, environment = list(MACHINES.items())[number]
        answers = kept.setdefault(name, {})
        for part, task in itertools.product(arguments.parts, tasks):
            if f"{part} {task}" in answers:
                continue
            command = [sys.executable, __file__, "--child", "--parts", part, "--tasks", task]
            done = subprocess.run(
                command, env={**os.environ, **environment}, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{name}, {part}, {task}: {done.stderr[-2000:]}")
            answers[f"{part} {task}"] = json.loads(done.stdout)
            print(f"{name}: {part} {task}", flush=True)
            write(arguments.out, kept)
    print(arguments.out.with_suffix(".md").read_text())


def answer(task: str, part: str) -> list[tuple[str, int, str, float]]:
    """What this machine finds."""
    import llmopt

    with tempfile.TemporaryDirectory() as runs:
        if part == "run":
            found = [
                ("run", llmopt.run(dataset=task, seed=seed, llm="builtin", runs=runs).result)
                for seed in SEEDS
            ]
        else:
            table = llmopt.compare(
                PARTS[part],
                datasets=[task],
                seeds=SEEDS,
                llm="builtin",
                runs=runs,
            )
            found = [
                (one.cell.arm.name, json.loads((one.folder / "result.json").read_text()))
                for one in table.done
                if one.folder
            ]
    return [(arm, result["task"]["seed"], *best(result)) for arm, result in found]


def best(result: dict[str, Any]) -> tuple[str, float]:
    """The prompt a run ends with, as far as it is text, and its test accuracy."""
    found = result["best"]
    text = "; ".join(template["text"] for template in found["templates"])
    return text or "a soft prompt", found["test_accuracy"]


def write(out: Path, kept: dict[str, Answers]) -> None:
    """The answers, and how they differ from those of the first machine."""
    command = " ".join(["python", "benchmarks/machines.py", *map(shlex.quote, sys.argv[1:])])
    out.write_text(json.dumps({"command": command, "answers": kept}, indent=1) + "\n")
    reference, *others = kept
    lines = [
        "# The same answer on another processor",
        "",
        f"`{command}`; against {reference}. `same template` counts runs that end with the same",
        "prompt, `within a point` those whose test accuracy differs by at most one point.",
        "",
        "| arm | machines | runs | same template | within a point | largest difference, points |",
        "|---|---|---|---|---|---|",
    ]
    found = {
        name: {(*key.split(), *run[:2]): tuple(run[2:]) for key in answers for run in answers[key]}
        for name, answers in kept.items()
    }
    for arm in dict.fromkeys(arm for _, _, arm, _ in found[reference]):
        mine = {name: {k: v for k, v in found[name].items() if k[2] == arm} for name in kept}
        pairs = [(mine[name][k], v) for name in others for k, v in mine[reference].items()
                 if k in mine[name]]  # fmt: skip
        if pairs:
            same = sum(a[0] == b[0] for a, b in pairs)
            apart = [100 * abs(a[1] - b[1]) for a, b in pairs]
            close = sum(points <= 1 + 1e-9 for points in apart)
            lines.append(
                f"| {arm} | {sum(map(bool, mine.values())) - 1} | {len(pairs)} "
                f"| {100 * same / len(pairs):.1f} % | {100 * close / len(pairs):.1f} % "
                f"| {max(apart):.1f} |"
            )
    lines += ["", "Looked at, with runs each:", ""]
    lines += [f"- {name}: {len(runs)}" for name, runs in found.items()]
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
