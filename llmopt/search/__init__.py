"""One algorithm a file; this page is their list, and the way from a name to one with its settings.

Modules are imported when an optimizer is asked for, so that listing them needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from llmopt.errors import ConfigError, nearest
from llmopt.registry import Registry

if TYPE_CHECKING:
    from llmopt.search.base import Optimizer

OPTIMIZERS: Final[Registry[type[Optimizer[Any]]]] = Registry(
    "optimizer",
    "optimizers",
    {
        "chat": "llmopt.search.text.chat:Chat",
        "random": "llmopt.search.text.random:Random",
        "zeroshot": "llmopt.search.text.zeroshot:ZeroShot",
        "rename": "llmopt.search.text.rename:Rename",
        "describe": "llmopt.search.text.describe:Asked",
        "handcrafted": "llmopt.search.text.handcrafted:Handcrafted",
        "auto": "llmopt.search.text.auto:Auto",
        "craft": "llmopt.search.soft.craft:Craft",
        "carrot": "llmopt.search.soft.craft:Craft",
        "cbbt": "llmopt.search.soft.cbbt:Cbbt",
        "zip": "llmopt.search.soft.zip:Zip",
        "bbt": "llmopt.search.soft.bbt:Bbt",
        "bptvlm": "llmopt.search.soft.bptvlm:BptVlm",
        "coop": "llmopt.search.soft.coop:Coop",
    },
    base="llmopt.search.base:Optimizer",
)
"""What ``--optimizer`` takes."""


def forms(name: str) -> dict[str, type[Optimizer[Any]]]:
    """The classes of a method by profile, the default first; by "" where it has one form only.

    Raises:
        ConfigError: the optimizer is unknown; the nearest name is suggested.
    """
    kind = OPTIMIZERS.get(name)
    return {form: resolve_name(where) for form, where in kind.FORMS.items()} or {"": kind}


def setting_names(name: str) -> set[str]:
    """What ``--set`` takes for an optimizer, in any of its forms."""
    found = forms(name)
    names = {f.name for kind in found.values() for f in fields(kind.Settings)}
    return names if "" in found else {*names, "profile"}


def make_optimizer(
    name: str, given: Mapping[str, Any] = MappingProxyType({}), head: str = ""
) -> Optimizer[Any]:
    """An optimizer with its settings.

    Args:
        name: one of :data:`OPTIMIZERS`.
        given: settings by name, texts or values; ``profile`` chooses the form.
        head: what ``--head`` asks for; the optimizer's own head is off then.

    Raises:
        ConfigError: an unknown name, profile or setting (the nearest is suggested), a wrong value,
            a setting that the profile does not have, or a head beside the optimizer's own.
    """
    word, comma, settings_given = name.partition(",")
    if comma and word in OPTIMIZERS:  # as an arm of a comparison is written
        raise ConfigError(
            f"'{name}' is an arm of 'compare'; one optimizer has its settings apart: --optimizer "
            f"{word} {' '.join(f'--set {one}' for one in settings_given.split(','))}"
        )
    kind = OPTIMIZERS.get(name)
    asked = dict(given)
    if kind.FORMS:
        form = str(asked.pop("profile", kind.form))
        if form not in kind.FORMS:
            raise ConfigError(
                f"unknown profile '{form}' of '{kind.name}'{nearest(form, kind.FORMS)} "
                f"(there are: {', '.join(kind.FORMS)})"
            )
        kind = resolve_name(kind.FORMS[form])
    settings = kind.make_settings(asked)
    if head:
        for setting, off in kind.HEADLESS.items():
            if setting in asked and getattr(settings, setting) != off:
                raise ConfigError(f"give either --head {head} or --set {setting}={asked[setting]}")
        settings = replace(settings, **kind.HEADLESS)
    return kind(settings)
