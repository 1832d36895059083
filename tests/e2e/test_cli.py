"""Every command on the shapes world: what it prints, where, and that it agrees with the others."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from command_line import Done, done, refused, run
from PIL import Image
from result_schema import RESULT, check
from safetensors.numpy import load_file

from llmopt.errors import ServiceError
from llmopt.search.text.zeroshot import ZeroShot
from llmopt.spend.journal import read_journal

SMALL = (
    "--set", "probes=0", "--set", "restarts=1", "--set", "iterations=4", "--set", "pool=8",
    "--set", "proposals=3", "--llm", "builtin",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, encoded: Path) -> Iterator[Path]:
    """A folder to type commands in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPT_CACHE", str(encoded))
        yield tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def finished(world: Path) -> Done:
    """``llmopt run --json`` with default settings, done once."""
    return done("run", "--llm", "builtin", "--json", cwd=world)


@pytest.fixture(scope="module")
def plain(world: Path) -> Done:
    """A smaller ``llmopt run`` for people, done once."""
    return done("run", *SMALL, cwd=world)


@pytest.fixture(scope="module")
def folder(world: Path, finished: Done) -> Path:
    """Its run folder."""
    return world / str(finished.json["run"])


@pytest.fixture(autouse=True)
def _here(world: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    monkeypatch.delenv("LLMOPT_DATA", raising=False)


# ------------------------------------------------------------------------------------------ run


def test_json_is_the_contract_and_nothing_else(finished: Done, folder: Path) -> None:
    result = finished.json
    check(result, RESULT)
    assert finished.err == ""
    assert result["schema"] == 2
    assert (result["status"], result["stop_reason"]) == ("complete", "nothing left to gain")
    assert result["task"]["dataset"] == "shapes-small"
    assert (result["task"]["classes"], result["task"]["test_images"]) == (12, 1000)
    assert result["model"]["name"] == "shapes-tiny"
    assert result["optimizer"]["name"] == "chat"
    assert result["optimizer"]["llm"] == "builtin"
    for part in ("baseline", "best"):
        assert 0 <= result[part]["test_accuracy"] <= 1
    assert json.loads((folder / "result.json").read_text()) == result
    assert sorted(result["versions"]) == sorted(set(result["versions"]))
    assert {"llmopt", "torch", "numpy"} <= set(result["versions"])


def test_the_planted_word_is_found(finished: Done) -> None:
    result = finished.json
    words = re.findall(r"[a-z]+", result["best"]["templates"][0]["text"])
    assert {"small", "tiny", "little", "miniature"} & set(words)
    assert result["gain"]["test_accuracy"] > 0.15
    assert result["gain"]["p_value"] < 1e-6


def test_the_same_command_again_gives_the_same(finished: Done) -> None:
    again = done("run", "--llm", "builtin", "--json").json
    first = finished.json
    for result in (again, first):
        for name in ("run", "seconds"):
            del result[name]
    assert again == first


def test_plain_lines_and_a_table_where_there_is_no_terminal(plain: Done) -> None:
    assert "\x1b" not in plain.out + plain.err
    assert "\r" not in plain.out + plain.err
    lines = plain.err.splitlines()
    assert any(line.startswith("run folder runs/shapes-small-1shot-seed1-chat-") for line in lines)
    steps = [line for line in lines if re.match(r"\[\d+/4\] ", line)]
    assert steps
    shown = r"\(train [\d.]+ % \(start 41.7 %\), val [\d.]+ %, score -[\d.]+, 1 conversation"
    assert re.search(shown + r"\)$", steps[0])
    assert all(re.search(shown + r", \d:\d\d:\d\d left\)$", line) for line in steps[1:])
    assert "measuring on the test images" in lines
    for part in ("start", "best", "test (1,000 images)", "95 % interval", "gain on test:",
                 "paired p", "start: a photo of a {}.", "best:  ", "why:   ", " prompts, ",
                 "before asking", "best before the language model was asked: ", "LLM calls",
                 "run folder: runs/", "llmopt export runs/"):  # fmt: skip
        assert part in plain.out
    assert re.search(r"proposals in \d calls? of builtin", plain.out)


def test_quiet_prints_the_result_and_no_more() -> None:
    ended = done("run", "--optimizer", "zeroshot", "--quiet")
    assert ended.err == ""
    template, accuracies, place = ended.out.splitlines()
    assert template == "a photo of a {}."
    assert re.fullmatch(r"[\d.]+ % -> [\d.]+ %", accuracies)
    assert Path(place, "result.json").is_file()


def test_verbose_says_more(plain: Done) -> None:
    many = done("run", *SMALL, "-v").err.splitlines()
    assert len(many) > len(plain.err.splitlines())
    steps = [line for line in many if re.match(r"\[\d+/4\] ", line)]
    assert [int(line[1]) for line in steps] == [*range(len(steps))]


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        'optimizer = "random"\nshots = 4\nseed = 3\n[settings]\nevaluations = 6\nfinalists = 2\n'
    )
    result = done("run", "--config", file, "--shots", 2, "--set", "finalists=3", "--json").json
    assert result["optimizer"]["name"] == "random"
    assert (result["task"]["shots"], result["task"]["seed"]) == (2, 3)
    assert result["optimizer"]["settings"]["evaluations"] == 6
    assert result["optimizer"]["settings"]["finalists"] == 3


def test_the_saved_config_repeats_the_run(folder: Path, finished: Done) -> None:
    again = done("run", "--config", folder / "config.toml", "--json").json
    assert again["best"] == finished.json["best"]
    assert again["run"] != finished.json["run"]


def test_the_language_model_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-proj-9z8y7x6w5v4u3t2s1r0q"
    monkeypatch.setenv("LLMOPT_LLM", "builtin")
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    result = done("run", *SMALL[:-2], "--json").json
    assert result["optimizer"]["llm"] == "builtin"
    for path in Path(result["run"]).iterdir():
        assert secret.encode() not in path.read_bytes()


# -------------------------------------------------------------------------- looking at runs


def test_runs_are_listed(folder: Path, finished: Done) -> None:
    listed = done("runs", "--json").json
    (mine,) = [entry for entry in listed if entry["folder"] == finished.json["run"]]
    assert (mine["status"], mine["dataset"], mine["optimizer"]) == (
        "complete",
        "shapes-small",
        "chat",
    )
    assert mine["best"] == finished.json["best"]["test_accuracy"]
    table = done("runs")
    assert finished.json["run"] in table.out.replace("\n", "")
    assert "complete" in table.out


def test_runs_that_are_not_there_or_not_meant(folder: Path) -> None:
    assert "nowhere is not a run folder" in refused("runs", "nowhere")
    assert re.fullmatch(
        r"none of \d+ runs? meets --filter\n", done("runs", "--filter", "seed=77").out
    )


def test_no_runs_say_how_to_start_one(tmp_path: Path) -> None:
    assert "llmopt run" in done("runs", "--runs", tmp_path / "none").out
    assert done("runs", "--runs", tmp_path / "none", "--json").json == []


def test_a_finished_run_is_not_resumed(folder: Path, finished: Done) -> None:
    before = (folder / "journal.jsonl").read_bytes()
    assert done("resume", folder.relative_to(Path.cwd()), "--json").json == finished.json
    assert (folder / "journal.jsonl").read_bytes() == before
    assert "is complete; nothing to do" in done("resume", folder).err


def test_evaluation_measures_the_same_again(folder: Path, finished: Done) -> None:
    found = done("evaluate", folder, "--json").json
    result = finished.json
    assert found["best_accuracy"] == result["best"]["test_accuracy"]
    assert found["baseline_accuracy"] == result["baseline"]["test_accuracy"]
    assert found["gain"]["p_value"] == result["gain"]["p_value"]
    assert found["test_images"] == 1000
    assert (Path(folder) / "result.json").read_text() == json.dumps(
        result, indent=2, ensure_ascii=False
    ) + "\n"


def test_each_look_at_the_test_images_is_journaled(folder: Path) -> None:
    def opened() -> list[str]:
        records = read_journal(folder / "journal.jsonl")
        return [r["stream"] for r in records if r["kind"] == "test_opened"]

    before = opened()
    for _ in range(2):
        done("evaluate", folder, "--quiet")
    assert opened() == [*before, "evaluate", "evaluate"]
    assert before[0] == "main"


def test_a_run_that_cannot_be_written_is_evaluated(
    folder: Path, finished: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.copytree(folder, tmp_path / "archive"))
    before = (archive / "journal.jsonl").read_bytes()
    own = os.access
    closed = {(archive, os.W_OK)}
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: (path, mode) not in closed and own(path, mode)
    )
    ended = done("evaluate", archive)
    assert "archive cannot be written, so nothing there will tell of this look" in ended.err
    assert ended.out.startswith(f"{archive}: shapes-small test, 1,000 images")
    assert (archive / "journal.jsonl").read_bytes() == before


def test_evaluation_elsewhere(folder: Path, finished: Done) -> None:
    found = done("evaluate", folder, "--dataset", "shapes-large", "--json").json
    assert found["dataset"] == "shapes-large"
    assert found["best_accuracy"] < finished.json["best"]["test_accuracy"]
    table = done("evaluate", folder, "--dataset", "shapes-large")
    for part in ("shapes-large", "start", "best", "paired p", "on train"):
        assert part in table.out


# -------------------------------------------------------------------------------------- export


def test_export_as_text(folder: Path, finished: Done, tmp_path: Path) -> None:
    best = [t["text"] for t in finished.json["best"]["templates"]]
    assert done("export", folder, "--format", "txt").out.splitlines() == best
    target = tmp_path / "deep" / "prompts.txt"
    ended = done("export", folder, "--format", "txt", "--out", target, "--top", 3)
    assert ended.out == ""
    assert str(target) in ended.err
    lines = target.read_text().splitlines()
    assert lines[: len(best)] == best
    assert len(lines) == len(set(lines)) == 3


def test_a_file_is_written_as_it_ends(folder: Path, tmp_path: Path) -> None:
    for ending, begins in (("json", "{"), ("csv", "template,weight"), ("txt", "a small {}.")):
        target = tmp_path / f"prompts.{ending}"
        done("export", folder, "--out", target)
        assert target.read_text("utf-8-sig").startswith(begins)


def test_export_as_json(folder: Path, finished: Done) -> None:
    found = done("export", folder, "--format", "json").json
    assert [t["text"] for t in found["templates"]] == [
        t["text"] for t in finished.json["best"]["templates"]
    ]
    assert len(found["classnames"]) == 12


def test_export_for_open_clip_classifies_alike(
    folder: Path, finished: Done, open_clip: ModuleType
) -> None:
    from llmopt.data.shapes import ShapesDataset
    from llmopt.vision.shapes_tiny import load

    names: dict[str, Any] = {}
    exec(done("export", folder, "--format", "openclip").out, names)  # noqa: S102
    lists = {k: v for k, v in names.items() if isinstance(v, (list, tuple))}
    templates = next(v for k, v in lists.items() if "template" in k.lower())
    classnames = next(v for k, v in lists.items() if "class" in k.lower())
    model, preprocess, tokenizer = load()
    with torch.inference_mode():
        classifier = open_clip.build_zero_shot_classifier(model, tokenizer, classnames, templates)
        images, labels = ShapesDataset("shapes-small").split("test")
        visual = model.encode_image(
            torch.stack([preprocess(image.load()) for image in images]), normalize=True
        )
        predicted = (visual @ classifier).argmax(dim=1).numpy()
    assert (predicted == labels).mean() == pytest.approx(
        finished.json["best"]["test_accuracy"], abs=0.0011
    )
    saved = load_file(folder / "test_predictions.safetensors")["best"]
    assert (predicted == saved).mean() >= 0.998


# ----------------------------------------------------------------------------- plan and others


def test_a_plan_bounds_the_run_it_is_of(finished: Done) -> None:
    found = done("plan", "--llm", "builtin", "--json").json
    bounds, ledger = found["upper_bounds"], finished.json["ledger"]
    for currency in ("image_encodings", "text_encodings", "pairs_scored", "llm_calls"):
        assert ledger[currency] <= bounds[currency]
    table = done("plan", *SMALL)
    assert "text encodings" in table.out
    assert "at most" in table.out


def test_a_plan_makes_nothing(tmp_path: Path) -> None:
    done("plan", *SMALL, "--runs", tmp_path / "runs", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_sets_are_listed_and_shown(tmp_path: Path) -> None:
    listed = {entry["name"]: entry for entry in done("datasets", "list", "--json").json}
    assert listed["shapes-small"]["here"]
    assert not listed["caltech101"]["here"]
    assert len([name for name in listed if name.startswith("shapes-")]) == 17
    found = done("datasets", "show", "shapes-red", "--json").json
    assert found["classes"] == 12
    sheet = tmp_path / "new" / "sheet.png"
    ended = done("datasets", "show", "shapes-red", "--image", sheet)
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
        assert len(picture.convert("RGB").getcolors(2**20) or []) > 500
    assert f"wrote {sheet}" in ended.err.replace("\n", "")
    assert "shapes-red" in ended.out
    assert "caltech101" in done("datasets", "list").out


def test_models_are_listed_shown_and_exported(tmp_path: Path, open_clip: ModuleType) -> None:
    names = [entry["name"] for entry in done("models", "list", "--json").json]
    assert names[0] == "shapes-tiny"
    assert "RN50-quickgelu" in names
    shown = done("models", "show", "shapes-tiny", "--json").json
    assert shown["access"] == "soft"
    assert done("models", "show").out.startswith("name")
    ended = done("models", "export", "shapes-tiny", tmp_path / "export")
    assert ended.out == ""
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
    ]
    model = open_clip.create_model(f"local-dir:{tmp_path / 'export'}")
    assert model.token_embedding.weight.shape == (49408, 96)
    exported = ("--model", f"local-dir:{tmp_path / 'export'}", "--precision", "fp32")
    result = done("run", "--optimizer", "zeroshot", *exported, "--json").json
    embedded = done("run", "--optimizer", "zeroshot", "--json").json
    assert result["best"]["test_accuracy"] == embedded["best"]["test_accuracy"]


def test_the_doctor_never_shows_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-proj-1a2b3c4d5e6f7g8h9i0j"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    monkeypatch.setenv("ANTHROPIC_API_KEY", secret[::-1])
    for ended in (done("doctor", "--json"), done("doctor")):
        assert secret not in ended.out + ended.err
        assert secret[::-1] not in ended.out + ended.err
        assert "OPENAI_API_KEY is set" in ended.out
    checks = {check["name"]: check for check in done("doctor", "--json").json}
    assert set(checks["torch"]) == {"name", "ok", "found", "remedy"}
    assert checks["embedded model"]["ok"]


def test_version_and_help() -> None:
    assert re.fullmatch(r"llmopt \d+\.\d+\.\d+\S*\n", done("--version").out)
    overview = run()
    assert overview.code == 2
    assert "resume" in overview.out + overview.err
    text = " ".join(done("run", "--help").out.replace("│", " ").split())
    assert "[default: shapes-small]" in text
    assert (
        "[default: $LLMOPT_LLM, else openai if a key is set (not for shapes tasks), else builtin]"
        in text
    )
    for command in (
        "resume",
        "plan",
        "evaluate",
        "predict",
        "explain",
        "export",
        "runs",
        "doctor",
        "datasets",
        "models",
    ):
        assert "Usage: " in done(command, "-h").out


def test_nothing_but_the_run_folder_is_written(tmp_path: Path) -> None:
    done("run", "--optimizer", "zeroshot", "--json", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_tables_of_numbers_can_be_read_back(folder: Path, finished: Done) -> None:
    rows = list(csv.DictReader(done("export", folder, "--format", "csv").out.splitlines()))
    texts = [value for row in rows for value in row.values()]
    assert finished.json["best"]["templates"][0]["text"] in texts


def test_a_soft_prompt_in_words(tmp_path: Path) -> None:
    asked = ("--set", "budget=40", "--set", "population=4", *BARE, "--runs", tmp_path / "runs")
    folder = done("run", "--optimizer", "craft", *asked, "--json").json["run"]
    found = done("explain", folder, "--top", 2, "--json").json
    assert [place["began_at"] for place in found["prompts"][""]] == ["a", "photo", "of", "a"]
    assert all(len(place["nearest"]) == 2 for place in found["prompts"][""])
    table = done("explain", folder).out
    assert "nearest words" in table
    assert "How little this may mean" in table


TINY = ("--set", "budget=60", "--set", "population=8")
BARE = ("--set", "head=none")
GAIN = r"gain on the judging images \+\d\.\d{3} ± \d\.\d{3} nats; "


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            ("craft", *TINY),
            r"\nstopped: iterations; " + GAIN + r"waypoint \d of \d\n.*nats an image",
        ),
        (("carrot", *TINY, *BARE), GAIN + "the same search as craft; waypoint"),
        (
            ("bbt", *TINY),
            r"\nstopped: iterations; " + GAIN + r"waypoint \d of \d\n'llmopt docs nats'",
        ),
        (("zip", "--set", "budget=60"), r"\nstopped: iterations; " + GAIN + "waypoint"),
        (("coop", "--set", "epochs=3"), r"\nstopped: iterations; gain on the judging images"),
        (
            ("bbt", *TINY, "--set", "profile=released", "--set", "dim=8"),
            r"\nstopped: iterations; calls as published \d+\n",
        ),
        (
            ("craft", *TINY, *BARE, "--max-queries", 300),
            r"\nended early at the cap --max-queries; gain on the judging",
        ),
        (
            ("random", "--set", "evaluations=20", "--max-queries", 100),
            r"\nended early at the cap --max-queries\n",
        ),
    ],
)
def test_the_end_says_why_it_ended(tmp_path: Path, asked: tuple[object, ...], says: str) -> None:
    out = done("run", "--optimizer", *asked, "--runs", tmp_path / "runs").out
    assert re.search(says, out), out


def test_the_end_says_nothing_where_there_is_nothing_to_say() -> None:
    assert "stopped:" not in done("run", "--optimizer", "zeroshot").out


def test_a_way_on_is_told_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("run", "--optimizer", "zeroshot", "--runs", tmp_path / "runs", "--json")
    nothing = run(*asked, "--blackbox", "http://127.0.0.1:9")
    assert nothing.code == 4
    assert "resume" not in nothing.err
    assert not (tmp_path / "runs").exists()

    def fail(self: object, search: object) -> None:
        raise ServiceError("the box is gone")

    monkeypatch.setattr(ZeroShot, "run", fail)
    ended = run(*asked)
    assert ended.code == 4
    (folder,) = (tmp_path / "runs").iterdir()
    assert ended.err.splitlines() == [
        "error: the box is gone",
        f"nothing paid for is lost; go on with 'llmopt resume {folder}'",
    ]


def test_a_resumed_run_can_be_tracked_too(tmp_path: Path) -> None:
    asked = ("--optimizer", "zeroshot", "--runs", tmp_path / "runs")
    folder = done("run", *asked, "--json").json["run"]
    assert "unknown tracker 'mlfow'" in refused("resume", folder, "--track", "mlfow")
    assert done("resume", folder, "--json").json["status"] == "complete"
