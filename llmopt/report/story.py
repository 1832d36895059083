"""What happened in a run, read back from its journal.

The journal says what was scored and what was answered, in order; what each step had cost by then is
added up from it, so that a climb can be drawn over any currency.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from typing import Any, Final

from llmopt.errors import RunFolderError
from llmopt.runs import folder as run_folder
from llmopt.spend.currency import CAPS, Spend, is_money, label
from llmopt.spend.journal import read_journal

AXES: Final = {
    "proposals": "templates scored",
    "steps": "steps",
    **{
        name: f"{label(name)}, US dollars" if is_money(name) else label(name)
        for name in ("soft_prompt_encodings", "text_encodings", *CAPS)
        if name != "queries"
    },
}
"""What a climb is drawn over, and what it is called."""


@dataclass(frozen=True)
class Proposal:
    """A template that was scored on the training images.

    Attributes:
        text: the template.
        stream: the conversation it belongs to.
        accuracy, logprob: on the training images.
        at: what had been spent by then, by name in :data:`AXES`.
    """

    text: str
    stream: str
    accuracy: float
    logprob: float
    at: dict[str, float]

    @property
    def likelihood(self) -> float:
        """Of the true class, its geometric mean over the images: a fraction."""
        return exp(min(self.logprob, 0.0))


@dataclass(frozen=True)
class Step:
    """A step of a continuous search.

    Attributes:
        index: counted from 0.
        figures: everything it journaled: ``fitness`` or ``loss``, ``sigma``, accuracies …
        at: what had been spent by then, by name in :data:`AXES`.
    """

    index: int
    figures: dict[str, float]
    at: dict[str, float]


_PURPOSE: Final = re.compile(r"^This turn (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Turn:
    """One exchange with the language model.

    Attributes:
        asked: what was new in the messages sent.
        reply: the answer; empty if none came.
    """

    asked: str
    reply: str

    @property
    def purpose(self) -> str:
        """What the turn is for, where it says so: ``explores``, ``deepens`` …"""
        found = _PURPOSE.search(self.asked)
        return found[1] if found else ""


@dataclass
class Story:
    """A run, told in order.

    Attributes:
        proposals: templates scored.
        steps: of a continuous search.
        talks: turns of each conversation.
        instructions: what every conversation began with.
    """

    proposals: list[Proposal] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    talks: dict[str, list[Turn]] = field(default_factory=dict)
    instructions: str = ""

    @property
    def axes(self) -> list[str]:
        """Currencies the climb moves along."""
        last = (self.proposals or self.steps)[-1].at if self.proposals or self.steps else {}
        return [name for name in AXES if last.get(name)]

    def climb(self, by: str = "likelihood") -> list[Proposal]:
        """Each proposal that was better than all before it, in what the search ranks by."""
        best: list[Proposal] = []
        for proposal in self.proposals:
            if not best or getattr(proposal, by) > getattr(best[-1], by):
                best.append(proposal)
        return best


def read_story(folder: Path, classes: int) -> Story:
    """The story of a run; records of other kinds are passed over.

    Raises:
        RunFolderError: the journal is missing or damaged.
    """
    path = folder / run_folder.JOURNAL
    try:
        return tell(read_journal(path), classes)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged: a record in it is not of its kind ({error!r:.80})"
        ) from error


def tell(records: Iterable[dict[str, Any]], classes: int) -> Story:
    """The story that journal records tell.

    Args:
        records: in order.
        classes: prompts a template takes.
    """
    story = Story()
    spent = dict.fromkeys(AXES, 0.0)
    asked: dict[tuple[str, Any], str] = {}
    for record in records:
        data, stream = record["data"], str(record["stream"])
        spent["seconds"] = float(record["at"])
        if record["kind"] == "scored":
            for entry in data["templates"]:
                spent["proposals"] += 1
                spent["text_encodings"] += classes
                figures = float(entry["train_accuracy"]), float(entry["train_logprob"])
                story.proposals.append(Proposal(entry["text"], stream, *figures, dict(spent)))
        elif record["kind"] == "llm_intent":
            messages = data.get("messages") or []
            story.instructions = story.instructions or _said(messages[:1], "system")
            asked[stream, record.get("key")] = _said(messages[-1:])
        elif record["kind"] == "llm_reply":
            charged = data.get("charged", {})
            paid = Spend.read({"llm_calls": 1, **charged})
            for cap in ("llm_calls", "llm_tokens", "llm_usd"):
                spent[cap] += paid.under(cap)
            question = asked.pop((stream, record.get("key")), "")
            story.talks.setdefault(stream, []).append(Turn(question, data.get("text", "")))
        elif record["kind"] in ("step", "generation"):
            figures_ = {k: float(v) for k, v in data.items() if isinstance(v, (int, float))}
            index = int(figures_.pop("index", len(story.steps)))
            spent["steps"] = index + 1
            spent["soft_prompt_encodings"] = figures_.pop("soft_prompt_encodings", 0.0)
            story.steps.append(Step(index, figures_, dict(spent)))
    return story


def _said(messages: Sequence[Sequence[str]], role: str | None = None) -> str:
    return "\n\n".join(text for who, text in messages if role is None or who == role)
