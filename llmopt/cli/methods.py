"""``llmopt optimizers`` and ``llmopt heads``: what there is, with every setting."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from llmopt.cli import markdown
from llmopt.cli import options as o

optimizers = typer.Typer(help="Ways of searching, and their settings.", no_args_is_help=True)
heads = typer.Typer(help="Heads that can be fitted, and their settings.", no_args_is_help=True)


_OURS: Final = "Where a setting names no source, its default is llmopt's own."
_SOURCES: Final = {
    "released": "Where a setting names no source, its default is that of the authors' program.",
    "paper": "Where a setting names no source, its default is the paper's.",
}


def register(root: typer.Typer) -> None:
    """Add the commands to the app."""
    root.add_typer(optimizers, name="optimizers")
    root.add_typer(heads, name="heads")


Name = Annotated[str, typer.Argument(help="Its name.", show_default=False)]


@optimizers.command("list")
def list_optimizers(json: o.Json = False) -> None:
    """Name the optimizers: what they do and what they need."""
    from llmopt.cli.show import console, print_json
    from llmopt.search import OPTIMIZERS, forms
    from llmopt.tables import print_table, text_columns

    found: list[dict[str, Any]] = [
        {
            "name": name,
            "does": _first_line(kind),
            "access": str(kind.access),
            "asks a language model": kind.needs_chat,
            "profiles": [profile for profile in forms(name) if profile],
        }
        for name, kind in OPTIMIZERS.usable().items()
    ]
    if json:
        print_json(found)
        return
    rows = [
        (one["name"], one["does"], one["access"], "yes" if one["asks a language model"] else "",
         ", ".join(one["profiles"]))
        for one in found
    ]  # fmt: skip
    names = ("optimizer", "does", "needs", "LLM", "profiles")
    words = ("does", "profiles")
    texts = ("optimizer", "needs", "LLM")
    print_table(console(), text_columns(*names, words=words, texts=texts), rows)


@optimizers.command("show")
def show_optimizer(name: Name, json: o.Json = False) -> None:
    """Show an optimizer's settings: defaults, ranges and where it comes from."""
    from llmopt.search import forms

    found = {profile: about(kind) for profile, kind in forms(name).items()}
    for profile, kind in forms(name).items():
        found[profile] |= {"access": str(kind.access), "asks a language model": kind.needs_chat}
    _show(name, found, "--set", json)


@heads.command("list")
def list_heads(json: o.Json = False) -> None:
    """Name the heads: what they do and what they look at."""
    from llmopt.cli.show import console, print_json
    from llmopt.heads import HEADS
    from llmopt.tables import print_table, text_columns

    found: list[dict[str, str]] = [
        {
            "name": name,
            "does": _first_line(kind),
            "looks at": looks_at(kind),
        }
        for name, kind in HEADS.usable().items()
    ]
    if json:
        print_json(found)
        return
    columns = text_columns("head", "does", "looks at", words=("does",), texts=("head", "looks at"))
    print_table(console(), columns, [tuple(one.values()) for one in found])


@heads.command("show")
def show_head(name: Name, json: o.Json = False) -> None:
    """Show a head's settings: defaults, ranges and where it comes from."""
    from llmopt.errors import ConfigError
    from llmopt.heads import HEADS

    if name == "auto":
        raise ConfigError(
            "'auto' is no head of its own: it fits what is usual at so many shots; see "
            "'llmopt docs head', or 'llmopt heads list' for those it chooses from"
        )
    kind = HEADS.get(name)
    _show(name, {"": about(kind) | {"looks at": looks_at(kind)}}, "", json)


def looks_at(kind: type[Any]) -> str:
    """What a head is made of."""
    from llmopt.vision.base import Access

    if kind.level == Access.LABELS:
        return "answers"
    return "features" if kind.looks_at_features else "scores"


def _first_line(kind: type[Any]) -> str:
    return markdown.plain((inspect.getdoc(kind) or "").partition("\n")[0])


def source_of_defaults(profile: str) -> str:
    """Where the defaults of a form come from, as far as its settings do not say."""
    return _SOURCES.get(profile, _OURS)


def about(kind: type[Any]) -> dict[str, Any]:
    """A method in one form: what it is, where it comes from, its settings."""
    from llmopt.figures import plain
    from llmopt.settings import describe

    told = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "").partition("\n\n")[0]
    return {
        "does": _first_line(kind),
        "source": " ".join(markdown.plain(told).split()),
        "settings": [plain(dataclasses.asdict(one)) for one in describe(kind.Settings)],
    }


def _show(name: str, found: Mapping[str, dict[str, Any]], flag: str, json: bool) -> None:
    from llmopt.cli.show import console, print_json, say
    from llmopt.tables import print_table, text_columns

    if json:
        print_json({"name": name, "forms": found})
        return
    out = console()
    for number, (profile, form) in enumerate(found.items()):
        default = ", the default" * (number == 0 and len(found) > 1)
        title = f"{name}, profile {profile}{default}" if profile else name
        say(out, ("\n" if number else "") + title, "bold")
        say(out, form["source"] or form["does"])
        needs = {k: v for k, v in form.items() if k in ("access", "looks at")}
        needs = {k.replace("access", "needs access"): v for k, v in needs.items()}
        if form.get("asks a language model"):
            needs["asks"] = "a language model (--llm)"
        say(out, "; ".join(f"{what} {value}" for what, value in needs.items()))
        rows = [
            (
                one["name"],
                markdown.typed(one["default"]),
                one["values"],
                markdown.plain(one["meaning"]),
            )
            for one in form["settings"]
        ]
        words = ("values", "meaning")
        heading = f"setting ({flag})" if flag else "setting"
        columns = text_columns(heading, "default", *words, words=words, texts=(heading, "default"))
        out.print()
        print_table(out, columns, rows)
        say(out, source_of_defaults(profile), "dim")
