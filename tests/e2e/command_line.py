"""The ``llmopt`` command in this process, for speed."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmopt.cli.app import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


def run(*arguments: object, cwd: Path | None = None) -> Done:
    """``llmopt ARGUMENTS``, as if typed in ``cwd``; neither stream is a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["llmopt", *map(str, arguments)])
        if cwd is not None:
            patch.chdir(cwd)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
                code: Any = 0
            except SystemExit as stop:
                code = stop.code
    return Done(int(code or 0), out.getvalue(), err.getvalue())


def done(*arguments: object, cwd: Path | None = None) -> Done:
    """The same, for a command that must succeed."""
    ended = run(*arguments, cwd=cwd)
    assert ended.code == 0, ended.err
    return ended


def refused(*arguments: object, cwd: Path | None = None, code: int = 2) -> str:
    """The message of a command that must fail: one line on stderr, nothing on stdout.

    A second line may name a page of the documentation.
    """
    ended = run(*arguments, cwd=cwd)
    assert ended.code == code, ended
    assert ended.out == ""
    lines: Sequence[str] = ended.err.splitlines()
    if len(lines) == 2 and lines[1].startswith("more: llmopt docs "):
        lines = lines[:1]
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("error: ")
    return lines[0]
