"""The machine a run was made on, and whether the same would be found on another."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmopt.runs.machine import machine
from llmopt.vision.base import Access, BoxInfo
from llmopt.vision.openclip import OpenClipBlackBox

EXACT = BoxInfo("exact", "", Access.SOFT, "0" * 64, repeatable=True)

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OLD = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""Old vector instructions."""
CODE = """
import json, sys, llmopt
common = dict(runs=sys.argv[1], seed=3, dataset="shapes-blue", progress=False)
found = []
for options in (
    dict(llm="builtin"),
    dict(optimizer="craft", settings={"budget": 160}, head="none"),
):
    result = llmopt.run(**common, **options).result
    kept = ("optimizer", "baseline", "best", "gain", "ledger", "evaluation")
    found.append({key: result[key] for key in kept})
print(json.dumps(found))
"""


def _found(runs: Path, environment: dict[str, str]) -> object:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(runs)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.long
def test_the_same_seed_finds_the_same_on_another_processor(tmp_path: Path) -> None:
    here = _found(tmp_path / "here", dict.fromkeys(THREADS, "2"))
    assert _found(tmp_path / "there", OLD | dict.fromkeys(THREADS, "1")) == here


def test_a_result_says_whether_it_would_be_found_elsewhere_and_why() -> None:
    sure = machine(EXACT, llm_repeats=True)
    assert sure["same_elsewhere"]
    assert "fp64" in sure["because"]
    assert sure["threads"] >= 1
    talking = machine(EXACT, llm_repeats=False)
    assert not talking["same_elsewhere"]
    assert "language model" in talking["because"]
    rounding = machine(dataclasses.replace(EXACT, repeatable=False), llm_repeats=True)
    assert not rounding["same_elsewhere"]
    assert "--precision fp64" in rounding["because"]


@pytest.mark.parametrize(
    ("precision", "expected"), [("auto", True), ("fp64", True), ("fp32", False)]
)
def test_the_embedded_model_is_exact_unless_told_otherwise(precision: str, expected: bool) -> None:
    assert OpenClipBlackBox(device="cpu", precision=precision).info.repeatable is expected
