"""``llmopt docs``: the words llmopt prints, explained."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from llmopt.cli import options as o

GLOSSARY: Final = Path(__file__).with_name("glossary.toml")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(docs)


def docs(
    term: Annotated[
        list[str] | None, typer.Argument(help="A word; all are named if left out.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Explain a word that llmopt prints: likelihood, nats, waypoint …"""
    from llmopt.cli.show import console, print_json, say

    entries = glossary()
    found = {
        name: entries[name] for name in ([_find(" ".join(term), entries)] if term else entries)
    }
    if json:
        print_json({name: entry["text"] for name, entry in found.items()})
        return
    out = console()
    if not term:
        say(out, ", ".join(found))
        say(out, "llmopt docs TERM explains one.")
    for name, entry in found.items() if term else ():
        also = ", ".join(entry.get("also", ()))
        say(out, name + (f"  (also: {also})" if also else ""), "bold")
        say(out, entry["text"])


def glossary() -> dict[str, dict[str, Any]]:
    """Every term: ``text``, and ``also``, other names for it."""
    entries = tomllib.loads(GLOSSARY.read_text(encoding="utf-8"))
    return {name: entry | {"text": entry["text"].strip()} for name, entry in entries.items()}


def _find(asked: str, entries: dict[str, dict[str, Any]]) -> str:
    """The term that a word stands for.

    Raises:
        ConfigError: it is not explained; the nearest is suggested.
    """
    from llmopt.errors import ConfigError, nearest

    names = {
        _plain(word): name for name, entry in entries.items() for word in entry.get("also", ())
    }
    names |= {_plain(name): name for name in entries}
    if _plain(asked) in names:
        return names[_plain(asked)]
    raise ConfigError(
        f"'{asked}' is not explained{nearest(_plain(asked), names)}; 'llmopt docs' names the terms"
    )


def _plain(word: str) -> str:
    return word.casefold().replace("-", " ").replace("_", " ").strip()
