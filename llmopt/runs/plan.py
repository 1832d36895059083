"""``llmopt plan``: the most a run can spend, before anything is spent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from llmopt.errors import BudgetTooSmall
from llmopt.heads import HEADS
from llmopt.heads.bank import default_bank
from llmopt.runs.compose import Setup
from llmopt.runs.config import RunConfig
from llmopt.search.soft.machinery.trail import WIDEST
from llmopt.spend.currency import CAPS, Spend, amount, label


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
        rows: upper bounds and caps.
        needed: queries without which there is no result at all.
        notes: what is worth knowing before starting.
    """

    title: str
    config: RunConfig
    rows: tuple[Bound, ...]
    needed: int
    notes: tuple[str, ...]

    def refuse_unpayable(self) -> None:
        """Raise if the caps do not pay for any result.

        Raises:
            BudgetTooSmall: with the smallest cap that would do.
        """
        cap = self.config.max_queries
        if cap is not None and cap < self.needed:
            raise BudgetTooSmall(
                f"--max-queries {cap} does not even pay for scoring the start template: "
                f"it takes {self.needed} (one prompt a class)"
            )

    def to_json(self) -> dict[str, Any]:
        """What ``llmopt plan --json`` prints."""
        return {
            "schema": 1,
            "upper_bounds": {row.name: row.most for row in self.rows},
            "caps": {row.name: row.cap for row in self.rows if row.cap is not None},
            "needed_queries": self.needed,
            "notes": list(self.notes),
            "config": dataclasses.asdict(self.config),
        }


def run_bounds(setup: Setup) -> Spend:
    """Upper bounds of a whole run: the search, the head, and the few shots measured at its end."""
    task = setup.task
    bounds = setup.optimizer.bounds(task)
    classes, few = len(task.classnames), len(task.train) + len(task.val)
    contexts = prompts = views = 0
    if bounds["soft_prompt_encodings"]:
        contexts = 2  # what was found, on training and on validation images
    if setup.heads:
        contexts *= 2
        views = setup.head_views * len(task.train)
        if any(HEADS.get(name).looks_at_features for name in setup.heads):
            contexts += bool(contexts)  # its text features
            bank = default_bank(task.classnames)  # if the black box gives scores only
            prompts = len(bank.templates) * classes + len(bank.phrases)
    more = Spend(
        image_encodings=max(few - bounds["image_encodings"], 0)
        + (few if bounds["soft_prompt_encodings"] else 0)
        + views,
        text_encodings=max(classes - bounds["text_encodings"], 0) + prompts,
        soft_prompt_encodings=contexts * classes,
        pairs_scored=((2 + contexts) * classes + prompts) * (few + views)
        + (WIDEST * classes if setup.heads else 0),
    )
    return bounds + more


def make_plan(setup: Setup) -> Plan:
    """The plan of a run. Opens no model and spends nothing."""
    task, caps = setup.task, setup.caps
    bounds = run_bounds(setup)
    rows = [Bound(name, int(most)) for name, most in bounds.items() if most and name not in CAPS]
    queries = int(bounds.queries)
    capped: dict[str, float | None] = {"queries": queries}
    notes = [
        f"{task.labelled_images} labelled images ({len(task.train)} train, {len(task.val)} val), "
        f"{len(task.classnames)} classes",
        "The test images are measured once at the end, apart from this.",
    ]
    found = setup.examine()
    notes += [f"warning: {text}" for text in found.warnings] + list(found.notes)
    if caps.queries is not None and caps.queries < queries:
        notes.append("The cap on queries ends this search before its last iteration.")
    if setup.llm is not None:
        from llmopt.language.plan import chat_bounds

        turns, turn_bytes = setup.optimizer.talk(task)
        calls = int(bounds["llm_calls"])
        chat_capped, chat_notes = chat_bounds(setup.llm, caps, calls, turns, turn_bytes)
        capped |= chat_capped
        notes += chat_notes
    rows += [Bound(name, most, getattr(caps, name)) for name, most in capped.items()]
    title = (
        f"{task.dataset}, {task.shots}-shot, seed {task.seed}: {setup.optimizer.name}"
        + (f" with {setup.llm.spec}" if setup.llm is not None else "")
        + f" behind {setup.model.title}"
    )
    return Plan(title, setup.config, tuple(rows), len(task.classnames), tuple(notes))
