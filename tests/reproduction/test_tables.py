"""The tables as data: all of them read, and nothing odd passes."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.comparison.published import figures
from llmopt.errors import ConfigError
from llmopt.reproduction.choice import Choice, parse_only
from llmopt.reproduction.render import page
from llmopt.reproduction.spec import Figures, backbones, parse_table, read_table, table_names

PAGE = Path(__file__).parents[2] / "docs" / "reproduce.md"
GOOD = """
title = "t"
paper = "p"
about = "a"
tolerance = { 1 = 2.0 }
tolerance_why = "because"
differs = []
[[arms]]
name = "One"
optimizer = "zeroshot"
[[grids]]
backbones = ["RN50"]
datasets = ["eurosat"]
shots = [1]
seeds = [1]
"""


def test_every_table_of_the_papers_is_there() -> None:
    assert set(table_names()) == {
        "carrot", "cbbt", "coop", "craft-few-shot", "craft-robustness", "heads", "llm-ablation",
        "llm-main", "llm-transfer", "zip",
    }  # fmt: skip


@pytest.mark.parametrize("name", table_names())
def test_a_table_is_whole(name: str) -> None:
    choice = Choice(read_table(name), changes={"llm": "builtin"})
    assert len(choice.items) == choice.runs > 10
    used = {item.contender.name for item in choice.items}
    assert used == {arm.name for arm in choice.table.arms}
    for arm in choice.table.arms:
        places = [
            (model, data, item.cell.config.shots)
            for item in choice.items
            if item.contender == arm
            for model in (item.backbone.name, *item.grid.also_behind)
            for data in (item.cell.config.dataset, *item.grid.also_on)
        ]
        for one in arm.figures:
            assert any(one.find(*place) for place in places), f"{arm.name}: {one}"


def test_the_page_is_what_the_tables_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "write it anew: llmopt reproduce list --format markdown > docs/reproduce.md"
    )


def test_a_mean_goes_before_single_seeds() -> None:
    found = Figures(method="CoOp (white-box, M=16, end)", source="KaiyangZhou/CoOp")
    figure = found.find("RN50", "caltech101", 16)
    assert figure is not None
    assert figure["accuracy"] == "92.00"
    assert found.find("RN50", "caltech101", 1) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('title = "t"', ""), "title: Field required"),
        (('title = "t"', "title = 3"), "title: Input should be a valid string"),
        (('title = "t"', 'title = "t"\ntitel = "t"'), "titel: Extra inputs are not permitted"),
        (("shots = [1]", "shots = [0]"), "grids.0.shots.0: Input should be greater than"),
        (("shots = [1]", "shots = [true]"), "grids.0.shots.0: Input should be a valid integer"),
        (("shots = [1]", "shots = [2]"), "no tolerance is stated for 2 shots"),
        (("shots = [1]", "shots = []"), "grids.0.shots: "),
        (("1 = 2.0", "1 = 0"), "tolerance.1: Input should be greater than 0"),
        (("1 = 2.0", "1 = nan"), "tolerance.1: Input should be a finite number"),
        (('"eurosat"', '"eurosatt"'), "unknown data set 'eurosatt'; did you mean 'eurosat'"),
        (('"RN50"', '"RN5"'), "unknown backbone 'RN5'; did you mean 'RN50'"),
        (("seeds = [1]", 'seeds = [1]\narms = ["Two"]'), "unknown arm 'Two'"),
        (('"One"', '"One, two"'), "arms.0.name: String should match"),
        (('name = "One"', 'name = "One"\nfigures = [{ method = "m", source = "s" }]'),
         "arm 'One': published.csv has no such figures"),
        (("[[grids]]", '[[arms]]\nname = "One"\noptimizer = "zip"\n[[grids]]'), "two arms are"),
        (("seeds = [1]", "seeds = [1"), "not valid TOML"),
    ],
)  # fmt: skip
def test_odd_tables_are_refused(change: tuple[str, str], said: str) -> None:
    assert parse_table("good", GOOD).arms[0].command == "zeroshot"
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        parse_table("odd", GOOD.replace(*change))
    assert "table 'odd'" in str(error.value)


@fuzz(text=st.text(), cut=st.integers(0, len(GOOD)), more=st.integers(0, 30))
def test_whatever_stands_there_is_a_table_or_is_refused(text: str, cut: int, more: int) -> None:
    with contextlib.suppress(ConfigError):
        parse_table("odd", GOOD[:cut] + text + GOOD[cut + more :])


def test_an_arm_that_cannot_run_is_named() -> None:
    table = parse_table("odd", GOOD.replace('"zeroshot"', '"zeroshot"\noptions = { budgett = 3 }'))
    with pytest.raises(ConfigError, match="arm 'One': 'budgett' is no option of a run"):
        _ = Choice(table).items
    with pytest.raises(ConfigError, match="did you mean 'zip'"):
        read_table("zipp")


def test_a_part_of_a_table() -> None:
    table = read_table("craft-few-shot")
    only = parse_only(["dataset=eurosat,shots=1-4", "dataset=dtd,seed=2", "arm=CraFT"])
    assert only == {"dataset": ["eurosat", "dtd"], "shots": [1, 2, 3, 4], "seed": [2],
                    "arm": ["CraFT"]}  # fmt: skip
    only["shots"] = [1, 2, 4]
    choice = Choice(table, only)
    assert choice.runs == len(choice.items) == 6
    assert choice.datasets == ["dtd", "eurosat"] or choice.datasets == ["eurosat", "dtd"]
    for odd, said in (
        ("shots=3", "table 'craft-few-shot' has no such shots"),
        ("dataset=eurosatt", "did you mean 'eurosat'"),
        ("shot=1", "unknown side 'shot'; did you mean 'shots'"),
        ("arm=Zero-shot CLIP,shots=4", "has no such run"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            _ = Choice(table, parse_only([odd])).grids
    for odd in ("x", "=3", "shots=", ""):
        with pytest.raises(ConfigError, match="not of the form SIDE=VALUE"):
            parse_only([odd])
    with pytest.raises(ConfigError, match="must be numbers such as"):
        parse_only(["shots=few"])


@fuzz(text=st.text())
def test_whatever_is_asked_for_is_a_part_or_is_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        _ = Choice(read_table("zip"), parse_only([text])).grids


def test_another_model_stands_in_for_all(tmp_path: Path) -> None:
    weights = tmp_path / "RN50.pt"
    weights.touch()
    table = read_table("craft-robustness")
    for given, name in (
        ({"model": "shapes-tiny"}, "shapes-tiny"),
        ({"model": "RN50-quickgelu", "pretrained": "openai"}, "RN50"),
        ({"model": "RN50-quickgelu", "pretrained": str(weights)}, "RN50"),
        ({"model": "RN50-quickgelu", "pretrained": "yfcc15m"}, "RN50-quickgelu"),
    ):
        choice = Choice(table, changes=given)
        assert [one.name for one in choice.models] == [name]
        assert {item.stands_for for item in choice.items} == {"RN50"}
        assert choice.runs == len(choice.items) == 7
    with pytest.raises(ConfigError, match="--pretrained openai is for a --model"):
        _ = Choice(table, changes={"pretrained": "openai"}).items


def test_backbones_are_those_of_open_clip(open_clip: object) -> None:
    for one in backbones().values():
        known = open_clip.get_pretrained_cfg(one.model, one.pretrained)  # type: ignore[attr-defined]
        assert known["hf_hub"].strip("/") == one.hub
    assert {row["backbone"].partition(" (")[0] for row in figures()} >= set(backbones())
