"""``llmopt predict``: classes of one's own images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import done, refused, run
from paper_runs import paper_run

from llmopt.data.shapes import SHAPES, ShapesDataset


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and images of a circle and a square, one of them named like a formula."""
    root = tmp_path_factory.mktemp("predict")
    paper_run(root / "runs", templates={"a tiny {}.": 1.0}, classnames=SHAPES).rename(root / "run")
    images, labels = ShapesDataset("shapes-small").split("test")
    for name, label in (("one.png", 0), ("=two.png", 1)):
        images[list(labels).index(label)].load().save(root / name)
    return root


def test_a_line_an_image(place: Path) -> None:
    lines = done("predict", "run", "one.png", "=two.png", cwd=place).out.splitlines()
    assert [line.split()[:2] for line in lines] == [["one.png", SHAPES[0]], ["=two.png", SHAPES[1]]]
    assert all(line.endswith(" %") for line in lines)
    (line,) = done("predict", "run", "one.png", "--top", "99", cwd=place).out.splitlines()
    assert line.count("%") == len(SHAPES)


def test_json_and_csv_say_the_same(place: Path) -> None:
    asked = ("predict", "run", "one.png", "=two.png", "--top", "2")
    found = done(*asked, "--json", cwd=place).json
    assert [one["image"] for one in found] == ["one.png", "=two.png"]
    assert found[0]["classes"][0]["class"] == SHAPES[0]
    assert 0 < found[0]["classes"][1]["probability"] < found[0]["classes"][0]["probability"] < 1
    first, second = csv.DictReader(done(*asked, "--csv", cwd=place).out.splitlines())
    assert list(first) == ["image", "class1", "probability1", "class2", "probability2"]
    assert float(first["probability2"]) == found[0]["classes"][1]["probability"]
    assert second["image"] == "'=two.png"  # no formula of a spreadsheet


def test_only_what_is_asked_goes_to_stdout(place: Path) -> None:
    ended = done("predict", "run", "one.png", "--json", cwd=place)
    assert json.loads(ended.out)
    assert ended.err == ""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("run", "none.png"), "there is no image none.png"),
        (("run", "https://x.org/a.png"), "https://x.org/a.png is an address"),
        (("run", "run"), "run is a folder; name its images"),
        (("run", "run/config.toml"), "config.toml"),
        (("run", "one.png", "--csv", "--json"), "either --csv or --json"),
        (("one.png", "one.png"), "not a run folder"),
    ],
)
def test_what_cannot_be_told_is_refused(place: Path, words: tuple[str, ...], reason: str) -> None:
    assert reason in refused("predict", *words, cwd=place)


def test_the_others_are_classified_where_one_cannot_be_read(place: Path) -> None:
    (place / "cut.png").write_bytes((place / "one.png").read_bytes()[:-60])
    (place / "none.jpg").write_bytes(b"no picture")
    ended = run("predict", "run", "cut.png", "one.png", "none.jpg", "=two.png", cwd=place)
    assert ended.code == 2
    assert [line.split()[0] for line in ended.out.splitlines()] == ["one.png", "=two.png"]
    said = " ".join(ended.err.split())
    assert "image cut.png is damaged" in said
    assert "none.jpg is not an image" in said
    assert "--skip-unreadable" not in said
