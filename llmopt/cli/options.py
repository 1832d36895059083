"""Options that commands share: those of a run's config, read off its fields, and a few more.

Each option of the config is None unless given, so that flags win over files.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer

from llmopt.runs.config import OUTPUT, PANELS, SEARCH, RunConfig, hints, options
from llmopt.settings import allowed, types_of

Command = Callable[..., None]


def takes_config(without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Let a command's parameter ``config`` stand for the options of a run's config.

    The command is passed a :class:`RunConfig`: flags over ``--config FILE`` over the defaults.

    Args:
        without: fields that are no option of the command; so are those it has itself.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command).parameters
        names = [name for name in options() if name not in own and name not in without]
        found = {**_of(names), **_FILE}
        in_order = sorted(found, key=lambda name: PANELS.index(_panel(found[name])))
        return expanded(command, "config", {name: found[name] for name in in_order}, _config)

    return decorate


def takes_changes(*names: str) -> Callable[[Command], Command]:
    """Let a command's parameter ``changes`` stand for some fields of a run's config.

    The command is passed those that were given, by name; what the others are, the run knows whose
    they change.
    """

    def decorate(command: Command) -> Command:
        return expanded(command, "changes", _of(names, changes=True), _given)

    return decorate


@functools.cache
def option(name: str, changes: bool = False) -> Any:
    """The option of a field of the config; what it is by default, unless it changes a run's."""
    said, hint = options()[name], hints()[name]
    usual = None if changes else said.default or getattr(RunConfig, name, None)
    default = "" if usual in (None, "") or usual is False else f"default: {usual}"
    notes = "; ".join(filter(None, (allowed(hint, ""), default)))
    # Or rich takes "[default: 1]" for markup, and drops it.
    text = said.help + (rf" \[{notes}]" if notes else "")
    return typer.Option(said.flag, rich_help_panel=said.panel, help=text, show_default=False)


def _of(names: Sequence[str], changes: bool = False) -> dict[str, Any]:
    """Types of parameters for fields of the config."""
    found: dict[str, Any] = {}
    for name in names:
        plain = next(iter(types_of(hints()[name])))
        if options()[name].path:
            plain = Path
        elif plain not in (bool, int, float, str):
            plain = str if get_origin(plain) is Literal else list[str]
        found[name] = Annotated[plain | None, option(name, changes)]
    return found


def _panel(kind: Any) -> str:
    panel: str = kind.__metadata__[0].rich_help_panel
    return panel


def expanded(
    command: Command, stands: str, shared: Mapping[str, Any], collect: Callable[[Any], Any]
) -> Command:
    """A command with options in the place of the parameter that stands for them."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for own in signature.parameters.values():
        if own.name == stands:
            parameters += [
                inspect.Parameter(name, own.KEYWORD_ONLY, default=None, annotation=kind)
                for name, kind in shared.items()
            ]
        else:
            parameters.append(own.replace(kind=own.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        told = {name: given.pop(name) for name in shared}
        command(**given, **{stands: collect(told)})

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {}
    return call


def _given(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def _config(told: Mapping[str, Any]) -> RunConfig:
    """Flags over the config file over the defaults."""
    from llmopt.runs.config import parse_assignments, read_config

    given = _given(told)
    path, trusted = given.pop("config_file", None), given.pop("trust_config", False)
    values = read_config(path) if path else {}
    # What is typed is meant: the variables it names, and the addresses.
    by_hand = [*given.get("llm_settings", []), *given.get("blackbox_settings", [])]
    named = re.findall(r"\w+", " ".join(by_hand))
    where = str(path) if path else "the options"
    given = {k: parse_assignments(v) if isinstance(v, list) else v for k, v in given.items()}
    if values:
        from llmopt.runs.whole import laid_under

        values = laid_under(RunConfig.make(values, where), given).plain()
    typed: dict[str, Any] = dict.fromkeys(given.keys() & {"llm_base_url"}, "")
    if "blackbox" in given and not values.get("blackbox_settings"):  # they may name an address
        typed |= {"blackbox": "", "blackbox_settings": {}}
    for name, value in given.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    config = RunConfig.make(values, where)
    if path and not trusted:
        from llmopt.runs.trust import refuse_untrusted

        refuse_untrusted(dataclasses.replace(config, **typed), path, named)
    return config


def _print_schema(asked: bool) -> None:
    if asked:
        from llmopt.cli.show import print_json

        print_json(RunConfig.json_schema())
        raise typer.Exit


TrustConfig = Annotated[
    bool | None,
    typer.Option(
        "--trust-config",
        rich_help_panel=SEARCH,
        help="Send secrets of this machine where the file or run folder says; else it is refused.",
    ),
]
_FILE = {
    "config_file": Annotated[
        Path | None,
        typer.Option(
            "--config", rich_help_panel=SEARCH, help="The same options as TOML; flags win."
        ),
    ],
    "trust_config": TrustConfig,
    "config_schema": Annotated[
        bool | None,
        typer.Option(
            "--config-schema",
            rich_help_panel=SEARCH,
            help="Print the JSON schema of such a file, with every optimizer's settings.",
            is_eager=True,
            callback=_print_schema,
        ),
    ],
}
ClassNames = Annotated[str | None, option("classnames")]
DataRoot = Annotated[Path | None, option("data_root")]
SkipUnreadable = Annotated[bool | None, option("skip_unreadable")]
ModelName = Annotated[str | None, option("model")]
Pretrained = Annotated[str | None, option("pretrained")]
Device = Annotated[str | None, option("device")]
Precision = Annotated[str | None, option("precision")]
Decoder = Annotated[str | None, option("decoder")]
BatchSize = Annotated[int | None, option("batch_size")]
Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        rich_help_panel=OUTPUT,
        help="Also tell mlflow, wandb or tensorboard.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Machine output on stdout only.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT, help="Results, nothing else.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", rich_help_panel=OUTPUT, help="More words.")
]
Wide = Annotated[
    bool, typer.Option("--wide", rich_help_panel=OUTPUT, help="All columns, however wide.")
]
Columns = Annotated[
    str,
    typer.Option(
        "--columns", rich_help_panel=OUTPUT, help="These alone, by their headings: 'A,B'.",
        show_default=False,
    ),
]  # fmt: skip
Sort = Annotated[
    str,
    typer.Option(
        "--sort", rich_help_panel=OUTPUT, help="By a column; -COLUMN: the greatest first.",
        show_default=False,
    ),
]  # fmt: skip
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        rich_help_panel=OUTPUT,
        help="Rows in which 'COLUMN=VALUE' holds, or !=, <, <=, >, >=, or ~ for 'holds the text'; "
        "repeatable.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", show_default=False)]
