"""The reasoning that some models write before their answer, and the answer without it."""

from __future__ import annotations

import re

_THOUGHT_TAG = r"(?:think|thinking|thought|thoughts|reasoning|analysis|reflection)"
_THOUGHT = re.compile(
    rf"<\s*({_THOUGHT_TAG})\s*>.*?(?:<\s*/\s*\1\s*>|\Z)", re.IGNORECASE | re.DOTALL
)
_END_OF_THOUGHT = re.compile(rf"<\s*/\s*{_THOUGHT_TAG}\s*>", re.IGNORECASE)


def strip_reasoning(text: str) -> str:
    """A reply without the reasoning some models write before it.

    A thought that never ends was cut off by the length limit: nothing after its start is an answer.
    A closing tag without an opening one ends a thought that the model's own prompt opened.
    """
    _, channel, final = text.rpartition("<|channel|>final<|message|>")
    text = _THOUGHT.sub("", final if channel else text)
    return _END_OF_THOUGHT.split(text)[-1].strip()
