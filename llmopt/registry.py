"""Names for what can be plugged in: ours, and what packages outside add.

A registry maps a name to ``module:attribute`` and imports it when it is asked for, so that listing
names loads nothing. Packages outside add to it through an entry point of its group, such as

    [project.entry-points."llmopt.optimizers"]
    mine = "my_package.mine:Mine"

A name of ours cannot be taken by a plug-in. A plug-in that cannot be used is an error only for
whoever asks for it by name; everybody else passes it over, and ``llmopt doctor`` names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
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

    @property
    def note(self) -> str:
        """Where it comes from and what is wrong with it, one line."""
        whence = f"from the plug-in package {self.package}"
        return f"{whence}, and cannot be used: {self.problem}" if self.problem else whence


class Registry(Generic[T]):
    """Things of one kind by name.

    Args:
        kind: what one of them is called in errors, such as ``optimizer``.
        group: of entry points, without ``llmopt.``.
        own: name to ``module:attribute``.
        base: ``module:Class`` that what a plug-in adds must derive from or be one of; any callable
            will do if it is empty.
        reserved: names that mean something else where these are given.
        error: raised for a name that is not known.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        own: Mapping[str, str],
        *,
        base: str = "",
        reserved: Collection[str] = (),
        error: type[LlmoptError] = ConfigError,
    ) -> None:
        self.kind = kind
        self.group = f"llmopt.{group}"
        self._own = dict(own)
        self._base = base
        self._reserved = tuple(reserved)
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
                used; of the type given for this registry.
        """
        if name in self._own:
            return cast(T, resolve_name(self._own[name]))
        if name not in self._outside:
            known = [*self._reserved, *self.names()]
            raise self._error(
                f"unknown {self.kind} '{name}'{nearest(name, known)} (there are: "
                f"{', '.join(known)})"
            )
        point = self._outside[name]
        try:
            return cast(T, self._load(point))
        except _BROKEN as error:
            raise self._error(
                f"{self.kind} '{name}' is "
                f"{Plugin(self.kind, name, _package(point), _said(error)).note}"
            ) from error

    def usable(self) -> dict[str, T]:
        """All of them by name but for plug-ins that cannot be used, which are passed over."""
        found = {}
        for name in self.names():
            if name in self._own or not self._problem(self._outside[name]):
                found[name] = self.get(name)
        return found

    def plugins(self) -> list[Plugin]:
        """What packages outside add, each loaded to see whether it can be used."""
        return [
            Plugin(self.kind, point.name, _package(point), self._problem(point))
            for point in self._points
        ]

    def _problem(self, point: EntryPoint) -> str:
        if point.name in (*self._own, *self._reserved):
            return f"the name '{point.name}' is taken by llmopt"
        first = self._outside[point.name]
        if first is not point:
            return f"the name '{point.name}' is taken by the package {_package(first)}"
        try:
            self._load(point)
        except _BROKEN as error:
            return _said(error)
        return ""

    @cached_property
    def _points(self) -> list[EntryPoint]:
        # In an order that does not depend on how the file system lists packages.
        return sorted(entry_points(group=self.group), key=lambda p: (p.name, _package(p)))

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        outside: dict[str, EntryPoint] = {}
        for point in self._points:
            if point.name not in (*self._own, *self._reserved):
                outside.setdefault(point.name, point)
        return outside

    def _load(self, point: EntryPoint) -> Any:
        loaded = point.load()
        if not self._base:
            fits, wanted = callable(loaded), "a function"
        else:
            base = resolve_name(self._base)
            fits = isinstance(loaded, base) or (
                isinstance(loaded, type) and issubclass(loaded, base)
            )
            wanted = f"of {base.__module__}.{base.__name__}"
        if not fits:
            raise TypeError(f"{point.value} is not {wanted}")
        return loaded


_BROKEN = (Exception, SystemExit)
"""Whatever an import of somebody else's package may end in."""


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
