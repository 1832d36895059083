"""What ``optimizers``, ``heads`` and ``docs`` say of settings and words."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Annotated

import pytest
from annotated_types import Ge, Le
from typer.testing import CliRunner

from llmopt.cli.app import app
from llmopt.cli.reference import glossary
from llmopt.heads import HEADS
from llmopt.search import OPTIMIZERS, forms
from llmopt.settings import Settings, describe
from llmopt.spend.currency import CAPS, CURRENCIES


def said(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, done.output
    return done.output


@dataclasses.dataclass(frozen=True)
class Base(Settings):
    """A base.

    Attributes:
        steps: how many;
            none is endless.
        low, high: ends of
            the range.

    Not part of it: this line.
    """

    steps: Annotated[int, Ge(1)] | None = None
    low: Annotated[float, Ge(0), Le(1)] = 0.5
    high: float = 2.0


@dataclasses.dataclass(frozen=True)
class Derived(Base):
    """Another default, another meaning.

    Attributes:
        high: the upper end.
    """

    high: float = 3.0
    undocumented: bool = False


def test_settings_are_described_by_their_annotations_and_docstrings() -> None:
    assert [dataclasses.astuple(one) for one in describe(Derived)] == [
        ("steps", None, "a whole number, 1 or more, or none", "how many; none is endless."),
        ("low", 0.5, "a number, from 0 to 1", "ends of the range."),
        ("high", 3.0, "a number", "the upper end."),
        ("undocumented", False, "true or false", ""),
    ]


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_setting_of_an_optimizer_is_shown_with_its_meaning(name: str) -> None:
    found = json.loads(said("optimizers", "show", name, "--json"))
    assert found["forms"].keys() == forms(name).keys()
    for profile, kind in forms(name).items():
        shown = found["forms"][profile]
        fields = [f.name for f in dataclasses.fields(kind.Settings)]
        assert [one["name"] for one in shown["settings"]] == fields
        assert all(one["meaning"] and one["values"] for one in shown["settings"]), shown
        assert shown["source"]
    assert name in said("optimizers", "show", name)


@pytest.mark.parametrize("name", HEADS.names())
def test_every_setting_of_a_head_is_shown_with_its_meaning(name: str) -> None:
    (found,) = json.loads(said("heads", "show", name, "--json"))["forms"].values()
    assert len(found["settings"]) == len(dataclasses.fields(HEADS.get(name).Settings))
    assert all(one["meaning"] for one in found["settings"]), found
    assert name in said("heads", "show", name)


def test_lists_name_them_all() -> None:
    for kind, registry in (("optimizers", OPTIMIZERS), ("heads", HEADS)):
        found = json.loads(said(kind, "list", "--json"))
        assert [one["name"] for one in found] == registry.names()
        assert all(one["does"] for one in found)
        assert "``" not in said(kind, "list")


def test_a_head_says_what_it_looks_at() -> None:
    seen = {one["name"]: one["looks at"] for one in json.loads(said("heads", "list", "--json"))}
    assert [seen[name] for name in ("map", "bias", "gda")] == ["answers", "scores", "features"]


def test_words_are_explained_under_all_their_names() -> None:
    entries = glossary()
    names = [n for name, entry in entries.items() for n in (name, *entry.get("also", ()))]
    assert len({name.casefold() for name in names}) == len(names)
    for entry in entries.values():
        assert entry["text"].endswith((".", "'"))
        for other in re.findall(r"See ([\w-]+)", entry["text"]):
            assert other in entries
    for word in ("likelihood", "nats", "waypoint", "judging images", "JUDGING", "p (Holm)"):
        assert len(json.loads(said("docs", *word.split(), "--json"))) == 1
    spent = {one.label for one in (*CURRENCIES.values(), *CAPS.values()) if one.name != "seconds"}
    for label in (*spent, "at most", "test, apart", "status"):
        assert len(json.loads(said("docs", *label.split(), "--json"))) == 1
    assert said("docs", "nats").count("e^0.1") == 1
    assert json.loads(said("docs", "--json")).keys() >= entries.keys()
