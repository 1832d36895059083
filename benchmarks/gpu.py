"""Everything that wants a graphics card, in one command, the most wanted first.

    .venv/bin/python benchmarks/gpu.py [--parts equality text …] [--seconds 480]

Random weights, no network. Each part runs in a process of its own with a limit of its own, and what
it measured is written at once, with card, driver, versions and command, to
``benchmarks/results/gpu.json`` and ``gpu.md``. What fails or takes too long is recorded as such and
the next begins; the same command again goes on with what is not yet measured on this card
(``--again`` measures anew). Without a card, or with ``--miniature``, all of it runs on the CPU in
miniature, to see that it runs; results go to ``--out`` only if that is given.

On a machine without a network: ``make wheels`` here packs what it needs there beside PyTorch (see
``benchmarks/gpu_wheels.txt``); copy the checkout with ``.wheels``, and there run

    python3 -m pip install -q --no-index --no-deps --target /tmp/site .wheels/*.whl
    PYTHONPATH=/tmp/site:. python3 benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE = Path(__file__).parent
RESULTS = HERE / "results"

PARTS: Final = {
    "equality": (150, "(a) The same answers as fp32 on the CPU: largest differences of features "
                      "and cosines; ≤ 1e-4 in fp32, ≤ 5e-3 in fp16"),
    "tests": (60, "(b) The tests marked gpu"),
    "text": (150, "(c) Text engine against `encode_text` in the same precision: ≥ 10 × on Caltech "
                  "× 8, ≥ 30 % of the card's matrix rate on ImageNet × 8"),
    "images": (90, "(d) JPEG files a second: encoder busy ≥ 80 %, or decoding is the limit"),
    "craft": (180, "(e) A whole CraFT run of 8,000 evaluations, 16 shots: under 60 s at 100 "
                   "classes"),
    "runs": (90, "(g) Default chat runs and one of auto, end to end"),
    "graphs": (45, "Soft prompts as they run, against a CUDA graph of the same work: what "
                   "launching costs"),
    "chunks": (45, "Nodes computed at once"),
    "memory": (60, "(f) Memory above the model, and what happens when it does not suffice; the "
                   "other parts name their peaks"),
    "profile": (45, "Where the time goes; `all` is how busy the card is"),
}  # fmt: skip
"""Limit in seconds and title of each part, the most wanted first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=540, help="for all parts together")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--miniature", action="store_true")
    parser.add_argument("--out", type=Path, help="folder of gpu.json and gpu.md")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    miniature = options.miniature or not has_card()
    if options.child is not None:
        import gpu_parts

        gpu_parts.work(options.parts, options.child, miniature)
        return
    out = options.out or (None if miniature else RESULTS)
    report = Report(None if out is None else out / "gpu.json")
    if options.again:
        for part in options.parts:
            report.parts.pop(part, None)
    end = time.monotonic() + options.seconds
    # In miniature what takes time is the start of a process.
    for parts in [options.parts] if miniature else [[part] for part in options.parts]:
        limit = min(sum(PARTS[part][0] for part in parts), end - time.monotonic())
        run(parts, limit, miniature, report)
    print(report.markdown())
    sys.exit(any(part.get("problems") for part in report.parts.values()))


def has_card() -> bool:
    import torch

    return torch.cuda.is_available()


class Report:
    """What was measured so far, on disk as soon as it is known.

    Attributes:
        parts: by name: ``machine``, ``command``, ``rows``, ``cases`` (those done), ``seconds`` and
            ``problems``.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        kept = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        self.parts: dict[str, dict[str, Any]] = kept.get("parts", {})

    def begin(self, part: str, machine: Mapping[str, Any]) -> None:
        """Go on with a part; from the beginning if what is there comes from another machine."""
        same = ("card", "torch", "python")
        kept = self.parts.get(part, {})
        if [kept.get("machine", {}).get(key) for key in same] != [machine[key] for key in same]:
            self.parts[part] = kept = {"rows": [], "cases": [], "seconds": 0.0}
        kept |= {
            "machine": dict(machine),
            "command": shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
            "problems": {},
        }
        self.save()

    def add(self, part: str, case: str, rows: Sequence[Any], seconds: float) -> None:
        """A case that was measured."""
        kept = self.parts[part]
        kept["rows"] += rows
        kept["cases"].append(case)
        kept["seconds"] += seconds
        self.save()

    def problem(self, part: str, case: str, said: str) -> None:
        """A case, or the part itself, that was not."""
        self.parts.setdefault(part, {"rows": [], "cases": [], "seconds": 0.0})
        self.parts[part].setdefault("problems", {})[case] = said
        self.save()

    def save(self) -> None:
        """Both files, each whole at any moment."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ordered = {part: self.parts[part] for part in PARTS if part in self.parts}
        for path, told in (
            (self.path, json.dumps({"parts": ordered}, indent=1) + "\n"),
            (self.path.with_suffix(".md"), self.markdown()),
        ):
            new = path.with_name(path.name + ".new")
            new.write_text(told)
            new.replace(path)

    def markdown(self) -> str:
        """All parts as tables."""
        lines = ["# On a graphics card", ""]
        for part, (_, title) in PARTS.items():
            if part not in self.parts:
                continue
            kept = self.parts[part]
            lines += [f"## {title}", ""]
            if machine := kept.get("machine"):
                told = ", ".join(f"{key} {value}" for key, value in machine.items() if value)
                lines += [f"`{kept['command']}`", "", f"{told}; {kept['seconds']:.0f} s.", ""]
            columns = list(dict.fromkeys(key for row in kept["rows"] for key in row))
            if columns:
                lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
                lines += ["| " + " | ".join(shown(row.get(c)) for c in columns) + " |"
                          for row in kept["rows"]]  # fmt: skip
                lines.append("")
            lines += [f"- **{case}: {said}**" for case, said in kept.get("problems", {}).items()]
            lines.append("")
        return "\n".join(lines).rstrip() + "\n"


def shown(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")


def run(parts: Sequence[str], limit: float, miniature: bool, report: Report) -> None:
    """The cases of ``parts`` that are not done, in as many processes as it takes."""
    end = time.monotonic() + limit
    begun, failed = set(), {part: set[str]() for part in parts}
    while True:
        left = end - time.monotonic()
        if left < 5:
            for part in parts:
                report.problem(part, "the rest", f"no time left, of {limit:.0f} s")
            return
        done = {p: [*report.parts.get(p, {}).get("cases", []), *failed[p]] for p in parts}
        lost = None
        with child(parts, done, left, miniature) as (process, lines):
            for line in lines:
                if "machine" in line:
                    for part in parts:
                        if part not in begun:
                            report.begin(part, line["machine"])
                            begun.add(part)
                elif "error" in line:
                    lost = line
                else:
                    print(f"{line['part']}: {line['case']}", file=sys.stderr, flush=True)
                    report.add(line["part"], line["case"], line["rows"], line["seconds"])
        if process.returncode == 0:
            return
        if lost is None:  # killed, by the clock or by itself
            timed_out = end - time.monotonic() < 1
            said = f"stopped after {limit:.0f} s" if timed_out else f"ended by {process.returncode}"
            for part in parts:
                report.problem(part, "the rest", said)
            return
        failed[lost["part"]].add(lost["case"])
        report.problem(lost["part"], lost["case"], lost["error"])


@contextlib.contextmanager
def child(
    parts: Sequence[str], done: Mapping[str, Sequence[str]], seconds: float, miniature: bool
) -> Iterator[tuple[subprocess.Popen[str], Iterator[dict[str, Any]]]]:
    """A process that measures, and what it tells; killed with all of its own when time is up."""
    command = [sys.executable, __file__, "--child", json.dumps(done), "--parts", *parts]
    command += ["--miniature"] if miniature else []
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    settings = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | settings,
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    watchdog = threading.Timer(seconds, kill)
    watchdog.start()
    try:
        yield process, (json.loads(line) for line in process.stdout or ())
        process.wait()
    finally:
        watchdog.cancel()
        kill()


if __name__ == "__main__":
    main()
