"""What commands print on terminals of 80 and 120 columns, as people see it.

    python tests/cli/snapshots.py

writes ``snapshots/80.txt`` and ``120.txt`` anew, to be looked at before they are committed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

SNAPSHOTS: Final = Path(__file__).with_name("snapshots")
WIDTHS: Final = (80, 120)
COMMANDS: Final = (
    "--help",
    "run --optimizer random --set evaluations=20 --baselines none --runs others",
    "run --optimizer zeroshot --baselines none --runs others",
    "runs",
    "runs --sort -best --columns run,start,best",
    "runs --filter best>1000",
    "resume first",
    "resume first --verbose",
    "plan --runs none --max-queries 500",
    "plan --runs none --optimizer auto --shots 4",
    "evaluate first --baselines none",
    "explain first",
    "predict first image.png --top 3",
    "compare --optimizer zeroshot --seed 1-2 --baselines none --runs others --columns arm,gain",
    "compare --optimizer zeroshot --seed 1-3 --baselines none --runs others --status",
    "export first",
    "export first --format cupl",
    "export first --format csv",
    "reproduce list --data-root none",
    "reproduce plan coop --only dataset=eurosat,shots=1 --data-root none",
    "datasets list --data-root none",
    "datasets show cifar10 --data-root none",
    "datasets show svhn --data-root none",
    "datasets check shapes-small",
    "optimizers list",
    "optimizers show handcrafted",
    "heads list",
    "heads show tip",
    "keys list keys.json",
    "docs",
    "docs waypoint",
)
"""All that print what does not depend on the machine; pages and servers are looked at elsewhere."""

STEADY: Final = (
    (re.compile(r"\d{8}-\d{6}"), "20260101-000000"),
    (re.compile(r"\b\d+\.\d s\b"), "1.0 s"),
    (re.compile(r"black box \d+\.\d, LLM \d+\.\d"), "black box 9.0, LLM 1.0"),
    (re.compile(r"\b\d+(\s+)seconds\b"), r"0\g<1>seconds"),  # a line may end between them
    (re.compile(r"(zeroshot .*)\b\d+\.\d$", re.MULTILINE), r"\g<1>0.0"),
)
_STYLE: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    """A stream that people look at."""

    def isatty(self) -> bool:
        return True


def prepare(place: Path) -> None:
    """Two finished runs with names that stay."""
    from paper_runs import paper_run

    from llmopt.data.shapes import SHAPES, ShapesDataset
    from llmopt.vision.server.keys import Key, write

    spent = {"text_encodings": 2_304, "image_encodings": 24, "pairs_scored": 27_648}
    for name, options in (
        ("first", {"templates": {"a tiny {}.": 1.0}, "spent": spent}),
        ("a-run-with-a-name-that-no-column-holds-and-that-goes-on-and-on", {"seed": 2}),
    ):
        folder = paper_run(place / "runs", classnames=SHAPES, **options)
        folder.rename(place / "runs" / name)
    (place / "first").symlink_to(place / "runs" / "first")
    ShapesDataset("shapes-small").split("test")[0][0].load().save(place / "image.png")
    key = Key(name="ada", sha256="ab" * 32, per_minute=60, quotas={"queries": 1000})
    write(place / "keys.json", [key, Key(name="prometheus", sha256="cd" * 32, metrics=True)])


def shown(place: Path, width: int) -> str:
    """What all commands print, one after another, to a terminal of so many columns."""
    from llmopt.cli.app import main

    before, words, out = dict(os.environ), sys.argv, []
    os.environ.update({"COLUMNS": str(width), "LINES": "50", "TERM": "xterm", "NO_COLOR": "1"})
    try:
        shutil.rmtree(place / "others", ignore_errors=True)
        with contextlib.chdir(place):
            for command in COMMANDS:
                terminal = Terminal()
                sys.argv = ["llmopt", *command.split()]
                with (
                    contextlib.redirect_stdout(terminal),
                    contextlib.redirect_stderr(io.StringIO()),
                    contextlib.suppress(SystemExit),
                ):
                    main()
                text = _STYLE.sub("", terminal.getvalue())
                for unsteady, instead in STEADY:
                    text = unsteady.sub(instead, text)
                lines = [line.rstrip() for line in text.splitlines()]
                out.append("\n".join([f"$ llmopt {command}", *lines, ""]))
    finally:
        sys.argv = words
        os.environ.clear()
        os.environ.update(before)
    return "\n".join(out)


def record() -> None:
    """Write the snapshots."""
    SNAPSHOTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        for width in WIDTHS:
            text = shown(Path(place), width)
            (SNAPSHOTS / f"{width}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    record()
