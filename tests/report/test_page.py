"""What stands on the page, and that nothing of it can do harm."""

from __future__ import annotations

import html.parser
import json
import math
import re
import urllib.parse
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from paper_runs import paper_run
from poisoned import NAMES, poisoned_run
from typer.testing import CliRunner

from llmopt.cli.app import app
from llmopt.comparison.records import read_record
from llmopt.data.shapes import SHAPES
from llmopt.errors import ConfigError, RunFolderError
from llmopt.metrics import Predicted
from llmopt.report.changes import confusion, examples, mistakes
from llmopt.report.page import build, matrix, render, save, save_pictures
from llmopt.report.picture import png
from llmopt.report.plot import Axis, Mark, Plot
from llmopt.report.sections import command, sentence
from llmopt.report.story import read_story, tell
from llmopt.report.svg import draw
from llmopt.report.visible import blocks, visible
from llmopt.report.words import helpful_words
from llmopt.runs.config import RunConfig
from llmopt.spend.journal import Journal


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def scored(**templates: float) -> dict[str, object]:
    entries = [
        {"text": text.replace("_", " ") + " {}", "train_accuracy": a, "train_logprob": a - 1}
        for text, a in templates.items()
    ]
    return {"at": 1.0, "kind": "scored", "stream": "s", "data": {"templates": entries}}


def test_a_poisoned_page_is_only_text(tmp_path: Path) -> None:
    page = render(build([poisoned_run(tmp_path)]))
    tags = Tags(page).found
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not {"iframe", "object", "embed", "b", "u"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:")), (tag, value)
    assert "evil.example" in page  # shown, not followed
    assert "\u202e" not in page


def test_eight_long_runs_stay_below_five_megabytes(tmp_path: Path) -> None:
    runs = [poisoned_run(tmp_path, count=10_000 if s == 0 else 300, seed=s) for s in range(8)]
    page = render(build(runs))
    assert len(page.encode()) < 5_000_000
    assert "of 10,000" in page


def test_many_runs_have_a_page_each(tmp_path: Path) -> None:
    runs = [paper_run(tmp_path, seed=seed, classnames=NAMES) for seed in range(13)]
    out = tmp_path / "a folder" / "what I found #1.html"
    save(build(runs), out)
    text = out.read_text()
    links = [a["href"] or "" for tag, a in Tags(text).found if tag == "a"][1:]
    assert len(links) == 13
    assert "Images that changed" not in text
    for number, link in enumerate(links):
        page = out.parent / urllib.parse.unquote(link)
        single = page.read_text()
        assert f"seed {number}" in single
        assert "Images that changed" in single
        _, back = [a["href"] for tag, a in Tags(single).found if tag == "a"]
        assert (page.parent / urllib.parse.unquote(back or "")).resolve() == out.resolve()
    assert save_pictures(build(runs), tmp_path / "png") == []  # one arm, nothing to compare


def test_sixty_three_runs_have_a_small_main_page(tmp_path: Path) -> None:
    runs = [
        paper_run(tmp_path, seed=seed, shots=shots, settings={"restarts": restarts})
        for seed in range(3)
        for shots in (1, 4, 16)
        for restarts in range(1, 8)
    ]
    page = render(build(runs))
    assert len(runs) == 63
    assert len(page.encode()) < 5_000_000
    assert page.count('class="matrix"') == 3  # 21 sentences each, in one table
    assert page.count("Accuracy and what it cost</figcaption>") == 3
    contents = [a["href"] for tag, a in Tags(page).found if tag == "a"][1:5]
    assert contents == ["#task-1", "#task-2", "#task-3", "#runs"]


def test_arms_are_a_matrix_of_differences(tmp_path: Path) -> None:
    labels = np.arange(60) % 3
    for optimizer, right in (("chat", 60), ("random", 30), ("zeroshot", 31)):
        after = np.where(np.arange(60) < right, labels, (labels + 1) % 3)
        paper_run(tmp_path, optimizer=optimizer, labels=labels, after=after)
    comparison = build(list(tmp_path.iterdir())).comparison
    assert comparison is not None
    against = matrix(comparison, comparison.tasks[0])
    assert [arm for arm, _ in against] == ["chat", "zeroshot", "random"]
    texts = [[cell and (cell.text, cell.verdict) for cell in row] for _, row in against]
    none = "no significant difference"
    assert texts == [
        [None, ("+48.3", "better"), ("+50.0", "better")],
        [("-48.3", "worse"), None, ("+1.7", none)],
        [("-50.0", "worse"), ("-1.7", none), None],
    ]


def test_what_became_of_the_start_is_shown_word_by_word(tmp_path: Path) -> None:
    events = [("scored", "s", {"templates": [
        {"text": "a photo of a {}.", "train_accuracy": 0.8, "train_logprob": -1.0},
        {"text": "a small {}.", "train_accuracy": 0.6, "train_logprob": -0.5},
    ]})]  # fmt: skip
    asked = [["human", "All figures.\n\nWords:\n* red {}: +0.45 ± 0.08\n\nThis turn explores. Go."]]
    run = paper_run(tmp_path, events=events, replies=[(asked, "- a tiny {}.")],
                    baselines={"openai": [0] * 30})  # fmt: skip
    (section,) = build([run]).runs
    assert section.words == [
        ("same", "a"),
        ("gone", "photo of a"),
        ("new", "small"),
        ("same", "{}."),
    ]
    assert ("macro F1", "16.7 %", "100.0 %") in section.metrics
    assert [row[0] for row in section.accuracies] == ["start", "80 templates", "best"]
    (turn,) = section.talks["restart-1"]
    assert turn.purpose == "explores"
    kinds = {chart.name.split("-")[2] for chart in section.charts}
    assert {"classes", "calibration"} <= kinds
    climb = section.chart("climb")[0].shown
    assert isinstance(climb, Plot)
    best = next(mark for mark in climb.marks if mark.label == "best so far")
    assert list(best.y) == sorted(best.y)  # by what it ranks by, it never falls
    page = render(build([run]))
    assert "<ins>" in page
    assert "Turn 1 explores: asked" in page


def test_messages_are_paragraphs_lists_and_tables() -> None:
    text = "One.\nTwo.\n\nThree:\n- a\n- b\n* red {}: +0.4 ± 0.1, 50%\n* before {}: x; y"
    assert blocks(text) == [
        ("text", ["One.", "Two."]),
        ("text", ["Three:"]),
        ("list", ["a", "b"]),
        ("table", [("red {}", "+0.4 ± 0.1, 50%")]),
        ("list", ["before {}: x; y"]),
    ]


@fuzz(text=st.text())
def test_no_line_of_a_message_is_lost(text: str) -> None:
    lines = [line for _, lines in blocks(text) for line in lines]
    assert sum(len("".join(line)) for line in lines) <= len(text)
    if text.strip():
        assert lines


def test_what_cannot_be_shown_is_left_out_and_listed(tmp_path: Path) -> None:
    whole, unfinished, damaged = (paper_run(tmp_path, seed=seed) for seed in (1, 2, 3))
    (unfinished / "result.json").unlink()
    (damaged / "test_predictions.safetensors").write_bytes(b"")
    (tmp_path / "report.html").write_text("")
    done = CliRunner().invoke(
        app,
        ["report", *map(str, sorted(tmp_path.iterdir())), "--out", str(tmp_path / "page.html")],
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page.html").read_text()
    for left_out in (unfinished, damaged, tmp_path / "report.html"):
        assert left_out.name in page
        assert "left out: " in done.output
    assert str(tmp_path) not in page
    assert whole.name not in page
    alone = CliRunner().invoke(app, ["report", str(unfinished)])
    assert isinstance(alone.exception, RunFolderError)


def test_crowds_of_points_stay_small(tmp_path: Path) -> None:
    x = list(range(10_000))
    crowd = Plot([Mark(x, x, "one", "dots", dot=2, faint=True)], Axis("x"), Axis("y"), 200)
    assert len(draw(crowd, "p", "title", "text")) < 200_000
    assert png(crowd).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (Axis(), [0.3]), (Axis(), [0.0]), (Axis(), [-5.0, 5e9]), (Axis(), []),
        (Axis(low=0, high=103), [50.0]), (Axis(), [1e-7, 2e-7]), (Axis(), [math.nan, 2.0]),
        (Axis(log=True), [300.0]), (Axis(log=True), [1.0, 1e7]), (Axis(log=True), [6.0, 8.0]),
    ],
)  # fmt: skip
def test_axes_have_a_few_round_ticks_that_differ(axis: Axis, values: list[float]) -> None:
    low, high = axis.ends(values)
    ticks = axis.ticks(low, high)
    assert 2 <= len(ticks) <= 10
    assert len({axis.name(tick) for tick in ticks}) == len(ticks)
    margin = 1e-9 * (high - low)
    assert all(low - margin <= tick <= high + margin for tick in ticks)
    assert all(low <= value <= high for value in values if not math.isnan(value))


@fuzz(values=st.lists(st.floats(), max_size=30), low=st.sampled_from([None, 0.0]))
def test_any_figures_can_be_drawn(values: list[float], low: float | None) -> None:
    mark = Mark(values, values[::-1], "one", "all", line=1, dot=2, steps=True, shape="star")
    drawn = draw(Plot([mark], Axis("x", low=low), Axis("y"), 200), "p", "title", "text")
    ElementTree.fromstring(drawn)
    assert not re.search(r"\b(nan|inf)\b", drawn)


def test_a_plain_page_says_what_was_found(tmp_path: Path) -> None:
    run = paper_run(tmp_path, classnames=SHAPES, labels=np.arange(1000) % 12)
    page = render(build([run]))
    assert "“a small {}.”: 100.0 % of 1,000 test images" in re.sub("<[^>]+>", "", page)
    assert page.count("data:image/png;base64") >= 8  # the pictures that changed
    assert "default-src 'none'" in page
    assert str(tmp_path) not in page


def test_pictures_that_cannot_be_shown_say_why(tmp_path: Path) -> None:
    run = paper_run(tmp_path, dataset="folder:nowhere")
    gained, lost, trouble = examples(read_record(run), ["cat", "dog", "polar bear"])
    assert "nowhere" in trouble
    assert (len(gained), lost) == (8, [])
    assert gained[0].picture == ""
    assert "cannot be shown" in render(build([run]))


def test_pictures_are_saved_one_by_one(tmp_path: Path) -> None:
    page = build([paper_run(tmp_path), paper_run(tmp_path, optimizer="random")])
    paths = save_pictures(page, tmp_path / "png")
    assert {path.suffix for path in paths} == {".png"}
    assert "all-forest.png" in {path.name for path in paths}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_unfinished_runs_and_unwritable_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        build([tmp_path])
    with pytest.raises(ConfigError, match="at least one"):
        build([])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        save(build([paper_run(tmp_path)]), tmp_path / "file" / "page.html")


def test_the_sentence_is_honest() -> None:
    config = RunConfig()

    def of(**changes: object) -> str:
        best = {"templates": [{"text": "a {}."}], "soft_prompt": None, "head": None,
                "fallback": False, "test_accuracy": 0.5}  # fmt: skip
        result = {
            "task": {"classes": 3, "train_images": 3, "val_images": 3, "shots": 1,
                     "test_images": 100},
            "model": {"name": "m"},
            "baseline": {"template": "the {}", "test_accuracy": 0.48},
            "best": best | changes,
            "gain": {"test_accuracy": 0.02, "ci95": [-0.1, 0.1], "p_value": 0.7},
        }  # fmt: skip
        none = np.zeros(0, dtype=np.int64)
        nothing = Predicted(none)
        from llmopt.comparison.records import Record

        return sentence(Record(Path(), "chat", config, result, none, nothing, nothing))

    assert "no significant difference" in of()
    assert "kept it" in of(fallback=True)
    soft = {"tokens": 4, "width": 8, "class_specific": False}
    head = {"name": "ridge"}
    assert "found a soft prompt:" in of(templates=[], soft_prompt=soft)
    assert "found a soft prompt with the head 'ridge':" in of(
        templates=[], soft_prompt=soft, head=head
    )
    for kept in ([], [{"text": "the {}"}]):  # a soft search that fell back, with a head on it
        assert "kept “the {}” with the head 'ridge':" in of(templates=kept, head=head)
    assert "an ensemble of 2" in of(templates=[{"text": "a {}."}, {"text": "b {}"}])


def test_the_command_repeats_the_run() -> None:
    config = RunConfig(seed=3, template="it's a {}", settings={"restarts": 3}, data_root="data")
    assert command(config) == ("llmopt run --seed 3 --template 'it'\"'\"'s a {}' --set restarts=3")


def test_a_story_adds_up_what_was_spent() -> None:
    reply = {"charged": {"llm_calls": 1, "llm_tokens_in": 10, "llm_tokens_out": 5}, "text": "ok"}
    asked = {"messages": [["system", "rules"], ["human", "more"]]}
    story = tell(
        [
            scored(a=0.1, b=0.3),
            {"at": 2, "kind": "llm_intent", "stream": "s", "key": "1", "data": asked},
            {"at": 3, "kind": "llm_reply", "stream": "s", "key": "1", "data": reply},
            scored(c=0.2, d=0.5),
            {"at": 4, "kind": "step", "stream": "main", "data": {"index": 0, "loss": 0.5}},
            {"at": 5, "kind": "unheard of", "stream": "main", "data": {}},
        ],
        classes=4,
    )
    assert [p.text for p in story.climb()] == ["a {}", "b {}", "d {}"]
    last = story.proposals[-1].at
    assert (last["proposals"], last["text_encodings"], last["llm_calls"]) == (4, 16, 1)
    assert last["llm_tokens"] == 15
    assert story.instructions == "rules"
    assert story.talks["s"][0].asked == "more"
    assert story.steps[0].figures == {"loss": 0.5}
    assert "llm_usd" not in story.axes


def test_a_continuous_search_climbs_over_what_it_spent() -> None:
    story = tell(
        [
            {"at": 2.5, "kind": "step", "stream": "main",
             "data": {"index": i, "soft_prompt_encodings": 40 * (i + 1), "train_accuracy": 0.5}}
            for i in range(3)
        ],
        classes=4,
    )  # fmt: skip
    assert story.axes == ["steps", "soft_prompt_encodings", "seconds"]
    assert story.steps[-1].at["soft_prompt_encodings"] == 120
    assert story.steps[-1].at["steps"] == 3
    assert story.steps[-1].figures == {"train_accuracy": 0.5}


def test_words_are_compared_with_all_other_templates() -> None:
    templates = {f"small_{i}{x}": 0.9 + 0.01 * i for i, x in enumerate("pqrs")}
    templates |= {f"large_{i}{x}": 0.1 + 0.01 * i for i, x in enumerate("tuvw")}
    found = helpful_words(tell([scored(**templates)], 2).proposals)
    assert [(w.word, w.count) for w in found] == [("small", 4), ("large", 4)]
    assert found[0].effect == pytest.approx(0.8)
    assert found[0].interval[0] > 0
    assert helpful_words([]) == []


def test_confusions_count_images(tmp_path: Path) -> None:
    matrix = confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    assert matrix.tolist() == [[1, 1], [0, 1]]
    run = paper_run(tmp_path, labels=[0, 0, 1, 2], before=[1, 1, 1, 2], after=[0, 1, 1, 0])
    first, second = mistakes(read_record(run), ["a", "b", "c"])
    assert (first.true, first.taken_for, first.before, first.after) == ("a", "b", 2, 1)
    assert (second.true, second.taken_for) == ("c", "a")


def test_what_is_not_seen_is_shown() -> None:
    assert str(visible("a<b")) == "<bdi>a&lt;b</bdi>"
    assert "U+202E" in visible(NAMES[1])
    assert "U+001B" in visible(NAMES[2])
    assert "🏳️\u200d🌈" in visible("🏳️‍🌈")


def test_the_command_line_writes_the_page(tmp_path: Path) -> None:
    run = paper_run(tmp_path)
    done = CliRunner().invoke(app, ["report", str(run), "--png", str(tmp_path / "png")])
    assert done.exit_code == 0, done.output
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert list((tmp_path / "png").glob("*.png"))


def test_a_folder_of_runs_is_all_of_them(tmp_path: Path) -> None:
    for seed in range(2):
        paper_run(tmp_path / "runs", seed=seed)
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "runs"), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.output)["runs"]) == 2
    assert "2 runs compared" in out.read_text()
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert "is not a run folder" in str(done.exception)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("scored", {}),
        ("scored", {"templates": 3}),
        ("scored", {"templates": [{"text": "a", "train_accuracy": "much"}]}),
        ("llm_intent", {"messages": [["system"]]}),
        ("llm_intent", {"messages": 5}),
        ("llm_reply", {"charged": {"llm_usd": "much"}}),
        ("step", {"index": float("inf")}),
    ],
)
def test_records_that_are_not_of_their_kind(
    tmp_path: Path, kind: str, data: dict[str, Any]
) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.event(kind, **data)
    with pytest.raises(RunFolderError, match=r"journal\.jsonl is damaged: a record in it"):
        read_story(tmp_path, 3)
