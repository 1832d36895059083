"""What a chat model that sees says of a picture, as options and words.

A reply is outside text, asked for as options spelled as they were, and often something else: a
sentence, a list, JSON, a plural, another word for it, a refusal. Its parts are told apart, and of
each part the surest reading is taken. A part that is no option stays a word: a head may learn what
the model means by it (:mod:`llmopt.heads.answer_map`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from llmopt.language.reasoning import strip_reasoning
from llmopt.sentences import meant, mentioned
from llmopt.vision.spoken import LONGEST, RANKS, plain

_MOST: Final = 20_000
"""Characters of a reply that are looked at."""
_BULLET = re.compile(r"^\s*(?:[-*•–>#]+|\(?\d{1,3}[.):]|[A-Za-z][.)](?=\s))\s*")
_FENCE = re.compile(r"```\w*")
_CONCLUDES = re.compile(
    r"(?:^|\n|[.!] )[^\n.]{0,60}?\b(?:answer|class|option|label|choice)\b[^\n:.]{0,30}?"
    r"(?::|\bis\b|\bwould be\b)\s*([^\n]{1,200})",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{([^{}]{1,200})\}")
_FRAME = re.compile(
    r"^(?:it|this|that|there|the (?:picture|image|photo|photograph|object|thing|answer|class)"
    r"(?: here)?)(?:['’]s| is| was| shows?| depicts?| contains?| (?:looks?|seems?|appears?)"
    r"(?: (?:like|to be|to show))?)\b\s*",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:an?|the|one|some)\s+", re.IGNORECASE)
_DECLINES = re.compile(
    r"^\W*(?:(?:i['’]?m |i am )?(?:very |so )?sorry|apologies|unfortunately|as an ai"
    r"|i(?:['’]m| am) (?:not able|unable)|i (?:can(?:no|['’])t|can not|do(?:n['’]t| not)|won['’]t"
    r"|am not sure)|none of|no (?:option|match|answer)|unable to|cannot|can['’]t|unknown|unclear"
    r"|n/?a\b|not sure)",
    re.IGNORECASE,
)
_DENIES = re.compile(r"\bnot?\b|n['’]t\b", re.IGNORECASE)


def read(reply: str, options: Sequence[str]) -> list[str]:
    """The answers in a reply, the best first: options as they are spelled, or other words.

    Args:
        reply: what the model said.
        options: what it was asked to choose from.

    Returns:
        At most :data:`~llmopt.vision.spoken.RANKS` texts; none where it declines or says nothing.
    """
    text = _FENCE.sub(" ", strip_reasoning(reply[:_MOST])).strip()
    spelled = {plain(option): option for option in reversed(options)}
    if exact := spelled.get(plain(text)):
        return [exact]
    if (told := _from_json(text)) is not None:
        parts = told
    elif _DECLINES.search(text):
        return []
    else:
        parts = _parts(text, spelled)
    found = [one for part in parts for one in _meaning(part, options, spelled)]
    sure = [one for one in found if one in spelled.values()]
    # A reply in sentences is searched for options; what else it says is no answer.
    prose = len(text.split()) > 4 * max(1, len(parts))
    return list(dict.fromkeys(sure if sure and prose else found))[:RANKS]


def _parts(text: str, spelled: dict[str, str]) -> list[str]:
    """The pieces of a reply that are an answer each."""
    concluded = _BOXED.findall(text) or _CONCLUDES.findall(text)
    if concluded:
        text = concluded[-1]
    lines = [_BULLET.sub("", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) != 1 or plain(lines[0]) in spelled:
        return lines
    return [part for part in re.split(r"[,;/|]|\bor\b|(?<=\w)\. ", lines[0]) if part.strip()]


def _meaning(part: str, options: Sequence[str], spelled: dict[str, str]) -> list[str]:
    """The options that a piece names, or the piece as a word."""
    part = part.replace("*", "").strip()
    bare = _ARTICLE.sub("", _FRAME.sub("", part))
    for form in (part, bare):
        if option := spelled.get(plain(form)):
            return [option]
    if named := mentioned(part, options):
        return named
    if _DECLINES.search(part) or _DENIES.search(part):
        return []
    if other := meant(bare, options):
        return [other]
    word = plain(bare)
    return [word[:LONGEST]] if word else []


def _from_json(text: str) -> list[str] | None:
    """The texts in a reply that is JSON, or holds it; None for any other."""
    if text[:1] not in '{["':
        return None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return list(_texts(told, 4))[: 4 * RANKS]


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict) and depth:
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one, depth - 1)
