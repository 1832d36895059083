"""What is asked for in Python: options as keywords, and objects wherever an option takes a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt.errors import ConfigError
from llmopt.runs.compose import Given
from llmopt.runs.config import RunConfig
from llmopt.runs.whole import laid_under, without_defaults
from llmopt.search.base import Optimizer
from llmopt.spend.currency import CAPS
from llmopt.spend.ledger import Caps
from llmopt.task import Task
from llmopt.vision.base import BlackBox

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


def asked(
    config: RunConfig | None,
    task: Task | None,
    optimizer: str | Optimizer[Any] | None,
    model: str | BlackBox | None,
    llm: str | BaseChatModel | None,
    caps: Caps | None,
    options: Mapping[str, Any],
) -> tuple[Given, RunConfig]:
    """Objects apart from names, and the config that holds a name for each of them."""
    values = dict(options)
    if task is not None and "dataset" in values:
        raise ConfigError("give either task= or dataset=, not both")
    if task is not None:
        values.setdefault("shots", task.shots)
        values.setdefault("template", task.start.text)
    if caps is not None:
        values |= {cap.option: getattr(caps, name) for name, cap in CAPS.items()}
    objects: dict[str, Any] = {"task": task}
    for name, value, kind, place in (
        ("optimizer", optimizer, Optimizer, "optimizer"),
        ("model", model, BlackBox, "box"),
        ("llm", llm, None, "llm"),
    ):
        if isinstance(value, str):
            values[name] = value
        elif value is not None:
            if kind is not None and not isinstance(value, kind):
                raise ConfigError(
                    f"{name}= takes a name or a {kind.__name__}, not {type(value).__name__}"
                )
            objects[place] = value
    if config is not None and any(objects.values()):
        config = without_defaults(config)
    given = Given(**objects)
    return given, given.named_in(config_of(config, values))


def config_of(config: RunConfig | None, options: Mapping[str, Any]) -> RunConfig:
    """Options over a config."""
    given = texts(options)
    if config is None:
        return RunConfig.make(given, "the options")
    base = laid_under(config, given)
    over = {f.name: getattr(base, f.name) for f in dataclasses.fields(RunConfig)}
    return RunConfig.make({**over, **given}, "the options")


def texts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Paths as texts, and what is None left out."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
        if value is not None
    }
