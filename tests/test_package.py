"""The package as people first meet it: light to import, with the names it promises."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml

import llmopt
from llmopt.resources import prompts_root, read_lines, read_prompt

CHECKOUT = Path(__file__).resolve().parents[1]
HEAVY = {
    "langchain", "langchain_core", "langchain_openai", "open_clip", "openai", "pydantic",
    "scipy", "timm", "torch", "torchvision",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Top-level modules a fresh interpreter has loaded after running ``code``."""
    report = "\nimport sys; print('\\n' + ' '.join({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    loaded = modules_after("import llmopt")
    assert "llmopt" in loaded
    assert loaded & HEAVY == set()


def test_help_is_light() -> None:
    loaded = modules_after(
        "import sys\n"
        "from llmopt.cli.app import main\n"
        "sys.argv = ['llmopt', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
    )
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_public_names_are_importable() -> None:
    assert sorted(set(llmopt.__all__)) == dir(llmopt)
    for name in llmopt.__all__:
        assert getattr(llmopt, name) is not None
    for name in set(llmopt.__all__) - {"__version__"}:
        assert getattr(llmopt, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Templates"):
        llmopt.Templates  # noqa: B018


def test_version_and_command_are_those_of_the_distribution() -> None:
    assert llmopt.__version__ == version("llmopt")
    (command,) = entry_points(group="console_scripts", name="llmopt")
    assert command.value == "llmopt.cli.app:main"
    said = subprocess.run([sys.executable, "-m", "llmopt", "--version"], capture_output=True)
    assert said.stdout.decode().strip() == f"llmopt {llmopt.__version__}"


def test_citation_is_of_this_version_and_names_the_papers() -> None:
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == llmopt.__version__
    methods = " ".join(paper["notes"] for paper in cited["references"])
    for name in ("chat", "describe", "craft", "cbbt", "zip", "bbt", "coop", "gda", "tip-f"):
        assert f" {name}" in methods
    assert all(author["family-names"] for one in cited["references"] for author in one["authors"])


def test_prompts_are_found() -> None:
    assert {"builtin", "meta", "templates"} <= {path.name for path in prompts_root().iterdir()}
    assert read_prompt("templates/generic.txt").startswith("#")
    assert read_lines("templates/generic.txt")[0] == "a photo of a {}."
