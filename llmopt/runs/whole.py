"""A run's config with every effective setting, as its folder keeps it, and back to what was asked.

A folder holds the defaults too, so that a later version, which may have others, runs the same. What
compares configs, names arms or writes commands leaves them out again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmopt.errors import LlmoptError
from llmopt.language.settings import SHAPE_REPLIES, LlmSettings
from llmopt.runs.config import DESCRIBED, RunConfig, as_flags, optimizer_of, options
from llmopt.search import OPTIMIZERS

if TYPE_CHECKING:
    from llmopt.search.base import Optimizer
    from llmopt.settings import Settings

_SCALARS = (str, bool, int, float, type(None))  # what a config file can hold


def whole(
    config: RunConfig, optimizer: Optimizer[Any], llm: LlmSettings | None, about: str
) -> RunConfig:
    """The config with the settings that its run works with.

    Args:
        config: as asked for.
        optimizer: whose settings it names.
        llm: how the language model is asked; None where none is, or where it is one of ours.
        about: what is told of the pictures.
    """
    settings = optimizer.as_given() if config.optimizer in OPTIMIZERS else {}
    box = _of_box(config)
    return dataclasses.replace(
        config,
        settings={**config.settings, **_scalars(settings)},
        llm_settings=config.llm_settings if llm is None else _scalars(dataclasses.asdict(llm)),
        blackbox_settings=config.blackbox_settings if box is None else dataclasses.asdict(box),
        head=config.head or optimizer.head,
        about=about,
    )


def without_defaults(config: RunConfig) -> RunConfig:
    """The config without what is at its default, as far as that is known here."""
    from llmopt.data.registry import about_dataset  # takes NumPy

    changes: dict[str, Any] = {}
    if config.about == about_dataset(config.dataset):
        changes["about"] = ""
    try:
        if config.settings or config.head:
            optimizer = optimizer_of(config)
            usual = _defaults(type(optimizer).Settings)
            if optimizer.form:
                usual["profile"] = next(iter(optimizer.FORMS))
            if config.head:
                usual |= optimizer.HEADLESS
            if config.descriptions:
                usual |= {**DESCRIBED[config.optimizer], "file": config.descriptions}
            changes["settings"] = _other(config.settings, optimizer.as_given(), usual)
            changes["head"] = "" if config.head == optimizer.head else config.head
        if config.llm_settings:
            made = LlmSettings.make(config.llm_settings)
            changes["llm_settings"] = _other(
                config.llm_settings, dataclasses.asdict(made), _defaults(LlmSettings)
            )
        if config.blackbox_settings and (box := _of_box(config)):
            changes["blackbox_settings"] = _other(
                config.blackbox_settings, dataclasses.asdict(box), _defaults(type(box))
            )
    except LlmoptError:  # of a plug-in or of another version: as it stands there
        pass
    return dataclasses.replace(config, **changes)


def changes(config: RunConfig, began: RunConfig) -> list[str]:
    """What decides where a search goes and was another when it began: ``seed: 1, now 2``."""
    if config.plain() == began.plain():
        return []
    before, now = _deciding(began), _deciding(config)
    return [
        f"{name}: {before.get(name)!r:.60}, now {now.get(name)!r:.60}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _deciding(config: RunConfig) -> dict[str, Any]:
    told = without_defaults(config)
    found = {k: v for k, v in told.plain().items() if not options()[k].free}
    shaping = {k: v for k, v in told.llm_settings.items() if k in SHAPE_REPLIES}
    return {**found, "llm_settings": shaping}


def flags(config: RunConfig) -> list[str]:
    """The options that ask for a config; those at their default are left out."""
    usual, told = RunConfig(), without_defaults(config)
    given = {name: getattr(told, name) for name in options()}
    return [
        word
        for name, value in given.items()
        if value != getattr(usual, name)
        for word in as_flags(name, value)
    ]


def laid_under(config: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """What stays of a config where options are laid over it.

    Defaults go where the options have defaults of their own; so do all settings of a black box that
    is replaced by another: an address, a price or a temperature of the one is wrong for the other.
    So does the price of a language model that is replaced.
    """
    names = {"optimizer", "dataset", "blackbox"}
    if given.keys() & names or "profile" in given.get("settings", {}):
        config = without_defaults(config)
    if given.get("blackbox", config.blackbox) != config.blackbox:
        config = dataclasses.replace(config, blackbox_settings={})
    if given.get("llm", config.llm) != config.llm:
        settings = {name: v for name, v in config.llm_settings.items() if name != "price"}
        config = dataclasses.replace(config, llm_settings=settings)
    return config


def _of_box(config: RunConfig) -> Settings | None:
    """How the black box is asked; None where it is not paid for, or takes no settings of ours."""
    if not config.blackbox:
        return None
    from llmopt.vision.boxes import settings_at  # takes NumPy

    if (kind := settings_at(config.blackbox)) is None:
        return None
    return kind.make(config.blackbox_settings, "the settings of the black box")


def _scalars(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if isinstance(value, _SCALARS)}


def _defaults(kind: Any) -> dict[str, Any]:
    return {one.name: one.default for one in dataclasses.fields(kind)}


def _other(
    given: Mapping[str, Any], made: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, Any]:
    """Of what is given, as typed values, what is not as usual."""
    return {name: made[name] for name in given if made[name] != usual[name]}
