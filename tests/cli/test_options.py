"""Options of commands are read off the fields of a run's config."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import done, refused

from llmopt.cli.app import COMMANDS, load
from llmopt.runs.config import RunConfig, as_flags, options
from llmopt.runs.whole import flags
from llmopt.search import OPTIMIZERS, forms

# One more field of RunConfig, and nothing else changed.
WIDER = """
import sys
from dataclasses import dataclass
from typing import Annotated
from llmopt.runs import config

@dataclass(frozen=True)
class Wider(config.RunConfig):
    colour_depth: Annotated[int, config.Option("Bits of a colour.", config.MODEL, ge=1)] = 8

config.RunConfig = Wider
from llmopt.cli.app import main
main()
"""


def llmopt_with_one_more_field(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WIDER, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"},
    )


def test_one_more_field_is_one_more_option(tmp_path: Path) -> None:
    for command in ("run", "plan", "compare"):
        page = llmopt_with_one_more_field(command, "--help", cwd=tmp_path).stdout
        text = " ".join(page.replace("│", " ").split())
        assert "--colour-depth <int> Bits of a colour. [1 or more; default: 8]" in text
    asked = ("plan", "--optimizer", "zeroshot", "--json")
    planned = llmopt_with_one_more_field(*asked, "--colour-depth", "4", cwd=tmp_path)
    assert json.loads(planned.stdout)["config"]["colour_depth"] == 4
    (tmp_path / "my.toml").write_text("colour_depth = 2\n")
    planned = llmopt_with_one_more_field(*asked, "--config", "my.toml", cwd=tmp_path)
    assert json.loads(planned.stdout)["config"]["colour_depth"] == 2
    wrong = llmopt_with_one_more_field(*asked, "--colour-depth", "0", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == "error: --colour-depth must be 1 or more, not 0\n"


@pytest.mark.parametrize("command", ["run", "plan", "compare"])
def test_every_field_is_an_option(command: str) -> None:
    page = done(command, "--help").out
    elsewhere = {"settings", "head", "head_views", "init_from"} if command == "compare" else set()
    for name, option in options().items():
        assert (f"│ {option.flag} " in page) == (name not in elsewhere)


def test_flags_win_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("shots = 2\nseed = 7\n[settings]\nfinalists = 3\nevaluations = 9\n")
    asked = ("plan", "--optimizer", "random", "--config", file, "--json")
    config = done(*asked, "--shots", 4, "--set", "finalists=5", "--data-root", tmp_path).json[
        "config"
    ]
    assert (config["shots"], config["seed"], config["data_root"]) == (4, 7, str(tmp_path))
    assert config["settings"] == {"evaluations": 9, "fitness": "likelihood", "finalists": 5}
    assert config["runs"] == "runs"
    file.write_text("shots = 0\n")
    assert "--shots must be 1 or more, not 0" in refused("plan", "--config", file)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("shots", 4, ["--shots", "4"]),
        ("max_usd", 0.5, ["--max-usd", "0.5"]),
        ("skip_unreadable", True, ["--skip-unreadable"]),
        ("template", "a {}", ["--template", "a {}"]),
        ("settings", {"k": 3, "polish": False}, ["--set", "k=3", "--set", "polish=False"]),
        ("llm_settings", {"seed": 1}, ["--llm-set", "seed=1"]),
    ],
)
def test_a_config_as_flags(name: str, value: Any, words: list[str]) -> None:
    assert as_flags(name, value) == words
    assert flags(dataclasses.replace(RunConfig(), **{name: value})) == words


def test_the_schema_of_config_files() -> None:
    schema = done("plan", "--config-schema").json
    assert schema == RunConfig.json_schema()
    properties = schema["properties"]
    assert list(properties) == list(options())
    assert properties["shots"]["minimum"] == 1
    assert properties["shots"]["default"] == 1
    assert all(properties[name]["description"] == o.help for name, o in options().items())
    assert properties["llm_settings"]["properties"]["max_tokens"]["default"] == 4096
    assert len(schema["allOf"]) == len(OPTIMIZERS.names())
    for rule in schema["allOf"]:
        name = rule["if"]["properties"]["optimizer"]["const"]
        for given, (form, kind) in zip(
            rule["then"]["properties"]["settings"]["anyOf"], forms(name).items(), strict=True
        ):
            names = {f.name for f in dataclasses.fields(kind.Settings)}
            assert set(given["properties"]) == names | ({"profile"} if form else set())
            assert not form or given["properties"]["profile"]["const"] == form


def test_the_overview_says_of_each_command_what_the_command_says() -> None:
    for name, (_, line) in COMMANDS.items():
        said = load(name).help.split("\n\n")[0]
        assert " ".join(said.split()) == line
    assert set(re.findall(r"│ ([a-z]+)  ", done("--help").out)) == set(COMMANDS)
