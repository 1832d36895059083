"""What the published forms of ``chat`` say to the language model, and how they read its replies.

The wording lies in ``prompts/meta/published/``, an opening message for each kind of lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template as Wording
from typing import TYPE_CHECKING, Final

from llmopt.errors import TemplateError
from llmopt.resources import read_prompt
from llmopt.search.text.archive import Scored
from llmopt.template import Template

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

LONGEST: Final = 400
"""Characters of a template; no prompt of a contrastive model has room for more."""


def opening(
    good: Sequence[Scored], others: Sequence[Scored], kind: str, count: int
) -> list[BaseMessage]:
    """The message that shows the lists, without scores."""
    from langchain_core.messages import HumanMessage

    lists = {"good": good, "others": others}
    texts = {name: "\n".join(f"- {one.template}" for one in some) for name, some in lists.items()}
    wording = Wording(read_prompt(f"meta/published/{kind if others else 'good'}.txt"))
    return [HumanMessage(wording.safe_substitute(texts, count=str(count)).strip())]


def feedback(reply: str, results: Sequence[Scored], before: float, count: int) -> list[BaseMessage]:
    """What was answered, and the message that tells what became of it.

    Args:
        reply: as it came.
        results: its templates.
        before: accuracy of the template before the first of them.
        count: templates to ask for next.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    lines = []
    for one in results:
        moved = "improves" if one.fitness > before else "drops" if one.fitness < before else "stays"
        way = "at" if moved == "stays" else "to"
        lines.append(f'With "{one.template}" the accuracy {moved} {way} {100 * one.fitness:.2f}%.')
        before = one.fitness
    wording = Wording(read_prompt("meta/published/feedback.txt"))
    told = wording.safe_substitute(results="\n".join(lines), count=str(count))
    return [AIMessage(reply), HumanMessage(told.strip())]


def read_proposals(reply: str) -> list[Template]:
    """The templates of a reply: what follows ``- `` at the beginning of a line.

    Raises:
        TemplateError: one of them is no template, or there is none.
    """
    lines = [line[2:] for line in reply.splitlines() if line.startswith("- ")]
    if not lines or max(map(len, lines)) > LONGEST:
        raise TemplateError("no line begins with '- ', or one is far too long")
    return [Template(line) for line in lines]
