"""``benchmarks/gpu.py`` on a machine without a card: no minute of one is to be lost on a slip."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SCRIPT = CHECKOUT / "benchmarks" / "gpu.py"
MACHINE = {"card": "a card", "torch": "2", "python": "3"}


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scripted(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, *processes: Any) -> list[Any]:
    """Each process says its lines and ends with its code; what each was told to skip."""
    waiting, skipped = list(processes), []

    @contextlib.contextmanager
    def child(parts: Any, done: Any, seconds: float, miniature: bool) -> Iterator[Any]:
        skipped.append(done)
        code, *lines = waiting.pop(0)
        yield SimpleNamespace(returncode=code), [{"machine": MACHINE}, *lines]

    monkeypatch.setattr(gpu, "child", child)
    return skipped


def case(name: str) -> dict[str, Any]:
    return {"part": "text", "case": name, "rows": [{"case": name, "ratio": 12.0}], "seconds": 1.0}


def test_what_fails_is_recorded_and_the_next_begins(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"part": "text", "case": "two", "error": "RuntimeError: no"}
    skipped = scripted(gpu, monkeypatch, (1, case("one"), broken), (0, case("three")))
    gpu.run(["text"], 60, False, gpu.Report(tmp_path / "gpu.json"))
    assert skipped == [{"text": []}, {"text": ["one", "two"]}]
    kept = json.loads((tmp_path / "gpu.json").read_text())["parts"]["text"]
    assert (kept["cases"], kept["problems"]) == (["one", "three"], {"two": "RuntimeError: no"})
    assert "- **two: RuntimeError: no**" in (tmp_path / "gpu.md").read_text()

    skipped = scripted(gpu, monkeypatch, (0, case("two")))  # the same command again
    gpu.run(["text"], 60, False, gpu.Report(tmp_path / "gpu.json"))
    assert skipped == [{"text": ["one", "three"]}]
    again = gpu.Report(tmp_path / "gpu.json").parts["text"]
    assert (again["cases"], again["problems"]) == (["one", "three", "two"], {})


def test_another_card_begins_anew(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = gpu.Report(tmp_path / "gpu.json")
    report.begin("text", MACHINE)
    report.add("text", "one", [{"ratio": 1.0}], 1.0)
    report.begin("text", MACHINE)
    assert report.parts["text"]["cases"] == ["one"]
    report.begin("text", MACHINE | {"card": "another"})
    assert report.parts["text"]["cases"] == []


def test_a_process_that_is_killed_ends_its_part_only(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(gpu, monkeypatch, (-9, case("one")))
    report = gpu.Report(None)
    gpu.run(["text"], 60, False, report)
    assert report.parts["text"]["problems"] == {"the rest": "ended by -9"}
    gpu.run(["images"], 1, False, report)
    assert report.parts["images"]["problems"] == {"the rest": "no time left, of 1 s"}


def test_the_wheels_are_those_of_the_constraints() -> None:
    packed = (CHECKOUT / "benchmarks" / "gpu_wheels.txt").read_text().splitlines()
    pinned = re.findall(r"^([\w.-]+)==", (CHECKOUT / "constraints.txt").read_text(), re.MULTILINE)
    assert {line for line in packed if not line.startswith("#")} <= set(pinned)


@pytest.mark.slow
def test_all_of_it_runs_in_miniature(gpu: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--miniature", "--seconds", "900", "--out", tmp_path]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == list(gpu.PARTS)
    assert all(part["rows"] for part in parts.values())
