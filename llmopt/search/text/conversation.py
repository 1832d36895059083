"""What is said to the language model, turn by turn.

The wording lives in ``prompts/meta/``; this module fills it in and keeps the history within
bounds. Scored templates are always written one a line as ``- TEXT (score -0.51, accuracy 58.3%)``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import Template as Wording
from typing import TYPE_CHECKING, Any

from llmopt.resources import read_prompt

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from PIL import Image as PillowImage

    from llmopt.search.text.archive import Scored

CLASSES_SHOWN = 40
PICTURE_SIZE = 256
REPLY_CHARS = 4000  # of a reply that is sent along later; a useful one is shorter


@dataclass(frozen=True)
class Lists:
    """The templates a turn shows.

    Attributes:
        good: best first.
        others: the contrast: worst first, or a random draw; empty for none.
        others_title: how the contrast is announced.
    """

    good: Sequence[Scored]
    others: Sequence[Scored] = ()
    others_title: str = "Templates that work badly, worst first:"


@dataclass(frozen=True)
class Picture:
    """An image to show to a model that can see, with what is to be said of it."""

    image: PillowImage.Image
    caption: str


@dataclass
class Conversation:
    """One conversation with the model.

    Attributes:
        classnames: of the task.
        scores: whether scores are shown.
        memory: whether earlier turns are sent along; without it each turn stands alone.
        max_turns: how many earlier turns are sent at most; older ones are forgotten, the lists of
            the newest turn keep the best and the worst.
    """

    classnames: Sequence[str]
    scores: bool = True
    memory: bool = True
    max_turns: int = 20
    _history: list[tuple[BaseMessage, BaseMessage]] = field(default_factory=list)
    _asked: BaseMessage | None = None

    def __len__(self) -> int:
        """Turns remembered."""
        return len(self._history)

    def turn(
        self,
        lists: Lists,
        count: int,
        results: Sequence[Scored] = (),
        notes: Sequence[str] = (),
        confusions: Sequence[str] = (),
        pictures: Sequence[Picture] = (),
    ) -> list[BaseMessage]:
        """The messages of the next turn."""
        from langchain_core.messages import HumanMessage

        fill = {
            "classes": enumerate_names(self.classnames),
            "good": self._lines(lists.good),
            "others": self._others(lists),
            "confusions": _paragraph("The classes it confuses most:", confusions),
            "count": str(count),
            "results": self._lines(results) or "(none of them could be used)",
            "notes": _paragraph("Not used:", notes),
        }
        name = "meta/next.txt" if self._history else "meta/first.txt"
        text = _squeeze(Wording(read_prompt(name)).safe_substitute(fill))
        self._asked = HumanMessage(_with_pictures(text, pictures) if pictures else text)
        return self._messages(self._asked)

    def heard(self, reply: str) -> None:
        """Remember what the model answered."""
        from langchain_core.messages import AIMessage

        if self._asked is not None and self.memory:
            self._history.append((self._asked, AIMessage(reply[:REPLY_CHARS])))
            del self._history[: -self.max_turns]
        self._asked = None

    def compact(self) -> list[BaseMessage] | None:
        """The messages of this turn with the older half of the history forgotten.

        None if there is nothing left to forget.
        """
        if not self._history or self._asked is None:
            return None
        self._history = self._history[(len(self._history) + 1) // 2 :]
        return self._messages(self._asked)

    def _messages(self, asked: BaseMessage) -> list[BaseMessage]:
        from langchain_core.messages import SystemMessage

        history = [message for pair in self._history for message in pair]
        return [SystemMessage(read_prompt("meta/system.txt")), *history, asked]

    def _lines(self, scored: Sequence[Scored]) -> str:
        return "\n".join(line(one, self.scores) for one in scored)

    def _others(self, lists: Lists) -> str:
        return f"{lists.others_title}\n{self._lines(lists.others)}" if lists.others else ""


def rephrase(count: int) -> BaseMessage:
    """What is added once when the model declines."""
    from langchain_core.messages import HumanMessage

    return HumanMessage(Wording(read_prompt("meta/rephrase.txt")).safe_substitute(count=str(count)))


def line(scored: Scored, scores: bool = True) -> str:
    """A template as a list item, with its scores or without."""
    if not scores:
        return f"- {scored.template.text}"
    return f"- {scored.template.text} (score {scored.score}, accuracy {100 * scored.accuracy:.1f}%)"


def enumerate_names(names: Sequence[str], limit: int = CLASSES_SHOWN) -> str:
    """Class names as a list for reading, cut when there are many."""
    shown = ", ".join(name.replace("_", " ") for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _with_pictures(text: str, pictures: Sequence[Picture]) -> list[str | dict[Any, Any]]:
    """A message that shows pictures, each at most 256 pixels wide and high."""
    captions = "; ".join(picture.caption for picture in pictures)
    note = Wording(read_prompt("meta/images.txt")).safe_substitute(captions=captions)
    parts: list[str | dict[Any, Any]] = [{"type": "text", "text": f"{text}\n\n{note.strip()}"}]
    for picture in pictures:
        small = picture.image.convert("RGB")
        small.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
        buffer = io.BytesIO()
        small.save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        url = {"url": f"data:image/png;base64,{data}"}
        parts.append({"type": "image_url", "image_url": url})
    return parts


def _paragraph(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"* {text}" for text in lines), ""]) if lines else ""


def _squeeze(text: str) -> str:
    """No run of blank lines where a part stayed empty."""
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()
