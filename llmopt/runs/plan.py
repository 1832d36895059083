"""``llmopt plan``: the most a run can spend, before anything is spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from typing import Any

from llmopt.errors import BudgetTooSmall
from llmopt.runs.baselines import chosen, size
from llmopt.runs.bounds import (
    outside,
    run_bounds,
    stage_bounds,
    start_bounds,
    test_bounds,
    together,
)
from llmopt.runs.compose import Setup
from llmopt.runs.config import RunConfig
from llmopt.runs.speed import Speed
from llmopt.search.text.racing import few
from llmopt.spend.currency import CAPS, Spend, amount, is_money, label
from llmopt.vision.base import BlackBox
from llmopt.vision.precision import announced


@dataclass(frozen=True)
class Bound:
    """The most a currency can come to, None if unknown, and its cap, None if there is none."""

    name: str
    most: float | None
    cap: float | None = None

    @property
    def label(self) -> str:
        """The currency in words."""
        return label(self.name)

    @property
    def held(self) -> float | None:
        """The most it can come to under its cap."""
        return self.most if self.most is None or self.cap is None else min(self.most, self.cap)

    @property
    def most_text(self) -> str:
        """The upper bound with its unit, or that it is unknown."""
        return amount(self.name, self.most)

    @property
    def cap_text(self) -> str:
        """The cap with its unit; empty where there is none."""
        return amount(self.name, self.cap, absent="")


@dataclass(frozen=True)
class Plan:
    """What a run can spend at most.

    Attributes:
        title: what would run, one line.
        config: with all defaults filled in.
        rows: upper bounds and caps of the search.
        test: upper bounds of measuring the test images once at the end, apart from the caps.
        least: what scoring the start takes, without which there is no result at all.
        notes: what is worth knowing before starting.
        seconds: for the black box and the language model, at a measured speed, if all of it is
            used; None where no speed is known.
        stages: of a search that has some, what each takes at most, by name.
    """

    title: str
    config: RunConfig
    rows: tuple[Bound, ...]
    test: Spend
    least: Spend
    notes: tuple[str, ...]
    seconds: float | None = None
    stages: Mapping[str, Spend] = field(default_factory=dict)

    def timed(self, speed: Speed) -> Plan:
        """With the time it takes at that speed, in a note too."""
        held = {row.name: row.held or 0 for row in self.rows}
        queries, calls = held.get("queries", 0), held.get("llm_calls", 0)
        seconds = speed.of(queries, calls)
        if seconds is None:
            note = "Time: not known before a first run with these models is finished here."
        else:
            cap = self.config.max_seconds
            seconds = seconds if cap is None else min(seconds, cap)
            most_time = timedelta(seconds=ceil(seconds))
            note = (
                f"Time: about {most_time} for the black box and the language model if all of this "
                f"is used, at the speed of {speed.told}; what the search itself computes, loading "
                "the model and the test come on top."
            )
        return dataclasses.replace(self, seconds=seconds, notes=(*self.notes, note))

    @property
    def received(self) -> str:
        """What the black box receives at most, one line."""
        most = {row.name: row.held for row in self.rows}
        words = {
            "black_box_calls": "calls",
            "image_encodings": "images",
            "queries": "prompts",
            "pairs_scored": "pairs",
        }
        search, test = (
            ", ".join(f"{told(name) or 0:,.0f} {word}" for name, word in words.items())
            for told in (most.get, self.test.under)
        )
        if usd := most.get("box_usd"):
            search += f", {amount('box_usd', usd)}"
            test += f", {amount('box_usd', self.test['box_usd'])}"
        return f"the black box receives at most {search}; in the test {test}"

    @property
    def needed(self) -> int:
        """Queries without which there is no result at all."""
        return int(self.least.queries)

    def refuse_unpayable(self) -> None:
        """Raise if the caps do not pay for any result.

        Raises:
            BudgetTooSmall: with the smallest cap that would do.
        """
        for cap in CAPS.values():
            limit, least = getattr(self.config, cap.option), self.least.under(cap.name)
            if limit is not None and limit < least:
                raise BudgetTooSmall(
                    f"{cap.flag} {limit} does not even pay for scoring the start template: "
                    f"it takes {amount(cap.name, least)} ({cap.label})"
                )

    def to_json(self) -> dict[str, Any]:
        """What ``llmopt plan --json`` prints."""
        return {
            "schema": 1,
            "upper_bounds": {row.name: row.most for row in self.rows},
            "evaluation": _amounts(self.test),
            "caps": {row.name: row.cap for row in self.rows if row.cap is not None},
            "needed_queries": self.needed,
            **(
                {"stages": {n: _amounts(most) for n, most in self.stages.items()}}
                if self.stages
                else {}
            ),
            "seconds": self.seconds,
            "notes": list(self.notes),
            "config": dataclasses.asdict(self.config),
        }


def _amounts(most: Spend) -> dict[str, float]:
    return {n: value if is_money(n) else int(value) for n, value in most.items() if value}


def make_plan(setup: Setup, box: BlackBox | None = None) -> Plan:
    """The plan of a run. Loads no model and spends nothing.

    Args:
        setup: what would run.
        box: its black box, if it is open; a remote one is asked what it is.
    """
    task, caps = setup.task, setup.caps
    box = box or setup.model.look()
    bounds = run_bounds(setup, box)
    rows = [
        Bound(name, most, caps.llm_usd) if is_money(name) else Bound(name, int(most))
        for name, most in bounds.items()
        if most and name not in CAPS
    ]
    ours = [name for name in CAPS if bounds.under(name) and not name.startswith("llm")]
    capped: dict[str, float | None] = {name: int(bounds.under(name)) for name in ours}
    notes = [
        f"{task.labelled_images} labelled images ({len(task.train)} train, {len(task.val)} val), "
        f"{len(task.classnames)} classes",
        "The test images are measured once at the end: that comes apart, and no cap holds it."
        + _baselines(setup, box),
        *_about(box, len(task.train)),
        *([announced()] if setup.model.undecided else []),
    ]
    notes += [
        f"The cap on {label(name)} ends this search before its last iteration."
        for name in ours
        if (cap := getattr(caps, name)) is not None and cap < bounds.under(name)
    ]
    if caps.llm_usd is not None and bounds["box_usd"] > caps.llm_usd:
        notes.append("The cap on money ends the search earlier if it comes to that.")
    stages = stage_bounds(setup, box)
    found = setup.findings
    notes += [f"warning: {text}" for text in found.warnings] + list(found.notes)
    if setup.llm is not None:
        from llmopt.language.plan import call_bounds, chat_bounds

        each = call_bounds(setup.llm, *setup.optimizer.talk(task))
        stages = {name: most + each * most["llm_calls"] for name, most in stages.items()}
        calls = int(bounds["llm_calls"])
        chat_capped, chat_notes = chat_bounds(setup.llm, caps, calls, each)
        capped |= chat_capped
        notes += chat_notes
    rows += [Bound(name, most, getattr(caps, name)) for name, most in capped.items()]
    title = (
        f"{task.dataset}, {task.shots}-shot, seed {task.seed}: {setup.optimizer.name}"
        + (f" with {setup.llm.spec}" if setup.llm is not None else "")
        + f" behind {setup.model.title}"
    )
    least = start_bounds(task, box)
    test = test_bounds(setup, box)
    notes += _usual(setup, box, bounds, test)
    return Plan(title, setup.config, tuple(rows), test, least, tuple(notes), stages=stages)


def _usual(setup: Setup, box: BlackBox | None, search: Spend, test: Spend) -> list[str]:
    """What is paid for so many pictures at what they usually take, where that is far less."""
    if box is None:
        return []
    task, told = setup.task, []
    prompts = task.start.fill_all(task.classnames)
    cap = setup.caps.image_encodings
    searched = int(search["image_encodings"])
    looks = {"the search": searched if cap is None else min(searched, cap)}
    for part, images in {**looks, "the test": int(test["image_encodings"])}.items():
        due = box.usual(images, prompts)
        if not due:
            return []
        told.append(
            f"{amount('box_tokens_in', due['box_tokens_in'])} tokens"
            + (f" and {amount('box_usd', usd)}" if (usd := due["box_usd"]) else "")
            + f" for {part}"
        )
    return [
        f"As many pictures usually take {' and '.join(told)}, more where the model reasons; "
        "searches seldom need all of them."
    ]


def _baselines(setup: Setup, box: BlackBox | None) -> str:
    names = chosen(setup.baselines, outside(box), len(setup.task.classnames))
    if not names:
        return ""
    return f" {size(names)} of its templates are baselines; --baselines none leaves them out."


def _about(box: BlackBox | None, images: int) -> list[str]:
    """What is sent to a box that is not just a model in this process."""
    if box is None or not outside(box):
        return []
    per_call = f"{box.images_per_call} images"
    if not together(box):
        sent = f"each image and each prompt is sent once, at most {per_call} a call"
    elif box.holds_images:
        sent = f"it holds images by name: each is sent once; at most {per_call} a call"
    else:
        sent = f"it takes all images again with each template, at most {per_call} a call"
        if first := few(images):
            sent += (
                f"; new templates meet {first} of {images} training images first, and the others "
                "unless they are clearly not among the best (the bounds count all)"
            )
    offered = f"{box.info.name} offers '{box.info.access}': {sent}. Calls that fail come on top."
    return [offered, *box.notes()]
