"""Write ``golden.json``: what the real command line answers to every case.

    python tests/golden/record.py [CASE ...]

With names, only those cases are recorded anew. Nothing here imports llmopt: all that is looked at
is exit codes, what is printed and the files of run folders, as a user has them. With ``PYTHONPATH``
set, the llmopt found there is recorded, else the one of this checkout.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
from cases import CASES, Case, Step
from safetensors.numpy import load_file

GOLDEN: Final = Path(__file__).with_name("golden.json")
ROOT: Final = Path(__file__).resolve().parents[2]
# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that.
_LISTEN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND: Final = (sys.executable, "-c", f"{_LISTEN}; from llmopt.cli.app import main; main()")
PATIENCE: Final = 300.0

_UNSET = ("FORCE_COLOR", "GITHUB_ACTIONS", "HF_TOKEN", "OPENAI_BASE_URL", "PY_COLORS")
_UNSET_PREFIXES = ("LLMOPT_", "LANGCHAIN_", "LANGSMITH_")
_SET = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "COLUMNS": "100",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "MKL_NUM_THREADS": "1",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TERM": "dumb",
}
IGNORED: Final = frozenset(
    {"run", "folders", "machine", "notes", "seconds", "versions", "metrics", "per_class"}
)
"""Keys of JSON documents whose values differ from time to time, are sentences, or follow from the
predictions, which are looked at."""
BESIDE: Final = frozenset(
    f"{name}.{part}"
    for name in ("baseline", "best", "subset", "openai")
    for part in ("in_five", "confidence")
)
"""What metrics are made of, in the file of the predictions."""
LOST: Final = frozenset({"llm_calls_lost", "llm_tokens_lost", "llm_usd_lost"})
"""What a ledger has besides when a run was disturbed while it waited for a language model."""
ASKED: Final = "llm_intent"
"""Kind of journal record; a call that was waited for then is announced a second time."""
_FOLDER = re.compile(r"(\w[\w-]*-\d+shot-seed\d+-[a-z]+)-\d{8}-\d{6}(-\d+)?")
_DIGITS = 9


def environment(cache: Path) -> dict[str, str]:
    """What a command sees: no keys, no settings of ours, one thread, one kind of arithmetic."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not (name.endswith("_API_KEY") or name.startswith(_UNSET_PREFIXES) or name in _UNSET)
    }
    return {"PYTHONPATH": str(ROOT)} | kept | _SET | {"LLMOPT_CACHE": str(cache)}


def prime(root: Path) -> Path:
    """A cache that holds the test images of ``shapes-small`` and its first few shots.

    Features depend in their last digits on how many images were encoded together. So every case
    starts from a copy of the same cache, and is the same alone and after others.
    """
    cache = root / "cache"
    primer = Step("run --optimizer zeroshot --json")
    if _step(primer, root, cache)["exit"]:
        raise AssertionError(f"'llmopt {primer.line}' failed")
    return cache


def play(case: Case, root: Path, primed: Path) -> dict[str, Any]:
    """Type the commands of a case in the empty folder ``root``, and gather what is to be seen."""
    cache = root / "cache"
    shutil.copytree(primed, cache)
    for name, text in case.files.items():
        (root / name).write_text(text, encoding="utf-8")
    steps = [_step(step, root, cache) for step in case.steps]
    return _compact({"steps": steps, "folders": [look(folder) for folder in folders(root)]})


def expected(case: Case, golden: dict[str, Any]) -> dict[str, Any]:
    """What :func:`play` must return."""
    kept: dict[str, Any] = golden[case.name]
    if not case.like:
        return kept
    undisturbed = golden[case.like]
    return {**undisturbed, "steps": [*kept["steps"], *undisturbed["steps"][-1:]]}


def without_lost(seen: Any) -> Any:
    """The same JSON without what only a disturbed run spends."""
    if isinstance(seen, dict):
        return {
            key: without_lost(one)
            for key, one in seen.items()
            if key not in LOST and not key.endswith(f" {ASKED}")
        }
    return [without_lost(one) for one in seen] if isinstance(seen, list) else seen


def folders(root: Path) -> list[Path]:
    """Run folders, in the order they were made."""
    configs = (root / "runs").glob("*/config.toml")
    return [path.parent for path in sorted(configs, key=lambda path: path.stat().st_mtime_ns)]


def look(folder: Path) -> dict[str, Any]:
    """What a run folder holds."""
    seen: dict[str, Any] = {
        "name": _FOLDER.sub(r"\1", folder.name),
        "files": sorted(
            str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
        ),
    }
    for name in ("result.json", "prompts.json"):
        if (folder / name).is_file():
            seen[name] = _steady(json.loads((folder / name).read_text(encoding="utf-8")))
    for name in ("predictor.safetensors", "test_predictions.safetensors"):
        if (folder / name).is_file():
            tensors = load_file(folder / name)
            seen[name] = {key: _gist(tensors[key]) for key in sorted(set(tensors) - BESIDE)}
    if (folder / "journal.jsonl").is_file():
        lines = (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        told = [one for one in records if one["stream"] != "run"]  # how the folder came to be
        kinds = Counter(f"{one['stream']} {one['kind']}" for one in told)
        seen["journal"] = dict(sorted(kinds.items()))
    return seen


def _gist(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Shape, mean and length of a tensor, in place of its numbers."""
    numbers = array.astype(np.float64)
    return {
        "shape": list(array.shape),
        "mean": float(numbers.mean()) if array.size else 0.0,
        "rms": float(np.sqrt((numbers**2).mean())) if array.size else 0.0,
    }


def _step(step: Step, root: Path, cache: Path) -> dict[str, Any]:
    names = [f"runs/{folder.name}" for folder in folders(root)]
    process = subprocess.Popen(
        [*COMMAND, *step.argv(names)],
        cwd=root,
        env=environment(cache),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    try:
        if step.signal:
            _strike(process, step, root, len(names))
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    said: dict[str, Any] = {"exit": process.returncode}
    if step.signal:  # what it had found by then depends on the moment
        if out:
            said["status"] = json.loads(out)["status"]
        return said
    if process.returncode:
        said["named"] = [word for word in step.named if word in err]
        return said
    if "--json" in step.line:
        said["stdout"] = _steady(json.loads(out))
    elif step.line.startswith("export"):
        said["stdout"] = out.splitlines()
    # What is said on stdout stands in the folder too; once is enough.
    latest = [folder / "result.json" for folder in folders(root)[-1:]]
    if out and latest and latest[0].is_file() and latest[0].read_text(encoding="utf-8") == out:
        said["stdout"] = "the last folder's result.json"
    return said


def _strike(process: subprocess.Popen[str], step: Step, root: Path, before: int) -> None:
    """Send the signal once the journal is long enough."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        for folder in folders(root)[before:]:
            journal = folder / "journal.jsonl"
            if journal.is_file() and journal.read_bytes().count(b"\n") >= step.lines:
                process.send_signal(getattr(signal, step.signal))
                return
        time.sleep(0.005)
    raise AssertionError(f"'{step.line}' ended before {step.signal}: {process.communicate()}")


def _steady(value: Any) -> Any:
    """JSON without what may differ, floats to so many digits."""
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in IGNORED}
    if isinstance(value, list):
        return [_steady(inner) for inner in value]
    if isinstance(value, str):
        return _FOLDER.sub(r"\1", value)
    return value


def _compact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _compact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_compact(inner) for inner in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def main(names: list[str]) -> None:
    """Record the cases of these names, or all."""
    if unknown := set(names) - {case.name for case in CASES}:
        sys.exit(f"there is no case {', '.join(sorted(unknown))}")
    old = json.loads(GOLDEN.read_text(encoding="utf-8")) if names else {}
    found = {}
    with tempfile.TemporaryDirectory() as place:
        primer = Path(place, "primer")
        primer.mkdir()
        primed = prime(primer)
        for case in CASES:
            if names and case.name not in names:
                found[case.name] = old.get(case.name)
                continue
            root = Path(place, case.name)
            root.mkdir()
            began = time.monotonic()
            found[case.name] = play(case, root, primed)
            if case.like:  # only that it was stopped; how it ends is the other case's
                found[case.name] = {"steps": found[case.name]["steps"][:-1]}
            exits = [step["exit"] for step in found[case.name]["steps"]]
            print(f"{case.name}: {exits}, {time.monotonic() - began:.1f} s", flush=True)
    lines = [
        f"{json.dumps(name)}: {json.dumps(one, ensure_ascii=False, separators=(',', ':'))}"
        for name, one in found.items()
    ]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
