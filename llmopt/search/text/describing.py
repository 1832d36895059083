"""Asking a language model what classes look like, and reading what it says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from string import Template as Wording
from typing import Any

from llmopt.data.descriptions import names_class, normal, usable
from llmopt.errors import ContentRefused, ContextOverflow
from llmopt.language.reasoning import strip_reasoning
from llmopt.resources import read_prompt
from llmopt.search.base import Search
from llmopt.search.text.conversation import enumerate_names
from llmopt.template import display_name

LONGEST = 400
"""Characters of a caption; CLIP's 77 tokens seldom hold more."""

_MOST_READ = 200_000
_ITEM = re.compile(r"^\s*(?:[-*•–]|\d{1,3}[.)])\s+(\S.*?)\s*$")
_DECORATION = re.compile(r"^[\s#*_>`\d.)(]+|[\s:*_`]+$")


def describe(
    search: Search,
    labels: Sequence[int],
    count: int,
    batch: int,
    counts: Counter[str],
    about: str = "",
) -> dict[int, list[str]]:
    """Captions of classes, a few classes a call; those that came back without any are asked again.

    Args:
        search: task and chat model.
        labels: of the classes.
        count: captions of each.
        batch: classes a call.
        counts: ``calls``, ``refusals`` and ``proposals`` are added to.
        about: what the pictures are.
    """
    found: dict[int, list[str]] = {}
    turn = 0
    for left in (list(labels), None):
        asked = [k for k in labels if not found.get(k)] if left is None else left
        for start in range(0, len(asked), batch):
            some = asked[start : start + batch]
            names = [display_name(search.task.classnames[k]) for k in some]
            text = _filled(
                "describe/first.txt",
                sentence=search.task.start.fill(names[0]),
                classes=enumerate_names(search.task.classnames),
                about=f"What the pictures are: {about}\n" if about else "",
                count=str(count),
                asked="\n".join(names),
            )
            _merge(found, _ask(search, text, some, turn, counts), count)
            turn += 1
    counts["proposals"] += sum(map(len, found.values()))
    return found


def contrast(
    search: Search, pairs: Sequence[tuple[int, int]], count: int, counts: Counter[str]
) -> dict[int, list[str]]:
    """Captions that tell confused classes apart, in one call."""
    names = search.task.classnames
    listed = "\n".join(
        f'* "{display_name(names[a])}" is taken for "{display_name(names[b])}"' for a, b in pairs
    )
    labels = sorted({k for pair in pairs for k in pair})
    text = _filled("describe/contrast.txt", pairs=listed, count=str(count))
    found: dict[int, list[str]] = {}
    _merge(found, _ask(search, text, labels, 0, counts, "contrast"), count)
    counts["proposals"] += sum(map(len, found.values()))
    return found


def parse_captions(reply: str, names: Sequence[str]) -> list[list[str]]:
    """The captions of each class in a reply, as JSON or as names with lists below them.

    A caption that names another class of those asked for, and not its own, is left out.
    """
    text = strip_reasoning(reply)[:_MOST_READ]
    places = {normal(name): place for place, name in enumerate(names)}
    found: list[list[str]] = [[] for _ in names]
    for name, caption in _json_items(text) or _listed(text, places):
        if (place := places.get(normal(name))) is None:
            continue
        wrong = any(names_class(caption, other) for other in names if other != names[place])
        if len(caption) <= LONGEST and (names_class(caption, names[place]) or not wrong):
            found[place].append(caption)
    return [usable(captions) for captions in found]


def _listed(text: str, places: dict[str, int]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    name = ""
    for line in text.splitlines():
        bare = _DECORATION.sub("", line)
        head, colon, rest = bare.partition(":")
        if normal(bare) in places:
            name = bare
        elif colon and normal(head) in places:
            name = head
            found += [(name, rest.strip())] if rest.strip() else []
        elif item := _ITEM.match(line):
            found += [(name, item[1].strip("\"“”'*_ "))] if name else []
        elif line.rstrip().endswith(":"):  # of a class that was not asked for
            name = ""
    return found


def _json_items(text: str) -> list[tuple[str, str]]:
    """``{class: [captions]}`` anywhere in a reply."""
    start = text.find("{")
    try:
        value: Any = json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, dict):
        return []
    return [
        (name, caption)
        for name, captions in value.items()
        for caption in ([captions] if isinstance(captions, str) else captions)
        if isinstance(captions, (str, list)) and isinstance(caption, str)
    ]


def _ask(
    search: Search,
    text: str,
    labels: Sequence[int],
    turn: int,
    counts: Counter[str],
    stream: str = "describe",
) -> dict[int, list[str]]:
    from langchain_core.messages import HumanMessage

    assert search.chat is not None  # the engine sees to it
    try:
        reply = search.chat.ask([HumanMessage(text)], stream=stream, turn=turn)
    except (ContentRefused, ContextOverflow):
        counts["refusals"] += 1
        return {}
    counts["calls"] += 1
    names = [search.task.classnames[k] for k in labels]
    return dict(zip(labels, parse_captions(reply.text, names), strict=True))


def _merge(found: dict[int, list[str]], new: dict[int, list[str]], most: int) -> None:
    for label, captions in new.items():
        known = found.setdefault(label, [])
        known += [one for one in captions if one not in known][: most - len(known)]


def _filled(prompt: str, **fill: str) -> str:
    text = Wording(read_prompt(prompt)).safe_substitute(fill)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
