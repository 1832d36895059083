"""Rows, pairs, words and formats of a comparison."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from paper_runs import paper_run, reconfigure

from llmopt.comparison import published
from llmopt.comparison.grid import parse_arm
from llmopt.comparison.records import Record, read_record, read_records
from llmopt.comparison.render import (
    FORMATS,
    as_csv,
    as_latex,
    as_markdown,
    sentence,
    spend_table,
)
from llmopt.comparison.table import Comparison, compare, compare_batches
from llmopt.errors import ConfigError, RunFolderError
from llmopt.runs import folder as run_folder
from llmopt.spend.files import read_arrays, write_arrays

LABELS = np.arange(60) % 3


def guesses(right: int) -> np.ndarray:
    """Predictions of which the first ``right`` are right."""
    return np.where(np.arange(60) < right, LABELS, (LABELS + 1) % 3)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    records = []
    for seed, text, soft in ((1, 50, 40), (2, 52, 41), (3, 51, 43)):
        for arm, right, optimizer in (("text", text, "chat"), ("soft", soft, "random")):
            folder = paper_run(
                tmp_path,
                optimizer=optimizer,
                seed=seed,
                labels=LABELS,
                before=guesses(30),
                after=guesses(right),
                spent={"text_encodings": 600, "llm_usd": 0.5},
            )
            records.append(read_record(folder, arm))
    return compare(records)


def test_rows_hold_means_intervals_and_spend(comparison: Comparison) -> None:
    best = comparison.rows[0]
    assert (best.arm, best.seeds) == ("text", (1, 2, 3))
    assert best.value == pytest.approx(51 / 60)
    assert best.start == 0.5
    assert best.worst == pytest.approx(50 / 60)
    assert best.gain.difference.mean == pytest.approx(21 / 60)
    assert best.gain.verdict == "better"
    assert best.per_point("text_encodings") == pytest.approx(600 / 35)
    assert best.per_point("llm_usd") == pytest.approx(0.5 / 35)


def test_pairs_say_who_is_better(comparison: Comparison) -> None:
    (pair,) = comparison.pairs
    assert sentence(pair).startswith("text against soft: better (+16.1 points")
    assert any("Holm" in note for note in comparison.notes)


def test_no_significant_difference_is_said(tmp_path: Path) -> None:
    records = [
        read_record(
            paper_run(tmp_path, optimizer=o, labels=LABELS, before=guesses(30), after=guesses(n))
        )
        for o, n in (("chat", 31), ("random", 32))
    ]
    found = compare(records)
    assert "no significant difference" in sentence(found.pairs[0])
    assert "say nothing of other few-shot samples" in " ".join(found.notes)


def test_unfair_records_are_left_out(tmp_path: Path) -> None:
    first = read_record(paper_run(tmp_path, labels=LABELS, after=LABELS))
    again = read_record(paper_run(tmp_path, labels=LABELS, after=LABELS))
    other = read_record(paper_run(tmp_path, seed=2, labels=LABELS[::-1], after=LABELS))
    found = compare([first, again, other])
    assert len(found.rows) == 1
    assert found.rows[0].folders == (str(again.folder),)
    assert sum("left out" in note for note in found.notes) == 2


def test_an_earlier_run_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    first, last = (paper_run(tmp_path, labels=LABELS, after=LABELS, seed=s) for s in (1, 1))
    for folder, before in ((first, gone), (last, first)):
        path = folder / "config.toml"
        reconfigure(folder, f"init_from = {json.dumps(str(before))}\n{path.read_text()}")
    said = f"{first} started from {gone}, which is not there any more: what that spent is not"
    for folders in ([first], [last], [first, last]):
        found = compare([read_record(folder, str(folder)) for folder in folders])
        assert sum(note.startswith(said) for note in found.notes) == 1
    reconfigure(first, 'dataset = "shapes-small"')
    assert not any("started from" in note for note in compare([read_record(last)]).notes)


def test_an_earlier_run_on_other_images_is_told(tmp_path: Path) -> None:
    first = paper_run(tmp_path, labels=LABELS[::-1], after=LABELS)
    last = paper_run(tmp_path, labels=LABELS, after=LABELS, spent={"text_encodings": 7})
    path = last / "config.toml"
    reconfigure(last, f"init_from = {json.dumps(str(first))}\n{path.read_text()}")
    record = read_record(last)
    assert record.ledger["text_encodings"] == 7
    said = f"{last} started from {first}, which has other test images: what that spent is not"
    assert sum(note.startswith(said) for note in compare([record]).notes) == 1


def test_arms_that_were_asked_differently_are_told_apart(tmp_path: Path) -> None:
    runs = [
        paper_run(tmp_path, labels=LABELS, after=LABELS, start=start, seed=seed)
        for start in ("a photo of a {}.", "the {}.")
        for seed in (1, 2)
    ]
    other = paper_run(tmp_path, labels=LABELS, after=LABELS, optimizer="random")
    names = [record.arm for record in read_records([*runs, other])[0]]
    assert names == [
        *2 * ["chat template=a photo of a {}."],
        *2 * ["chat template=the {}."],
        "random",
    ]
    assert {record.arm for record in read_records(runs[:2])[0]} == {"chat"}


def test_names_given_in_a_comparison_stay(tmp_path: Path) -> None:
    folder = paper_run(tmp_path, labels=LABELS, after=LABELS)
    assert read_record(folder).arm == "chat"
    run_folder.call(folder, "text")
    assert [record.arm for record in read_records([folder])[0]] == ["text"]
    (folder / run_folder.CALLED).write_bytes(b"\xff" + 500 * b"x")
    assert len(read_record(folder).arm) == 200
    assert parse_arm("text=chat,restarts=1").named
    assert not parse_arm("chat,restarts=1").named


def test_unmeasured_runs_are_refused(tmp_path: Path) -> None:
    folder = paper_run(tmp_path)
    (folder / "test_predictions.safetensors").unlink()
    with pytest.raises(RunFolderError, match="not measured"):
        read_record(folder)
    (folder / "test_predictions.safetensors").write_bytes(b"junk")
    with pytest.raises(RunFolderError, match="damaged"):
        read_record(folder)


def test_formats(comparison: Comparison) -> None:
    data = json.loads(FORMATS["json"](comparison))
    assert data["rows"][0]["gain"]["p_holm"] < 0.05
    assert data["rows"][0]["per_point"]["llm_calls"] == 0
    table = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert [row["arm"] for row in table] == ["text", "soft"]
    assert float(table[0]["accuracy"]) == pytest.approx(51 / 60)
    assert float(table[0]["text_encodings_per_point"]) == pytest.approx(600 / 35)
    header, spent = spend_table(comparison.rows)
    assert header == ["arm", "text encodings", "LLM cost"]
    assert spent[0] == ["text", "600 (17 a point)", "$0.5000 ($0.0143 a point)"]
    assert "| text | 3 | 85.0 |" in as_markdown(comparison)
    latex = as_latex(comparison)
    assert latex.count("\\\\") == 4
    assert latex.startswith("\\begin{tabular}")


def test_other_metrics_and_baselines(tmp_path: Path) -> None:
    records = [
        read_record(
            paper_run(
                tmp_path,
                optimizer=optimizer,
                seed=seed,
                labels=LABELS,
                before=guesses(30),
                after=guesses(right),
                baselines={"openai": guesses(eighty)},
            )
        )
        for optimizer, right, eighty in (("chat", 51, 50), ("random", 40, 20))
        for seed in (1, 2)
    ]
    found = compare(records)
    assert [row.baselines["openai"] for row in found.rows] == pytest.approx([50 / 60, 20 / 60])
    (note,) = [note for note in found.notes if "not clearly over" in note]
    assert note.startswith("'chat' gains over its start")
    assert "| 80 templates |" in as_markdown(found)
    by_f1 = compare(records, metric="macro_f1")
    assert json.loads(FORMATS["json"](by_f1))["rows"][0]["macro_f1"] == pytest.approx(0.85)
    assert "macro_f1" in as_csv(by_f1).splitlines()[0]
    assert "macro F1" in as_markdown(by_f1)
    calibrated = compare(records, metric="ece")  # sure to 0.9 of 51 and of 40 of 60
    assert [row.arm for row in calibrated.rows] == ["chat", "random"]
    assert calibrated.rows[0].value == pytest.approx(0.05, abs=1e-6)
    assert calibrated.pairs[0].tested.verdict == "better"
    with pytest.raises(ConfigError, match="did you mean 'macro_f1'"):
        compare(records, metric="macro_f2")


def test_tasks_are_taken_up_one_after_the_other(tmp_path: Path) -> None:
    records = [
        read_record(
            paper_run(
                tmp_path, dataset=dataset, optimizer=optimizer, labels=LABELS,
                before=guesses(30), after=guesses(right),
            )
        )
        for dataset in ("shapes-small", "shapes-blue", "shapes-tilt")
        for optimizer, right in (("chat", 51), ("random", 40))
    ]  # fmt: skip
    held: list[weakref.ref[Record]] = []

    def batches() -> Iterator[list[Record]]:
        for group in (records[:2], records[2:4], records[4:]):
            assert len([one for one in held if one()]) <= 2  # those just before
            batch = [dataclasses.replace(record) for record in group]
            held.extend(map(weakref.ref, batch))
            yield batch

    assert compare_batches(batches(), ["said"]) == compare(records, ["said"])
    assert len(compare(records).tasks) == 3
    assert not any(one() for one in held)
    assert compare_batches([]).rows == ()


def test_runs_of_an_earlier_schema_are_compared(tmp_path: Path) -> None:
    folder = paper_run(tmp_path, labels=LABELS, before=guesses(30), after=guesses(50))
    path = folder / "test_predictions.safetensors"
    kept = read_arrays(path).arrays
    write_arrays(path, {name: kept[name] for name in ("labels", "baseline", "best")}, {})
    result = json.loads((folder / "result.json").read_text())
    old = {k: v for k, v in result.items() if k not in ("metrics", "per_class", "baselines")}
    (folder / "result.json").write_text(json.dumps(old | {"schema": 1}))
    record = read_record(folder)
    assert compare([record]).rows[0].baselines == {}
    assert compare([record], metric="mean_per_class_recall").rows[0].value == pytest.approx(50 / 60)
    with pytest.raises(ConfigError, match="says anything of top5"):
        compare([record], metric="top5")


def test_arm_names_cannot_break_a_format(tmp_path: Path) -> None:
    name = '=cmd|"&{}_%$#\\<b>\x1b[31m'
    folder = paper_run(tmp_path, labels=LABELS, after=LABELS)
    found = compare([read_record(folder, name)])
    (row,) = csv.DictReader(io.StringIO(as_csv(found)))
    assert row["arm"].startswith("'=cmd")
    assert "\x1b" not in as_markdown(found) + as_latex(found)
    assert "<b>" not in as_markdown(found).replace("\\<b\\>", "")


def test_published_figures_name_their_differences(tmp_path: Path) -> None:
    folder = paper_run(tmp_path, dataset="eurosat", labels=LABELS, after=LABELS)
    figures = published.beside(compare([read_record(folder)]).rows)
    assert figures
    assert {figure["dataset"] for figure in figures} == {"eurosat"}
    craft = next(f for f in figures if f["method"].startswith("CraFT") and f["shots"] == "1")
    assert any("backbone RN50" in difference for difference in craft["differences"])
    assert any("every generation" in difference for difference in craft["differences"])
    assert all(0 < float(figure["accuracy"]) <= 100 for figure in figures)
    assert len(published.figures()) > 1000


def test_every_figure_has_a_source() -> None:
    assert all(row["source"] and row["method"] for row in published.figures())
