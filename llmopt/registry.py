"""Names for what can be plugged in: ours, and what packages outside add.

A registry maps a name to ``module:attribute`` and imports it when it is asked for, so that listing
names loads nothing. Packages outside add to it through an entry point of its group, such as

    [project.entry-points."llmopt.optimizers"]
    mine = "my_package.mine:Mine"

A name of ours cannot be taken by a plug-in. A plug-in that cannot be loaded is an error only for
whoever asks for it by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from llmopt.errors import ConfigError, LlmoptError, nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """What a package outside adds.

    Attributes:
        kind: of thing, such as ``optimizer``.
        name: what users type.
        package: the distribution it comes from, with its version.
        problem: why it cannot be used; empty if it can.
    """

    kind: str
    name: str
    package: str
    problem: str = ""


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        kind: what one of them is called in errors, such as ``optimizer``.
        group: of entry points, without ``llmopt.``.
        own: name to ``module:attribute``.
        error: raised for a name that is not known.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        own: Mapping[str, str],
        error: type[LlmoptError] = ConfigError,
    ) -> None:
        self.kind = kind
        self.group = f"llmopt.{group}"
        self._own = dict(own)
        self._error = error

    def names(self) -> list[str]:
        """Ours in their order, then those of plug-ins. Loads none of them."""
        return [*self._own, *self._outside]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._outside

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> T:
        """What the name stands for.

        Raises:
            LlmoptError: it is unknown (the nearest name is suggested), or a plug-in that cannot be
                loaded; of the type given for this registry.
        """
        if name in self._own:
            return cast(T, self._load(self._own[name]))
        if name not in self._outside:
            known = self.names()
            raise self._error(
                f"unknown {self.kind} '{name}'{nearest(name, known)} (there are: "
                f"{', '.join(known)})"
            )
        point = self._outside[name]
        try:
            return cast(T, self._load(point.value))
        except Exception as error:  # whatever is wrong in somebody else's package
            raise self._error(
                f"{self.kind} '{name}' comes from the plug-in package {_package(point)}, which "
                f"cannot be loaded: {type(error).__name__}: {error}"
            ) from error

    def plugins(self) -> list[Plugin]:
        """What packages outside add, each loaded to see whether it can be."""
        found = []
        for point in entry_points(group=self.group):
            problem = ""
            if point.name in self._own:
                problem = f"the name '{point.name}' is taken by llmopt"
            else:
                try:
                    self._load(point.value)
                except Exception as error:
                    problem = f"{type(error).__name__}: {error}"
            found.append(Plugin(self.kind, point.name, _package(point), problem))
        return found

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        return {p.name: p for p in entry_points(group=self.group) if p.name not in self._own}

    @staticmethod
    def _load(where: str) -> Any:
        module, _, attribute = where.partition(":")
        return getattr(importlib.import_module(module), attribute)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
