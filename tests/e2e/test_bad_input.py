"""Mistakes of every kind end in one clear line, exit code 2, and nothing on stdout."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import refused, run
from fakes import write_folder
from safetensors import safe_open

from llmopt.runs.folder import locked
from llmopt.vision.models import export_model

pytestmark = pytest.mark.usefixtures("shared_cache")

QUICK = ("run", "--optimizer", "zeroshot", "--json")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMOPT_DATA", raising=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--dataset shapes-smal", ["unknown dataset 'shapes-smal'", "did you mean 'shapes-small'"]),
        ("--dataset caltech10", ["did you mean 'caltech101'", "llmopt datasets list"]),
        ("--dataset folder:nowhere", ["there is no folder nowhere, looked for in /"]),
        ("--dataset folder:/nowhere", ["there is no folder /nowhere"]),
        ("--dataset csv:nowhere.csv", ["(No such file or directory, looked for in /"]),
        ("--dataset caltech101", ["'caltech101' not found under data", "datasets download"]),
        ("--optimizer chatt", ["unknown optimizer 'chatt'", "did you mean 'chat'"]),
        ("--optimizer crafft", ["did you mean 'craft'"]),
        (
            "--optimizer random,evaluations=3,fitness=accuracy",
            ["arm of 'compare'", "--optimizer random --set evaluations=3 --set fitness=accuracy"],
        ),
        ("--model RN50-quickgelo --pretrained openai", ["did you mean 'RN50-quickgelu'"]),
        ("--model shapes-tinny", ["unknown model", "did you mean 'shapes-tiny'"]),
        ("--model RN50 --pretrained openai", ["use --model RN50-quickgelu"]),
        ("--model RN50-quickgelu --pretrained opena", ["did you mean 'openai'"]),
        ("--model local-dir:nowhere", ["there is no folder 'nowhere'"]),
        ("--pretrained openai", ["shapes-tiny carries its own weights"]),
        ("--device warp", ["device 'warp' cannot be used", "--device cpu"]),
        ("--precision fp8", ["unknown precision 'fp8'", "fp16"]),
        ("--set restarts=2", ["unknown name 'restarts' in the settings of 'zeroshot'"]),
        ("--optimizer chat --set restart=2", ["did you mean 'restarts'"]),
        ("--optimizer chat --set restarts=two", ["'restarts'", "a whole number", "'two'"]),
        ("--optimizer chat --set restarts=0", ["restarts=0 must be 1 or more"]),
        ("--optimizer chat --set profile=relased", ["did you mean 'released'"]),
        ("--optimizer chat --set lists=bad", ["works in: released, paper"]),
        ("--optimizer chat --set profile=paper --set lists=bad", ["lists='bad' must be one of"]),
        ("--set restarts", ["'restarts' is not of the form KEY=VALUE"]),
        ("--set shots=4", ["it is an option of its own: --shots 4"]),
        ("--optimizer zip --set tokens=4", ["works in: released (--set profile=NAME)"]),
        (
            "--optimizer cbbt --set profile=released --set adapter=tip --head gda",
            ["--head gda", "--set adapter=tip"],
        ),
        ("--optimizer craft --set head=bias --head gda", ["--head gda or --set head=bias"]),
        ("--shots 0", ["shots must be 1 or more, not 0"]),
        ("--shots -4", ["shots must be 1 or more, not -4"]),
        ("--seed -1", ["seed must be 0 or more"]),
        ("--batch-size 0", ["--batch-size must be 1 or more"]),
        ("--decoder nvjpg", ["unknown decoder 'nvjpg'", "did you mean 'nvjpeg'"]),
        ("--device cpu --decoder nvjpeg", ["needs an NVIDIA card", "use --decoder pillow"]),
        ("--max-usd -1", ["--max-usd must be 0 or more"]),
        ("--max-queries -5", ["--max-queries must be 0 or more"]),
        ("--template nothing", ["template 'nothing' has no '{}'", "'a photo of a {}.'"]),
        ("--template {}{}", ["has 2 '{}'"]),
        ("--template {name}", ["has no '{}'"]),
        ("--config nowhere.toml", ["cannot read the config file nowhere.toml"]),
        ("--blackbox http://x --model RN50", ["either --blackbox or --model"]),
        ("--blackbox nonsense", ["not of the form http://HOST:PORT"]),
        ("--blackbox localhost:8000", ["not of the form http://HOST:PORT"]),
        ("--blackbox llmop:http://x", ["unknown kind of black box", "did you mean 'llmopt'"]),
        ("--blackbox llmopt:", ["something must follow the colon"]),
        ("--blackbox llmopt:x", ["not of the form http://HOST:PORT"]),
        ("--blackbox open_clip:shapes-tinny", ["unknown model", "did you mean 'shapes-tiny'"]),
        ("--init-from nowhere", ["nowhere is not a run folder"]),
        ("--optimizer chat --llm bultin", ["did you mean 'builtin'"]),
        ("--optimizer chat --llm opnai:gpt-4o", ["did you mean 'openai'"]),
        ("--optimizer chat --llm openai:gpt-4o", ["OPENAI_API_KEY is not set", "--llm builtin"]),
        ("--optimizer chat --llm replay:nowhere", ["there is no journal"]),
        ("--optimizer chat --llm builtin --llm-set temprature=1", ["did you mean 'temperature'"]),
    ],
)
def test_a_run_that_cannot_be(tmp_path: Path, arguments: str, says: list[str]) -> None:
    message = refused(*QUICK, *arguments.split(" "))
    for part in says:
        assert part in message
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("resume nowhere", ["nowhere is not a run folder", "llmopt runs"]),
        ("evaluate nowhere", ["nowhere is not a run folder"]),
        ("export nowhere", ["nowhere is not a run folder"]),
        ("datasets show shapes-smal", ["did you mean 'shapes-small'"]),
        ("datasets show caltech101 --image x.png", ["not found under data"]),
        ("models show shapes-tinny", ["did you mean 'shapes-tiny'"]),
        ("models export RN50 here", ["only 'shapes-tiny' is embedded"]),
        ("plan --shots 0", ["shots must be 1 or more"]),
        ("plan --optimizer chatt", ["did you mean 'chat'"]),
    ],
)
def test_other_commands(tmp_path: Path, arguments: str, says: list[str]) -> None:
    message = refused(*arguments.split(" "))
    for part in says:
        assert part in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    ["run --shots many", "run --no-such-option", "no-such-command", "datasets", "export"],
)
def test_what_cannot_be_parsed(arguments: str) -> None:
    ended = run(*arguments.split(" "))
    assert ended.code == 2
    assert ended.out == "" or arguments == "datasets"
    assert ended.err or arguments == "datasets"


def test_a_config_file_with_an_unknown_name(tmp_path: Path) -> None:
    Path("my.toml").write_text("shot = 4\n")
    message = refused("run", "--config", "my.toml")
    assert "unknown name 'shot' in my.toml; did you mean 'shots'?" in message


def test_torn_weights(tmp_path: Path) -> None:
    export_model("shapes-tiny", tmp_path / "model")
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])
    message = refused(*QUICK, "--model", "local-dir:model")
    assert "cannot load model 'local-dir:model'" in message
    assert "is the file complete" in message
    (tmp_path / "w.safetensors").write_bytes(weights.read_bytes()[:1000])
    message = refused(*QUICK, "--model", "ViT-B-32", "--pretrained", "./w.safetensors")
    assert "w.safetensors" in message


def test_weights_that_are_not_here(tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    message = refused(*QUICK, "--dataset", "folder:data")
    assert "RN50-quickgelu" in message
    assert "are not on this machine and could not be fetched" in message
    assert "--model local-dir:PATH" in message


@pytest.mark.parametrize("runs", ["file", "file/below", "/proc/nothing/here"])
def test_a_place_that_takes_no_run(runs: str) -> None:
    Path("file").write_text("")
    message = refused(*QUICK, "--runs", runs)
    assert "choose another --runs" in message


def test_a_read_only_place() -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not stop root")
    Path("runs").mkdir(mode=0o500)
    assert "choose another --runs" in refused(*QUICK)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return tmp_path / str(run(*QUICK).json["run"])


def test_a_run_folder_in_use(finished: Path) -> None:
    (finished / "result.json").unlink()
    with locked(finished):
        assert "is in use by another process" in refused("resume", finished, "--quiet")
    assert run("resume", finished, "--json").code == 0
    with locked(finished):
        assert "is in use by another process" in refused("evaluate", finished, "--json")


def test_damaged_run_folders(finished: Path, tmp_path: Path) -> None:
    def damaged(name: str, content: bytes) -> str:
        copy = tmp_path / f"damaged-{name}"
        shutil.copytree(finished, copy)
        (copy / name).write_bytes(content)
        if name == "journal.jsonl":
            (copy / "result.json").unlink()
        command = "evaluate" if name == "predictor.safetensors" else "resume"
        return refused(command, copy, "--quiet")

    assert "is damaged at byte 0" in damaged("journal.jsonl", b"garbage\n{}\n{}\n")
    assert "result.json is damaged" in damaged("result.json", b'{"schema": 1')
    assert "is not valid TOML" in damaged("config.toml", b"\xff\xfe")
    assert "is missing or damaged" in damaged("predictor.safetensors", b"")
    with safe_open(finished / "predictor.safetensors", framework="numpy") as file:
        assert "predictor" in file.metadata()


def test_exports_that_cannot_be(finished: Path) -> None:
    assert "did you mean 'openclip'" in refused("export", finished, "--format", "openclp")
    assert "--top must be" in refused("export", finished, "--top", "0")
    Path("file").write_text("")
    message = refused("export", finished, "--format", "txt", "--out", "file/prompts.txt")
    assert "cannot write" in message


def test_pictures_that_cannot_be_written() -> None:
    Path("file").write_text("")
    for target in ("file/sheet.png", "sheet.nothing"):
        message = refused("datasets", "show", "shapes-small", "--image", target)
        assert target in message


@pytest.mark.parametrize("queries", ["0", "3", "11"])
def test_a_budget_too_small_for_any_result(queries: str) -> None:
    for optimizer in ("zeroshot", "random", "craft"):
        message = refused(
            "run", "--optimizer", optimizer, "--max-queries", queries, "--json", code=3
        )
        assert "raise the cap" in message
        assert "12 prompts" in message
    ended = run("plan", "--optimizer", "random", "--max-queries", queries)
    assert ended.code == 3
    assert f"--max-queries {queries} does not even pay" in ended.err


def test_the_smallest_budget_that_pays() -> None:
    result = run(
        "run", "--llm", "builtin", "--max-queries", "12", "--max-llm-calls", "0", "--json"
    ).json
    assert result["status"] == "complete"
    assert result["stop_reason"].startswith("budget: ")
    assert result["ledger"]["text_encodings"] == 12


def test_a_service_that_is_not_there_leaves_a_run_to_resume(tmp_path: Path) -> None:
    arguments = [
        "run", "--llm", "openai:some-model", "--llm-base-url", "http://127.0.0.1:9/v1",
        "--llm-set", "attempts=2", "--llm-set", "first_pause=0", "--set", "probes=0", "--json",
    ]  # fmt: skip
    ended = run(*arguments)
    assert ended.code == 4
    assert ended.out == ""
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the connection failed" in errors[0]
    assert "llmopt resume" in ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "result.json").exists()
    listed = json.loads(run("runs", "--json").out)
    assert [entry["status"] for entry in listed] == ["unfinished"]


def test_a_remote_box_that_is_not_there(tmp_path: Path) -> None:
    ended = run("run", "--optimizer", "zeroshot", "--blackbox", "http://127.0.0.1:9", "--json")
    assert ended.code == 4
    assert ended.out == ""
    assert "is 'llmopt serve' up?" in ended.err


def test_damaged_test_images_found_when_the_search_is_paid_for(tmp_path: Path) -> None:
    damaged = next((write_folder(tmp_path / "photos") / "test").rglob("*.png"))
    whole = damaged.read_bytes()
    damaged.write_bytes(b"no image")  # seen before anything is spent …
    assert "1 of 40 test images cannot be used (1 not an image)" in refused(
        *QUICK, "--dataset=folder:photos", "--model=shapes-tiny"
    )
    assert not Path("runs").exists()
    damaged.write_bytes(whole[:40] + bytes(len(whole) - 60) + whole[-20:])  # … and this is not
    said = refused(*QUICK, "--dataset=folder:photos", "--model=shapes-tiny")
    assert damaged.name in said
    assert "--skip-unreadable" in said
    (folder,) = Path("runs").iterdir()
    assert "--skip-unreadable" in refused("resume", folder, "--quiet")
    ended = run("resume", folder, "--skip-unreadable", "--json")
    assert ended.code == 0, ended.err
    assert "1 test images could not be read" in ended.err
    assert ended.json["task"]["test_images"] == 5 * 8 - 1
    assert "--skip-unreadable" in refused("evaluate", folder, "--quiet")
    again = run("evaluate", folder, "--skip-unreadable", "--json")
    assert again.json["best_accuracy"] == ended.json["best"]["test_accuracy"]
