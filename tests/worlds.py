"""Whole runs in the fakes' world: configs, results without what may differ, the command itself."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from llmopt.runs.config import RunConfig

COMMAND = (sys.executable, "-c", "from llmopt.cli.app import main; main()")
"""Begins the command line of ``llmopt``, for tests that need the process itself."""

SMALL = {"probes": 0, "restarts": 2, "iterations": 3, "pool": 7, "proposals": 3}
"""Settings of ``chat`` that make a run of a few hundred milliseconds."""


def config(root: Path, **options: Any) -> RunConfig:
    """A config for the data below ``root/data`` (see ``fakes.write_folder``)."""
    options = {"shots": 2, "llm": "builtin", **options}
    if options.get("optimizer", "chat") == "chat":
        options.setdefault("settings", SMALL)
    return RunConfig(dataset=f"folder:{root / 'data'}", runs=str(root / "runs"), **options)


def settled(result: dict[str, Any]) -> dict[str, Any]:
    """A result without times, places and calls that a crash lost."""
    result = copy.deepcopy(result)
    for name in ("run", "seconds"):
        del result[name]
    for ledger in (result["ledger"], result["evaluation"]):
        for name in [name for name in ledger if name.endswith("_lost")]:
            del ledger[name]
    return result


def read(folder: Path, name: str = "result.json") -> Any:
    """A JSON file of a run folder."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def llmopt(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
