"""``llmopt docs``: pages of the documentation, and the words llmopt prints, explained."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmopt.cli import options as o
from llmopt.cli.reference import PAGES, glossary, page


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(docs)


def docs(
    topic: Annotated[
        list[str] | None, typer.Argument(help="A page or a word; all are named if left out.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Show a page of the documentation, or explain a word: likelihood, nats …"""
    from llmopt.cli.show import console, print_json, print_text, say

    entries, pages = glossary(), guides()
    out = console()
    if not topic:
        if json:
            print_json({name: entry["text"] for name, entry in entries.items()} | pages)
            return
        for title, names in (("pages", pages), ("reference", PAGES), ("words", entries)):
            say(out, f"{title}: {', '.join(names)}")
        say(out, "llmopt docs TOPIC shows one.")
        return
    name = _find(" ".join(topic), entries, [*pages, *PAGES])
    text = _text(name, pages)
    if json:
        print_json({name: text or entries[name]["text"]})
    elif not text:
        also = ", ".join(entries[name].get("also", ()))
        say(out, name + (f"  (also: {also})" if also else ""), "bold")
        say(out, entries[name]["text"])
        if more := entries[name].get("page"):
            say(out, f"more: llmopt docs {more}")
    elif out.is_terminal:
        from rich.markdown import Markdown

        from llmopt.screen import printable

        out.print(Markdown(printable(text)))
    else:
        print_text(text)


def guides() -> dict[str, str]:
    """Titles of the pages that people wrote, by name."""
    from llmopt.resources import docs_root

    found = {}
    for file in sorted(docs_root().glob("*.md")):
        with file.open(encoding="utf-8") as lines:
            found[file.stem] = next(lines).removeprefix("# ").strip()
    return found


def _text(name: str, pages: dict[str, str]) -> str:
    """A page as Markdown; empty if there is none of that name."""
    from llmopt.resources import docs_root

    if name in pages:
        return (docs_root() / f"{name}.md").read_text(encoding="utf-8")
    return page(name) if name in PAGES else ""


def _find(asked: str, entries: dict[str, dict[str, Any]], pages: list[str]) -> str:
    """The page or the term that a word stands for.

    Raises:
        ConfigError: there is none; the nearest is suggested.
    """
    from llmopt.errors import ConfigError, nearest

    names = {
        _plain(word): name for name, entry in entries.items() for word in entry.get("also", ())
    }
    names |= {_plain(name): name for name in (*pages, *entries)}
    if _plain(asked) in names:
        return names[_plain(asked)]
    raise ConfigError(
        f"nothing is said of '{asked}'{nearest(_plain(asked), names)}; 'llmopt docs' names pages "
        "and words"
    )


def _plain(word: str) -> str:
    return word.casefold().replace("-", " ").replace("_", " ").strip()
