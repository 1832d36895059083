"""Every format is written, read back, and says what it could not keep."""

from __future__ import annotations

import ast
import csv
import io
import json
from pathlib import Path

import pytest
from paper_runs import paper_run
from readers import plain_slot, read, unguard

from llmopt.errors import ConfigError
from llmopt.export import FORMATS
from llmopt.export.clip_benchmark import named_slot
from llmopt.export.formats import export, save
from llmopt.export.prompts import Prompt, PromptList
from llmopt.export.tables import guard

ONE = {"a small {}.": 1.0}
ENSEMBLE = {"a small {}.": 2 / 3, "a tiny {}, up close": 1 / 3}
POISON = (
    "<script>alert(1)</script> {}",
    '=HYPERLINK("http://evil.example","{}")',
    "+1 {} 'quoted' \"twice\"",
    "@SUM(1) {} 😀 مرحبا",
    "'={} --",
    "＝wide {}",
)
NAMES = ("=1+1", "<b>", "quo\"te's", "two\nlines", "a{c}b{}", "😀", "\u202eright")


def round_trip(folder: Path, format: str, tmp_path: Path, top: int | None = None) -> PromptList:
    out = tmp_path / "out" / format
    exported = export(folder, format, top)
    out.mkdir(parents=True)
    save(exported, out)
    return read(out, format)


@pytest.mark.parametrize("format", list(FORMATS))
def test_one_template_round_trips(format: str, tmp_path: Path) -> None:
    back = round_trip(paper_run(tmp_path, templates=ONE), format, tmp_path)
    assert back.templates == ("a small {}.",)
    assert [prompt.weight for prompt in back.prompts] == [1.0]
    if format not in ("txt", "csv"):
        assert [name.replace("_", " ") for name in back.classnames] == ["cat", "dog", "polar bear"]


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "hf"])
def test_an_ensembles_weights_survive(format: str, tmp_path: Path) -> None:
    back = round_trip(paper_run(tmp_path, templates=ENSEMBLE), format, tmp_path)
    assert back.templates == tuple(ENSEMBLE)
    assert [prompt.weight for prompt in back.prompts] == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("format", list(FORMATS))
def test_poison_round_trips(format: str, tmp_path: Path) -> None:
    folder = paper_run(tmp_path, templates=dict.fromkeys(POISON, 1 / len(POISON)), classnames=NAMES)
    back = round_trip(folder, format, tmp_path)
    assert back.templates == (POISON[:1] if format == "hf" else POISON)


def test_a_weight_no_list_can_keep_is_warned_of(tmp_path: Path) -> None:
    folder = paper_run(tmp_path, templates={"a {}.": 0.123456, "the {}.": 0.876544})
    assert "no place for the weights" in export(folder, "openclip").warnings[0]
    assert not export(folder, "json").warnings


def test_hf_says_what_it_leaves_out(tmp_path: Path) -> None:
    warnings = export(paper_run(tmp_path, templates=ENSEMBLE), "hf").warnings
    assert "only 'a small {}.' was written" in warnings[0]
    assert "shapes-tiny" in warnings[1]


def test_top_adds_runners_up_and_says_so(tmp_path: Path) -> None:
    folder = paper_run(tmp_path, templates=ONE, runners_up=["the {}.", "one {}."])
    exported = export(folder, "txt", top=2)
    assert exported.files["prompts.txt"] == b"a small {}.\nthe {}.\n"
    assert "runners-up" in exported.warnings[0]
    assert not export(folder, "txt", top=1).warnings
    with pytest.raises(ConfigError, match="--top must be 1 or more"):
        export(folder, "txt", top=0)


def test_an_ensemble_cut_short_is_warned_of(tmp_path: Path) -> None:
    exported = export(paper_run(tmp_path, templates=ENSEMBLE), "txt", top=1)
    assert exported.files["prompts.txt"] == b"a small {}.\n"
    assert exported.warnings


def test_python_formats_are_literals(tmp_path: Path) -> None:
    for format in ("openclip", "openai", "hf"):
        exported = export(paper_run(tmp_path, templates=dict.fromkeys(POISON, 1 / 6)), format)
        (content,) = exported.files.values()
        kinds = {type(node) for node in ast.parse(content).body}
        assert kinds <= {ast.Assign, ast.Expr, ast.Import, ast.If}


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    folder = paper_run(tmp_path, templates=dict.fromkeys(POISON, 1 / 6), classnames=NAMES)
    (content,) = export(folder, "csv").files.values()
    cells = [cell for row in csv.reader(io.StringIO(content.decode("utf-8-sig"))) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r＝＋－＠") and cell]

    openpyxl = pytest.importorskip("openpyxl")
    (content,) = export(folder, "xlsx").files.values()
    book = openpyxl.load_workbook(io.BytesIO(content))
    kinds = {
        cell.data_type
        for sheet in book
        for row in sheet.iter_rows()
        for cell in row
        if isinstance(cell.value, str)
    }
    assert kinds == {"s"}
    assert book["classes"]["B2"].value == "=1+1"
    assert book["classes"]["B2"].quotePrefix


@pytest.mark.parametrize("text", ["=a", "'=a", "''@b", "plain", "'quoted'", "-1", "\tx", ""])
def test_guards_come_off_again(text: str) -> None:
    assert unguard(guard(text)) == text


@pytest.mark.parametrize("text", ["a {} b", "{}", "{{}}{}", "a } {} {"])
def test_slots_convert_both_ways(text: str) -> None:
    named = named_slot(text)
    assert named.format(c="cat") == text.replace("{}", "cat", 1) or text == "{{}}{}"
    if text in ("a {} b", "{}"):
        assert plain_slot(named) == text


def test_clip_benchmark_files_are_keyed_by_the_data_set(tmp_path: Path) -> None:
    exported = export(paper_run(tmp_path), "clip-benchmark", key="wds/mine")
    assert json.loads(exported.files["templates.json"]) == {"wds/mine": ["a small {c}."]}
    assert json.loads(exported.files["classnames.json"])["wds/mine"][2] == "polar bear"
    assert "--dataset wds/mine" in exported.warnings[0]


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'openclip'"):
        export(paper_run(tmp_path), "openclp")


def test_a_prompt_list_knows_its_names() -> None:
    prompts = PromptList((Prompt("a {}."),), ("two_words",))
    assert prompts.names == ["two words"]
