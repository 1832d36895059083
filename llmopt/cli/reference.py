"""Pages of reference, made from the code: nothing in them is written twice.

``llmopt docs PAGE`` prints one; the site (``make docs``) has them all.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from llmopt.cli.markdown import one_line, plain, prose, shown, table, value, with_tables

PACKAGE: Final = Path(__file__).resolve().parents[1]
GLOSSARY: Final = Path(__file__).with_name("glossary.toml")


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` shows them."""
    from llmopt import errors
    from llmopt.cli.app import COMMANDS, load

    parts = [
        "Commands whose results are figures take `--json`. Progress goes to stderr, results to "
        "stdout. `llmopt COMMAND --help` shows the same in a terminal.",
        "## Exit codes",
        table(("code", "means"), _exit_codes()),
        "In Python these are exceptions, in one tree:",
        shown(inspect.getdoc(errors) or ""),
    ]
    for name in COMMANDS:
        parts += _command(f"llmopt {name}", load(name))
    return "\n\n".join(parts)


def _exit_codes() -> Iterator[tuple[str, str]]:
    from llmopt import errors

    yield "`0`", "done"
    said = re.compile(r'^(\w+) = \d+\n"""(?:Exit code (?:of )?)?(.+?)"""', re.MULTILINE | re.DOTALL)
    codes = {getattr(errors, name): text for name, text in said.findall(inspect.getsource(errors))}
    for kind in (errors.UserError, errors.BudgetTooSmall, errors.ServiceError):
        codes[kind.exit_code] = (kind.__doc__ or "").partition("\n\n")[0]
    for code, text in sorted(codes.items()):
        yield f"`{code}`", text


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"## {name}"
    yield prose(command.help or "")
    for inner, found in getattr(command, "commands", {}).items():
        yield from (part.replace("## ", "### ", 1) for part in _command(f"{name} {inner}", found))
    given = [one for one in command.params if "--help" not in one.opts and not one.hidden]
    if given:
        yield table(("", "what"), map(_parameter, given))


def _parameter(given: Any) -> tuple[str, str]:
    told = (given.help or "").replace(r"\[", "[")
    if given.param_type_name == "argument":
        return f"`{given.name.upper()}{' …' * (given.nargs == -1)}`", told
    if given.show_default and given.default and not given.is_flag:
        told += f" [default: {given.default}]"
    flags = [flag + " …" * (not given.is_flag) for flag in sorted(given.opts, key=len)]
    return ", ".join(f"`{flag}`" for flag in flags), told


def optimizers() -> str:
    """Ways of searching, with every setting."""
    from llmopt.cli.methods import about, source_of_defaults
    from llmopt.search import OPTIMIZERS, forms

    parts = [
        "`--optimizer NAME` chooses one, `--set KEY=VALUE` changes a setting, and "
        "`--set profile=NAME` takes a published form of it."
    ]
    for name in OPTIMIZERS.usable():
        for number, (profile, kind) in enumerate(forms(name).items()):
            title = f"## {name}" if not number else f"### {name}, profile {profile}"
            asks = "; asks a language model (`--llm`)" if kind.needs_chat else ""
            default = f"; its profile is `{profile}`" if profile and not number else ""
            parts += [title, f"*needs `{kind.access}` of the black box{asks}{default}*"]
            parts += [*_method(about(kind)), source_of_defaults(profile)]
    return "\n\n".join(parts)


def heads() -> str:
    """Small functions that are fitted after a search, with every setting."""
    from llmopt.cli.methods import about, looks_at
    from llmopt.heads import HEADS

    parts = [
        "`--head NAME` fits one after any search; `--head auto` chooses among them. Where a "
        "setting names no source, its default is llmopt's own."
    ]
    for name, kind in HEADS.usable().items():
        parts += [f"## {name}", f"*looks at {looks_at(kind)}*", *_method(about(kind))]
    return "\n\n".join(parts)


def _method(told: Mapping[str, Any]) -> Iterator[str]:
    yield prose(told["source"] or told["does"])
    if told["settings"]:
        yield _settings(told["settings"])


def _settings(found: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (f"`{one['name']}`", value(one["default"]), one["values"], prose(one["meaning"]))
        for one in found
    ]
    return table(("setting", "default", "values", "what"), rows)


def config() -> str:
    """What ``config.toml`` may hold: the options of ``run``."""
    from llmopt.language.settings import LlmSettings
    from llmopt.runs.config import RunConfig, options
    from llmopt.settings import describe
    from llmopt.vision.services.chat import ChatBoxSettings
    from llmopt.vision.services.web import ServiceSettings

    said = options()
    rows = [
        (f"`{one.name}`", f"`{said[one.name].flag}`",
         said[one.name].default or value(one.default), one.values, said[one.name].help)
        for one in describe(RunConfig)
    ]  # fmt: skip
    names = ("in the file", "on the command line", "default", "values", "what")
    return "\n\n".join([
        "`--config FILE.toml` takes any of these, and so does `llmopt.run(...)`; flags win over "
        "the file. A run keeps its own in `config.toml`. `llmopt run --config-schema` prints the "
        "JSON schema, with the settings of every optimizer, for editors that check files: "
        "[config.schema.json](config.schema.json).",
        table(names, rows),
        "## Settings of the language model",
        "`--llm-set KEY=VALUE`, or a table `[llm_settings]` in the file.",
        _settings_of(LlmSettings),
        "## Settings of a black box",
        "`--blackbox-set KEY=VALUE`, or a table `[blackbox_settings]`. Of `chat:`, a model that "
        "sees:",
        _settings_of(ChatBoxSettings),
        "Of services of embeddings and scores:",
        _settings_of(ServiceSettings),
    ])  # fmt: skip


def _settings_of(kind: Any) -> str:
    from llmopt.settings import describe

    return _settings([dataclasses.asdict(one) for one in describe(kind)])


def result() -> str:
    """What ``result.json`` holds, and ``llmopt run --json`` prints."""
    schema = result_schema()
    return "\n\n".join([
        "Accuracies are fractions, intervals hold with 95 %. What stands here is checked whenever "
        "a run folder is read; a file may hold more. The currencies of `ledger` (the search) and "
        "`evaluation` (the one test) are [a page of their own](currencies.md).",
        "The same as a JSON schema: [result.schema.json](result.schema.json).",
        table(("key", "type", "what"), _keys(schema, schema["$defs"])),
    ])  # fmt: skip


def _keys(
    schema: Mapping[str, Any], named: Mapping[str, Any], before: str = ""
) -> Iterator[tuple[str, str, str]]:
    """A row for each key of a JSON schema, those of tables inside it too."""
    from llmopt.runs import stored
    from llmopt.settings import attributes

    said: dict[str, str] = {}
    for base in reversed(getattr(stored, schema["title"]).__mro__):
        said |= attributes(base.__doc__ or "")
    for name, one in schema["properties"].items():
        kind = _type(one)
        inner = named.get(re.sub("list of | or null", "", kind))
        what = said.get(name) or (inner or {}).get("description", "").partition("\n")[0]
        kind = kind if inner is None else "list of tables" if "list" in kind else "table"
        seldom = "" if name in schema.get("required", ()) else ", not always"
        yield f"`{before}{name}`", kind + seldom, prose(what)
        if inner is not None:
            yield from _keys(inner, named, f"{before}{name}{'[]' * ('list' in kind)}.")


def journal() -> str:
    """What ``journal.jsonl`` holds: everything that happened, in order."""
    from llmopt.spend import journal

    return "\n\n".join([
        prose(inspect.getdoc(journal) or ""),
        "Every line has `at` (seconds of work on the run), `kind`, `stream`, `data`, and `crc`; "
        "one that was paid has `key`, a hash of the question.",
        "## Kinds of record",
        table(("kind", "keys of `data`", "written by"), sorted(_records())),
    ])  # fmt: skip


def _records() -> set[tuple[str, str, str]]:
    """Kind, keys and module of each call in the package that writes a record."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        where = file.relative_to(PACKAGE.parent).with_suffix("")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            writer = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if kind := _kind(writer, call, ".".join(where.parts)):
                keys = [f"`{k.arg}`" if k.arg else "…" for k in call.keywords if k.arg != "stream"]
                found.add((f"`{kind}`", ", ".join(keys) or "…", where.as_posix()))
    return found


def _kind(writer: str, call: ast.Call, module: str) -> str:
    """The kind of record that a call writes; empty if it is no such call."""
    at = {"event": 0, "pay": 0, "write": 0, "_note": 1}.get(writer, len(call.args))
    if at >= len(call.args):
        return ""
    match call.args[at]:
        case ast.Constant(str(kind)) if writer != "write":
            return kind
        case ast.Name(name) if name.isupper() or name.startswith("_"):
            return str(getattr(importlib.import_module(module), name))
        case ast.Attribute(ast.Name("records"), name):
            return str(getattr(importlib.import_module("llmopt.language.records"), name))
    return ""


def currencies() -> str:
    """What can be spent, and what caps it."""
    from llmopt.spend import currency

    spent = [
        (f"`{one.name}`", one.label, one.unit or "count", one.kind,
         f"`{currency.CAPS[one.cap].flag}`" if one.cap else "")
        for one in currency.CURRENCIES.values()
    ]  # fmt: skip
    return "\n\n".join([
        prose(inspect.getdoc(currency) or ""),
        "## Currencies",
        table(("in `ledger`", "called", "unit", "kind", "capped by"), spent),
    ])  # fmt: skip


def http() -> str:
    """The paths of ``llmopt serve``, as its own OpenAPI document describes them."""
    import numpy as np

    from llmopt.vision import FunctionBox
    from llmopt.vision.server.app import build

    def nothing(images: Any, prompts: Any) -> Any:
        return np.zeros((len(images), len(prompts)))

    told = build(FunctionBox("a model", nothing)).openapi()
    schemas = told["components"]["schemas"]
    parts = ["A running server describes itself at `/docs` and `/openapi.json`."]
    for path, verbs in told["paths"].items():
        for verb, said in verbs.items():
            parts += [f"## {verb.upper()} {path}", prose(said.get("description", ""))]
            for what, where in (
                ("takes", said.get("requestBody")),
                ("answers", said["responses"].get("200")),
            ):
                if where and (ref := _reference(where)):
                    parts += [
                        f"{what} **{ref}**: {one_line(schemas[ref].get('description', ''))}",
                        table(("key", "type"), _properties(schemas[ref])),
                    ]
    return "\n\n".join(parts)


def _reference(body: Mapping[str, Any]) -> str:
    for content in body.get("content", {}).values():
        return str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2]
    return ""


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, one in schema.get("properties", {}).items():
        yield f"`{name}`", _type(one) + ("" if name in schema.get("required", ()) else ", optional")


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if choices := schema.get("enum"):
        return " or ".join(f"`{one}`" for one in choices)
    return str(schema.get("const", schema.get("type", "anything"))).replace("object", "table")


def python() -> str:
    """What ``import llmopt`` offers."""
    import llmopt

    parts = []
    for name in sorted(set(llmopt.__all__) - {"__version__"}, key=str.lower):
        found = getattr(llmopt, name)
        parts += [f"## {name}", _documented(f"llmopt.{name}", found)]
        if inspect.isclass(found):
            parts += [
                f"### {name}.{inner}\n\n{_documented(inner, getattr(found, inner))}"
                for inner in vars(found)
                if not inner.startswith("_") and callable(getattr(found, inner))
            ]
    return "\n\n".join(parts)


def _documented(name: str, found: Any) -> str:
    takes = ""
    with contextlib.suppress(ValueError):  # exceptions have no signature
        takes = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(found)))
    return f"```text\n{name}{takes}\n\n{plain(inspect.getdoc(found) or '')}\n```"


def names() -> str:
    """What an option may name: data sets, black boxes, language models, formats."""
    from llmopt import export
    from llmopt.data import registry
    from llmopt.language.providers import PACKAGES
    from llmopt.vision import boxes

    rows = [(f"`{name}:MODEL`", package) for name, package in sorted(PACKAGES.items())]
    return "\n\n".join([
        "## --dataset", with_tables(inspect.getdoc(registry) or ""),
        "## --blackbox", with_tables(inspect.getdoc(boxes) or ""),
        "## --llm",
        "`builtin`, `openai:MODEL`, `replay:FILE`; any name with `--llm-base-url`; what LangChain "
        "knows, with its package installed beside llmopt:",
        table(("`--llm`", "package"), rows),
        "## --format", with_tables(inspect.getdoc(export) or ""),
    ])  # fmt: skip


def words() -> str:
    """What the words mean that llmopt prints."""
    parts = []
    for name, entry in glossary().items():
        also = f" *(also: {', '.join(entry['also'])})*" if entry.get("also") else ""
        parts += [f"## {name}", entry["text"] + also]
    return "\n\n".join(parts)


def glossary() -> dict[str, dict[str, Any]]:
    """Every term: ``text``; ``also``, other names for it; ``page``, where there is more."""
    entries = tomllib.loads(GLOSSARY.read_text(encoding="utf-8"))
    return {name: entry | {"text": entry["text"].strip()} for name, entry in entries.items()}


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    one.__name__: one
    for one in (
        commands, python, optimizers, heads, config, names,
        result, journal, currencies, http, words,
    )
}  # fmt: skip
"""Pages by name."""


def config_schema() -> dict[str, Any]:
    """JSON schema of a config file."""
    from llmopt.runs.config import RunConfig

    return RunConfig.json_schema()


def result_schema() -> dict[str, Any]:
    """JSON schema of ``result.json``."""
    from llmopt.runs.stored import Result

    return Result.model_json_schema(by_alias=True)


SCHEMAS: Final = {"config.schema.json": config_schema, "result.schema.json": result_schema}
"""Files beside the pages."""


def page(name: str) -> str:
    """A page as Markdown."""
    made = PAGES[name]
    title = name.upper() if name == "http" else name.capitalize()
    return f"# {title}\n\n{prose(made.__doc__ or '')}\n\n{made()}\n"
