"""Descriptions of classes as others publish them: JSON or JSON lines, in the shapes below.

=============== ================================================ ==============================
shape           file                                             published so by
=============== ================================================ ==============================
by class        ``{"cat": ["A cat has …", …], …}``               CuPL, DCLIP, our own export
by data set     ``{"pets": {"cat": ["A cat has …", …]}, …}``     CLIP_benchmark
in groups       ``{"cat": {"question": ["A cat …", …]}, …}``     MPVR
records         ``[{"class": "cat", "descriptions": […]}, …]``   ProAPO; also one record a line
=============== ================================================ ==============================

Texts are sentences, used as they are, or phrases (DCLIP: ``whiskers``), which are joined to a
template: most of them neither name their class nor end with a full stop. A ``{}`` in a text stands
for the class name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmopt.errors import ConfigError
from llmopt.images import regular
from llmopt.template import SLOT, Template, clean, display_name

MAX_BYTES: Final = 64 * 2**20
MAX_TEXTS: Final = 1000
"""Descriptions of a class."""

MAX_CHARS: Final = 1000
"""Characters of a description."""

_NAMES = ("class", "classname", "name", "label")
_TEXTS = ("descriptions", "description", "prompts", "prompt", "sentences", "captions", "texts")


@dataclass(frozen=True)
class Descriptions:
    """What is said of each class.

    Attributes:
        texts: K lists, in label order; empty for a class of which nothing is said.
        shape: of the file.
        phrases: whether the texts are phrases, to be joined to a template.
        others: entries of the file that are no class of the task.
    """

    texts: tuple[tuple[str, ...], ...]
    shape: str
    phrases: bool
    others: int = 0

    def prompts(self, template: Template, classnames: Sequence[str]) -> list[list[str]]:
        """K lists of whole prompts."""
        return [
            [joined(template.fill(name), text) if self.phrases else text for text in texts]
            for name, texts in zip(classnames, self.texts, strict=True)
        ]


def read_descriptions(
    path: Path, classnames: Sequence[str], called: Sequence[str] = ()
) -> Descriptions:
    """The descriptions of the classes of a task, from a file.

    Args:
        path: of the file.
        classnames: K names, which are found whatever their case, spacing and punctuation.
        called: K names that take the place of ``{}`` in a text; those of the file if empty.

    Raises:
        ConfigError: the file is not of a known shape (the line is named), too large, or describes
            no class of the task.
    """
    try:
        regular(path, MAX_BYTES)
        source = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"descriptions {path} cannot be read: {why}") from error
    entries, shape = _entries(path, source, {normal(name) for name in classnames})
    found: dict[str, list[str]] = {}
    for name, texts in entries:
        found[normal(name)] = list(dict.fromkeys([*found.get(normal(name), []), *texts]))
    described = [
        tuple(text.replace(SLOT, display_name(other)) for text in found.get(normal(name), ()))
        for name, other in zip(classnames, called or classnames, strict=True)
    ]
    if not any(described):
        some = ", ".join(repr(name) for name, _ in entries[:3])
        raise ConfigError(
            f"descriptions {path} describe no class of this task: they name {some} …, "
            f"the task {', '.join(map(repr, classnames[:3]))} …; are they of another data set?",
            docs="descriptions",
        )
    others = len(found.keys() - {normal(name) for name in classnames})
    return Descriptions(tuple(described), shape, _are_phrases(classnames, described), others)


def joined(sentence: str, phrase: str) -> str:
    """A phrase at the end of a sentence: ``a photo of a cat, which has whiskers.``"""
    first = phrase.split(" ", 1)[0].lower()
    if first in ("a", "an", "used", "usually", "made"):
        phrase = f"which is {phrase}"
    elif first in ("has", "have", "often", "typically", "may", "can", "is"):
        phrase = f"which {phrase}"
    elif first not in ("which", "with", "in", "on", "of", "that"):
        phrase = f"which has {phrase}"
    return f"{sentence.rstrip(' .')}, {phrase.rstrip(' .')}."


def normal(name: str) -> str:
    """A class name without case, spacing and punctuation."""
    return re.sub(r"[\W_]+", "", clean(name).casefold())


def names_class(text: str, name: str) -> bool:
    """Whether a text names a class."""
    return normal(name) in normal(text)


def _are_phrases(classnames: Sequence[str], texts: Sequence[Sequence[str]]) -> bool:
    whole = [
        names_class(text, name) or text.endswith((".", "!"))
        for name, some in zip(classnames, texts, strict=True)
        for text in some
    ]
    return 2 * sum(whole) < len(whole)


Entries = list[tuple[str, list[str]]]


def _entries(path: Path, source: str, classes: set[str]) -> tuple[Entries, str]:
    """Names and texts, and the shape of the file."""
    found = _json(path, source)
    if isinstance(found, list):
        return [_record(path, source, one) for one in found], "records"
    if not isinstance(found, dict) or not found:
        raise _wrong(path, 1, "it holds neither classes nor records")
    if not all(isinstance(value, dict) for value in found.values()):
        return [
            (name, _texts(path, source, name, value)) for name, value in found.items()
        ], "by class"
    matched = {name: len({normal(n) for n in inner} & classes) for name, inner in found.items()}
    if not {normal(name) for name in found} & classes and any(matched.values()):
        chosen = found[max(matched, key=lambda name: matched[name])]
        return [
            (name, _texts(path, source, name, value)) for name, value in chosen.items()
        ], "by data set"
    return [
        (name, [text for group in value.values() for text in _texts(path, source, name, group)])
        for name, value in found.items()
    ], "in groups"


def _json(path: Path, source: str) -> Any:
    try:
        return json.loads(source)
    except json.JSONDecodeError as error:
        first = error
    except (RecursionError, ValueError) as error:
        raise _wrong(path, 1, "it is nested too deeply or holds a number of no use") from error
    lines = [line for line in source.splitlines() if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith("{") for line in lines[:2]):
        raise _wrong(path, first.lineno, f"it is not JSON: {first.msg}") from first
    records = []
    for number, line in enumerate(source.splitlines(), 1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (RecursionError, ValueError) as error:
                raise _wrong(path, number, "it is not a record in JSON") from error
    return records


def _record(path: Path, source: str, record: Any) -> tuple[str, list[str]]:
    if not isinstance(record, Mapping):
        raise _wrong(path, _line(source, record), "it is not a record with a class")
    name = next((record[key] for key in _NAMES if isinstance(record.get(key), str)), None)
    texts = next((record[key] for key in _TEXTS if key in record), None)
    if name is None or texts is None:
        line = _line(source, name or next(iter(record), ""))
        raise _wrong(path, line, f"a record needs one of {_NAMES} and one of {_TEXTS}")
    return name, _texts(path, source, name, texts)


def _texts(path: Path, source: str, name: str, value: Any) -> list[str]:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        line = _line(source, name)
        raise _wrong(path, line, f"what is said of {name!r:.60} must be a list of texts")
    return usable(value)


def usable(texts: Iterable[str]) -> list[str]:
    """Texts cleaned, without empty ones, repeats and what is too long, as many as are taken."""
    cleaned = (clean(text) for text in texts)
    kept = [text for text in cleaned if text and len(text) <= MAX_CHARS]
    return list(dict.fromkeys(kept))[:MAX_TEXTS]


def _line(source: str, value: Any) -> int:
    """The line where a value stands first, 1 if it is not found as it is."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        if (place := source.find(text)) >= 0:
            return source.count("\n", 0, place) + 1
    return 1


def _wrong(path: Path, line: int, what: str) -> ConfigError:
    return ConfigError(
        f"descriptions {path}, line {line}: {what}; known are {{class: [texts]}}, "
        "{data set: {class: [texts]}}, {class: {group: [texts]}} and records",
        docs="descriptions",
    )
