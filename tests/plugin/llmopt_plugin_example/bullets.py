"""``--format bullets``: templates as a list in Markdown."""

from __future__ import annotations

from llmopt.export.base import Files, Format
from llmopt.export.prompts import PromptList, repeated


def write(prompts: PromptList, warnings: list[str]) -> Files:
    """A bullet a template."""
    lines = [f"- {text}\n" for text in repeated(prompts, warnings)]
    return {"prompts.md": "".join(lines).encode()}


BULLETS = Format(write)
