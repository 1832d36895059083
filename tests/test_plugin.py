"""A package with plug-ins, installed with pip into a fresh environment beside llmopt."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = "llmopt-plugin-example 0.1"
ADDED = {
    ("optimizer", "adjectives"),
    ("head", "centred"),
    ("data source", "patches"),
    ("kind of black box", "eye"),
    ("provider", "parrot"),
    ("export format", "bullets"),
    ("tracker", "lines"),
}
THEIRS = (
    *("--optimizer", "adjectives", "--dataset", "patches:4", "--shots", "4"),
    *("--blackbox", "eye:9", "--head", "centred"),
)

Call = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the plug-ins in it; llmopt and the rest are borrowed from ours."""
    root = tmp_path_factory.mktemp("fresh").resolve()
    venv.create(root, with_pip=False, symlinks=True)
    (site_packages,) = root.glob("lib/python*/site-packages")
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [str(CHECKOUT), *sorted(ours)]
    (site_packages / "borrowed.pth").write_text("\n".join(lines) + "\n")
    source = shutil.copytree(CHECKOUT / "tests" / "plugin", root / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--python", root / "bin" / "python", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, *options, "--no-build-isolation", "-qq", source], check=True)
    shutil.rmtree(source)
    return root / "bin" / "python"


@pytest.fixture
def call(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs Python in that environment, in an empty folder: what it printed."""
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def run(*arguments: str, code: int = 0) -> str:
        command = [installed, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture
def llmopt(call: Call) -> Call:
    """Runs a command of llmopt there."""
    code = "import sys; from llmopt.cli.app import main; sys.exit(main())"
    return lambda *arguments, **code_: call("-c", code, *arguments, **code_)


def test_the_doctor_lists_them_and_marks_the_broken_one(llmopt: Call) -> None:
    checks: list[dict[str, Any]] = json.loads(llmopt("doctor", "--json"))
    plugins = [check["plugin"] for check in checks if "plugin" in check]
    assert {plugin["package"] for plugin in plugins} == {PACKAGE}
    assert {(p["kind"], p["name"]) for p in plugins if not p["problem"]} == ADDED
    (broken,) = [check for check in checks if not check["ok"]]
    assert broken["name"] == "plug-in: optimizer unfinished"
    assert broken["plugin"]["problem"].endswith("is for a version to come")
    assert "llmopt-plugin-example" in broken["remedy"]


def test_they_run_from_the_command_line(llmopt: Call, tmp_path: Path) -> None:
    told = json.loads(llmopt("run", *THEIRS, "--set", "words=4", "--track", "lines", "--json"))
    assert told["status"] == "complete"
    assert told["task"]["dataset"] == "patches:4"
    assert told["task"]["test_images"] == 24
    assert told["model"]["name"] == "eye:9"
    assert told["model"]["access"] == "scores"
    assert told["optimizer"]["name"] == "adjectives"
    assert told["optimizer"]["settings"] == {"words": 4}
    assert "vivid" in told["best"]["templates"][0]["text"]
    lines = (tmp_path / "lines.txt").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("start adjectives", "finish 1.00")
    again = json.loads(llmopt("resume", told["run"], "--json"))
    assert again == told
    assert llmopt("export", told["run"], "--format", "bullets") == "- a photo of a vivid {}.\n"
    measured = json.loads(llmopt("evaluate", told["run"], "--dataset", "patches:5", "--json"))
    assert measured["test_images"] == 30


def test_their_chat_model_is_asked(llmopt: Call) -> None:
    options = ("--optimizer", "chat", "--llm", "parrot:vivid", "--max-llm-calls", "3")
    told = json.loads(llmopt("run", *THEIRS, *options, "--json"))
    assert told["optimizer"]["llm"] == "parrot:vivid"
    assert told["ledger"]["llm_calls"] == 3
    assert "vivid" in told["best"]["templates"][0]["text"]


def test_they_run_from_python_by_name_and_as_objects(call: Call) -> None:
    code = """
import llmopt
from llmopt_plugin_example.adjectives import Adjectives
from llmopt_plugin_example.eye import open_eye

options = {"dataset": "patches:4", "shots": 4, "head": "centred", "progress": False}
named = llmopt.run(optimizer="adjectives", blackbox="eye:9", settings={"words": 4}, **options)
given = llmopt.run(optimizer=Adjectives(words=4), model=open_eye("9"), **options)
assert named.best == given.best == "a photo of a vivid {}.", (named.best, given.best)
assert named.test_accuracy == given.test_accuracy == 1.0
assert named.predictor.describe() == given.predictor.describe()
assert named.ledger == given.ledger
assert named.export("bullets") == "- a photo of a vivid {}.\\n"
"""
    call("-c", code)


def test_they_pass_the_contract_suites(call: Call, tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "tests" / "plugin" / "test_contract.py", tmp_path)
    assert " passed" in call("-m", "pytest", "-q", "test_contract.py")


def test_they_are_in_the_lists(llmopt: Call) -> None:
    sources = {entry["name"]: entry for entry in json.loads(llmopt("datasets", "list", "--json"))}
    assert sources["patches:…"]["note"] == f"from the plug-in package {PACKAGE}"
    models = {entry["name"]: entry for entry in json.loads(llmopt("models", "list", "--json"))}
    assert PACKAGE in models["eye:ADDRESS"]["note"]
    assert "--blackbox eye:ADDRESS" in llmopt("models", "list")


def test_mistakes_are_told_as_those_with_our_own(llmopt: Call) -> None:
    assert "--optimizer" in llmopt("run", "--help")
    run = ("run", *THEIRS)
    unknown = llmopt("run", "--optimizer", "adjective", code=2)
    assert "did you mean 'adjectives'" in unknown
    broken = llmopt("run", "--optimizer", "unfinished", code=2)
    assert f"optimizer 'unfinished' is from the plug-in package {PACKAGE}" in broken
    assert "is for a version to come" in broken
    assert "words=9" in llmopt(*run, "--set", "words=9", code=2)
    assert "needs access level 'soft'" in llmopt(*run, "--optimizer", "craft", code=2)
