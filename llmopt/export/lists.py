"""Plain lists of templates: a text file, and the Python lists of open_clip and OpenAI's CLIP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from llmopt.export.base import Files, Format
from llmopt.export.prompts import PromptList, repeated, repeated_by_class


def write_txt(prompts: PromptList, warnings: list[str]) -> Files:
    """One template a line."""
    lines = repeated(prompts, warnings)
    return {"prompts.txt": encode("".join(f"{text}\n" for text in lines))}


def write_openclip(prompts: PromptList, warnings: list[str]) -> Files:
    """A Python file for ``open_clip.build_zero_shot_classifier``."""
    if prompts.by_class:
        return {"prompts_openclip.py": encode(_per_class(prompts, warnings))}
    text = (
        "# For open_clip.build_zero_shot_classifier(model, tokenizer, CLASSNAMES, TEMPLATES).\n"
        f"TEMPLATES = {literal(repeated(prompts, warnings))}\n\n"
        f"CLASSNAMES = {literal(prompts.names)}\n"
    )
    return {"prompts_openclip.py": encode(text)}


def _per_class(prompts: PromptList, warnings: list[str]) -> str:
    lists = repeated_by_class(prompts, warnings)
    longest = math.lcm(*map(len, lists))
    if longest > 4 * max(map(len, lists)):
        longest = max(map(len, lists))
        warnings.append(
            "classes have different numbers of prompts, which open_clip's lists can't hold: those "
            "of some classes count unequally (--format cupl or json keeps them)"
        )
    filled = [[own[n % len(own)] for n in range(longest)] for own in lists]
    return (
        "# For open_clip.build_zero_shot_classifier(model, tokenizer, LABELS, TEMPLATES).\n"
        "# Each class has prompts of its own: a template takes a label and gives the prompt.\n"
        f"CLASSNAMES = {literal(prompts.names)}\n\n"
        "LABELS = range(len(CLASSNAMES))\n\n"
        "PROMPTS = [\n" + "".join(f"    {own!r},\n" for own in filled) + "]\n\n"
        f"TEMPLATES = [lambda label, n=n: PROMPTS[label][n] for n in range({longest})]\n"
    )


def write_openai(prompts: PromptList, warnings: list[str]) -> Files:
    """The two lists of OpenAI's notebook and prompt page."""
    text = (
        f"classes = {literal(prompts.names)}\n\n"
        f"templates = {literal(repeated(prompts, warnings))}\n"
    )
    return {"prompts_openai.py": encode(text)}


def literal(texts: Sequence[str]) -> str:
    """A Python list, one text a line; what cannot be seen is escaped."""
    return "[\n" + "".join(f"    {text!r},\n" for text in texts) + "]"


def encode(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which a file name may hold, is written as an escape."""
    return text.encode("utf-8", "backslashreplace")


TXT: Final = Format(write_txt)
OPENCLIP: Final = Format(write_openclip, by_class=True)
OPENAI: Final = Format(write_openai)
