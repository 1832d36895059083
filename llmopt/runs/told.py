"""What a search did with its language model, told from its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llmopt.figures import percent
from llmopt.search.base import LANGUAGE_MODEL, NOTHING_LEFT
from llmopt.spend.currency import briefly

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
        if name == "stages":
            continue
        label = _LABELS.get(name, name.replace("_", " "))
        if value not in (None, "", 0):
            said[label] = said[label] + value if label in said else value
    return said


STAGES: Final = ("stage", "kept", "on the few shots", "spent", "why")
"""Headings of :func:`stages`."""


def stages(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What each stage of a search brought, cost, and why it was kept; rows of texts."""
    return [
        (
            one["name"],
            "yes" if one["kept"] else "no",
            " → ".join(map(percent, one["accuracy"] or ())),
            briefly(one["spent"]),
            one["why"]
            + (
                ""
                if one["gain_nats"] is None
                else f": {one['gain_nats']:+.2f} ± {one['se']:.2f} nats"
            ),
        )
        for one in summary.get("stages", ())
    ]


def of_classes(best: Mapping[str, Any], shown: int = 3) -> list[tuple[str, str]]:
    """What was found for single classes, under headings, as sentences for people.

    Args:
        best: as a result holds it.
        shown: names, at most.
    """
    told: list[tuple[str, str]] = []
    if names := best.get("names"):
        first = ", ".join(f"{old} → {new}" for old, new in [*names.items()][:shown])
        more = f" … ({len(names):,} in all)" if len(names) > shown else ""
        told.append(("names", first + more))
    if own := best.get("described"):
        told.append(("own", f"{own['prompts']:,} prompts for {own['classes']:,} of the classes"))
    return told


def unaided(result: Mapping[str, Any]) -> str:
    """A sentence for a search to which its language model contributed nothing; else empty."""
    search, best = result["optimizer"], result["best"]
    summary: Mapping[str, int] = search.get("summary") or {}
    llm, source = search.get("llm"), best.get("source", "")
    replies, turned_down = summary.get("calls", 0), summary.get("refusals", 0)
    asked, scored = replies + turned_down, summary.get("scored", 0)
    if not asked:
        done = result.get("stop_reason") == NOTHING_LEFT
        return f"{llm} was not asked: the probes left nothing to gain on the few shots." * done
    refused = turned_down + summary.get("refusal", 0)
    if not scored and refused >= asked:
        why = f"it refused every question ({asked} asked)"
    elif not scored:
        why = f"not one of its {replies} replies held a new template"
    elif source and source != LANGUAGE_MODEL and not best["fallback"]:
        why = f"none of its {scored} new templates was better"
    else:
        return ""
    found = f" What was found comes from {source or 'llmopt itself'}."
    return f"{llm} contributed nothing: {why}.{'' if best['fallback'] else found}"
