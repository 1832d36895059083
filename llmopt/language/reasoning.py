"""The reasoning that some models write before their answer, and the answer without it.

Servers can part the two, but many do not, or not for every model. The marks stand in one table:
tags that share a few shapes, and pairs that are spelled on their own.
"""

from __future__ import annotations

import re
from typing import Final

TAGS: Final = (
    "think", "thinking", "thought", "thoughts", "reasoning", "reason", "analysis", "reflection",
    "scratchpad", "inner_monologue", "chain_of_thought", "cot", "thinking_process",
    "thought_process", "antthinking", "seed:think", "mm:think",
)  # fmt: skip
SHAPES: Final = (("<{}>", "</{}>"), ("<|{}|>", "<|/{}|>"), ("◁{}▷", "◁/{}▷"))
PAIRS: Final = (
    # In square brackets a word may be a heading or a slot, so these are the exact tokens.
    ("[THINK]", "[/THINK]"),
    ("[THINKING]", "[/THINKING]"),
    ("[REASONING]", "[/REASONING]"),
    ("[unused16]", "[unused17]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|start_thinking|>", "<|end_thinking|>"),
    ("<|think_start|>", "<|think_end|>"),
    ("<|thinking_start|>", "<|thinking_end|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|im_start|>think", "<|im_start|>answer"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("Here is my thought process:", "Here is my response:"),
    ("Here's my thought process:", "Here's my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
ENDS: Final = ("<|channel|>final<|message|>", "assistantfinal")
"""What begins an answer, however the reasoning before it began."""
PLAIN_ENDS: Final = ("<|end|>",)
"""Ends of any message: without an opening mark, what stands before them is the answer."""

# What is left of a chat template's own tokens, with the role or channel that follows them. Those of
# CLIP's tokenizers are left to the cleaning of templates.
_TOKEN = re.compile(
    r"<\|(?:start|channel)\|>\w*|<\|(?!start_?of_?text|end_?of_?text)/?[a-z][\w:.-]{0,40}\|>"
    r"|\[END FINAL RESPONSE\]",
    re.IGNORECASE,
)


def marks() -> list[tuple[str, str]]:
    """Every pair of an opening and a closing mark."""
    return [(o.format(tag), c.format(tag)) for o, c in SHAPES for tag in TAGS] + list(PAIRS)


def _normal(mark: str) -> str:
    return "".join(mark.split()).lower()


_OPENING = {_normal(opening): _normal(closing) for opening, closing in marks()}
_TAG = "|".join(sorted(TAGS, key=len, reverse=True))
_SPELLED = "|".join(
    rf"(?-i:{re.escape(mark)})" if mark.startswith("[") else re.escape(mark)
    for mark in {mark: None for pair in (*PAIRS, ENDS) for mark in pair}
)
# Blanks may stand inside the brackets of a tag. The first character spares most of the search.
_MARK = re.compile(
    rf"(?=[<◁\[ha])(?:<\s{{0,9}}/?\s{{0,9}}(?:{_TAG})\s{{0,9}}>|<\|/?(?:{_TAG})\|>|◁/?(?:{_TAG})▷|{_SPELLED})",
    re.IGNORECASE,
)


def strip_reasoning(text: str) -> str:
    """A reply without the reasoning some models write before it.

    A thought that never ends was cut off by the length limit: nothing after its start is an answer,
    unless a closing mark of another kind stands there. A closing mark without an opening one ends a
    thought that the model's own prompt opened: the answer follows it, or else stands before.
    """
    answers: list[list[str]] = [[]]
    kept = other = 0  # where the answer goes on; where another kind's closing mark ended
    awaited = ""  # the closing mark of the thought that is open
    for found in _MARK.finditer(text):
        mark = _normal(found[0])
        if awaited:
            if mark == awaited:
                kept, awaited = found.end(), ""
            elif mark not in _OPENING:
                other = found.end()
            elif other:
                answers.append([text[other : found.start()]])
                awaited, other = _OPENING[mark], 0
        elif mark in _OPENING:
            answers[-1].append(text[kept : found.start()])
            awaited, other = _OPENING[mark], 0
        elif mark not in PLAIN_ENDS:
            answers[-1].append(text[kept : found.start()])
            answers.append([])
            kept = found.end()
    if not awaited:
        answers[-1].append(text[kept:])
    elif other:
        answers.append([text[other:]])
    said = (_TOKEN.sub(" ", "".join(answer)).strip() for answer in reversed(answers))
    return next(filter(None, said), "")
