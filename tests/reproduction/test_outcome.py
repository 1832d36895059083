"""Figures of ours beside published ones: verdicts, intervals, means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmopt.reproduction.choice import Choice
from llmopt.reproduction.outcome import AVERAGE, Place, Reading, Row, rows
from llmopt.reproduction.spec import read_table

CRAFT = Place("CraFT", "RN50", "eurosat", 16)  # published: 75.30, tolerance 1
EUROSAT = 8100


def readings(*accuracies: float, images: int = EUROSAT, **changes: Any) -> list[Reading]:
    usual = {"capped": False, "llm": "", "folder": Path("run")} | changes
    return [
        Reading(seed, round(accuracy * images) / images, images, **usual)
        for seed, accuracy in enumerate(accuracies, start=1)
    ]


def row(
    *accuracies: float, place: Place = CRAFT, table: str = "craft-few-shot", **more: Any
) -> Row:
    choice = Choice(read_table(table), more.pop("only", {}), more.pop("changes", {}))
    found = rows(choice, {place: readings(*accuracies, **more)}, {})
    return next(one for one in found if one.place == place)


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.753, 0.753, 0.753), "within"),
        ((0.762, 0.762, 0.762), "within"),
        ((0.765, 0.765, 0.765), "above"),
        ((0.742, 0.742, 0.742), "below"),
        ((0.70, 0.753, 0.806), "within"),  # the mean decides, its interval stands beside
        ((0.5,), "below"),
    ],
)
def test_the_verdict_is_on_the_difference(accuracies: tuple[float, ...], verdict: str) -> None:
    found = row(*accuracies)
    assert (found.published, found.tolerance) == (75.30, 1.0)
    assert found.verdict == verdict
    assert found.accuracy == pytest.approx(100 * np.mean(accuracies), abs=0.01)
    assert found.difference == pytest.approx(found.accuracy - 75.30)
    assert found.reasons == ()
    assert (found.seeds, found.wanted) == (tuple(range(1, len(accuracies) + 1)), 3)


def test_the_interval_is_the_wider_of_seeds_and_images() -> None:
    spread, alike = row(0.70, 0.75, 0.80), row(0.75, 0.75, 0.75)
    half = 4.302653 * 5.0 / math.sqrt(3)  # Student's t with two degrees of freedom
    assert spread.interval == pytest.approx((75 - half, 75 + half), abs=0.01)
    assert alike.interval is not None
    assert alike.interval[1] - alike.interval[0] == pytest.approx(1.886, abs=0.01)  # Wilson


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"images": 15}, "15 test images here, 8,100 in the published set"),
        ({"capped": True}, "3 of 3 searches ended at a cap"),
        ({"changes": {"model": "shapes-tiny"}, "place": CRAFT._replace(model="shapes-tiny")},
         "behind shapes-tiny, not RN50"),
        ({"table": "cbbt", "place": Place("CBBT with adapter", "RN50", "eurosat", 16)},
         "no such figure could be read"),
        ({"table": "llm-main", "llm": "builtin", "changes": {"llm": "builtin"},
          "place": Place("Chat as released", "ViT-B/32", "eurosat", 1)},
         "'builtin' is no language model"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_says_why(more: Mapping[str, Any], said: str) -> None:
    found = row(0.753, 0.753, 0.753, **more)
    assert found.verdict == "not comparable"
    assert said in found.reasons


def test_what_was_not_measured_says_why() -> None:
    asked = {"dataset": ["eurosat"], "shots": [16], "arm": ["CraFT"]}
    choice = Choice(read_table("craft-few-shot"), asked)
    (found,) = rows(choice, {}, {CRAFT: ("missing", "not here")})
    assert (found.verdict, found.reasons, found.published) == ("missing", ("not here",), 75.30)
    (found,) = rows(choice, {}, {})
    assert (found.verdict, found.accuracy, found.difference) == ("not run", None, None)


def test_means_over_data_sets_need_all_of_them() -> None:
    table = read_table("craft-few-shot")
    choice = Choice(table, {"shots": [16], "arm": ["CraFT"]})
    places = {item.cell.config.dataset: None for item in choice.items}
    from llmopt.data.benchmarks.catalog import CATALOG

    own = {
        CRAFT._replace(dataset=name): readings(0.7, 0.7, 0.7, images=CATALOG[name].sizes[2] or 0)
        for name in places
    }
    mean = rows(choice, own, {})[-1]
    assert mean.place == CRAFT._replace(dataset=AVERAGE)
    assert mean.published == pytest.approx(71.22, abs=0.005)  # as the paper prints it
    assert mean.accuracy == pytest.approx(70.0, abs=0.05)
    assert mean.verdict == "below"
    single = [one.interval for one in rows(choice, own, {})[:-1]]
    assert mean.interval is not None
    widest = max(high - low for low, high in filter(None, single))
    assert 0 < mean.interval[1] - mean.interval[0] < widest
    own.pop(CRAFT)
    assert all(one.place.dataset != AVERAGE for one in rows(choice, own, {}))
