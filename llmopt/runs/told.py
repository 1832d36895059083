"""What a search did with its language model, told from its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Counts of a text search whose names are not yet plurals for people.
_LABELS: Final = {
    "refusal": "refusals",
    "slots": "without exactly one {}",
    "classname": "naming a class",
    "surplus": "too many",
}


def counts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of a search that are not zero, under names for people."""
    said: dict[str, Any] = {}
    for name, value in summary.items():
        label = _LABELS.get(name, name.replace("_", " "))
        if value not in (None, "", 0):
            said[label] = said[label] + value if label in said else value
    return said


def unaided(result: Mapping[str, Any]) -> str:
    """A sentence for a search to which its language model contributed nothing; else empty."""
    search = result["optimizer"]
    summary: Mapping[str, int] = search.get("summary") or {}
    replies, turned_down = summary.get("calls", 0), summary.get("refusals", 0)
    asked = replies + turned_down
    if not asked or summary.get("scored"):
        return ""
    refused = turned_down + summary.get("refusal", 0)
    why = f"it refused every question ({asked} asked)"
    if refused < asked:
        why = f"not one of its {replies} replies held a new template"
    source = " What was found comes from llmopt's own pool of templates."
    kept = result["best"]["fallback"]
    return f"{search.get('llm')} contributed nothing: {why}.{'' if kept else source}"
