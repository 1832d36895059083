"""Settings: frozen dataclasses whose annotations say which values are allowed.

A field's type and its metadata are all there is to write::

    @dataclass(frozen=True)
    class WalkSettings(Settings):
        steps: Annotated[int, Ge(1)] = 100
        start: Literal["zero", "random"] = "zero"
        budget: Annotated[int, Ge(2)] | None = None

Values come from Python, from a TOML file or as texts from a command line; texts are converted
("yes" to True, "3.0" to 3, "none" to None where that is allowed). pydantic does the work, and is
imported when the first settings are made, so that ``llmopt --help`` need not wait for it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import os
import re
import types
from collections.abc import Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from llmopt.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_OUT_OF_RANGE = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error",
}  # fmt: skip
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_PLURALS = {bool: "true or false", int: "whole numbers", float: "numbers", str: "texts"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all settings; checked and converted however they are made.

    Raises:
        ConfigError: a value is of a wrong type or out of its field's range.
    """

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        for name, value in _typed(type(self), given, type(self).__name__).items():
            object.__setattr__(self, name, value)

    @classmethod
    def make(cls, values: Mapping[str, Any], where: str = "the settings") -> Self:
        """Settings from names and values.

        Args:
            values: by name; what is left out has its default.
            where: what they were read from, for messages.

        Raises:
            ConfigError: an unknown name (the nearest is suggested), or a wrong value.
        """
        return cls(**_typed(cls, values, where))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema of the settings: types, ranges, choices and defaults."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).json_schema()

    @classmethod
    def out_of_range(cls, name: str, value: object, wanted: str) -> str:
        """The sentence that refuses a value; ``wanted`` is such as ``1 or more``."""
        return f"setting {name}={value} must be {wanted}"


def _typed(cls: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values converted to the types of a dataclass's fields, and checked against their ranges.

    Raises:
        ConfigError: an unknown name (the nearest is suggested), or a wrong value.
    """
    from pydantic import ValidationError

    fields = _fields(cls)
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            known = f" (there are: {', '.join(fields)})" if fields else " (there are none)"
            raise ConfigError(
                f"unknown name '{name}' in {where}{nearest(str(name), fields)}{known}"
            )
        hint, adapter = fields[name]
        try:
            typed[name] = adapter.validate_python(_plain(value, hint))
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            if wrong["type"] in _OUT_OF_RANGE and not wrong["loc"]:
                shown = repr(value) if wrong["type"] == "literal_error" else value
                raise ConfigError(cls.out_of_range(name, shown, allowed(hint, value))) from None
            raise ConfigError(
                f"'{name}' in {where} must be {_described(hint)}, not {value!r}"
            ) from None
    return typed


@functools.cache
def _fields(cls: Any) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    """Type and validator of each field."""
    from pydantic import ConfigDict, TypeAdapter

    hints = get_type_hints(cls, include_extras=True)
    finite = ConfigDict(allow_inf_nan=False)
    return {
        f.name: (hints[f.name], TypeAdapter(hints[f.name], config=finite))
        for f in dataclasses.fields(cls)
        if f.init
    }


def _plain(value: Any, hint: Any) -> Any:
    """What pydantic takes for a value of this type, and no more than we mean.

    True is no number here, paths are texts, and the numbers of NumPy are numbers.
    """
    if isinstance(value, str) and value.strip().lower() == "none" and type(None) in types_of(hint):
        return None
    if isinstance(value, bool):
        return value if bool in types_of(hint) else [value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return dict(value) if isinstance(value, Mapping) else value


def types_of(hint: Any) -> Iterator[Any]:
    """The types a hint allows, without what is said about them."""
    if get_origin(hint) is Annotated:
        yield from types_of(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            yield from types_of(option)
    else:
        yield hint


def _bounds(hint: Any) -> dict[str, Any]:
    """What a hint's annotations say about size: ``ge``, ``gt``, ``le``, ``lt``, ``min_length``."""
    found: dict[str, Any] = {}
    if get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            found |= _bounds(option)
    if get_origin(hint) is not Annotated:
        return found
    inner, *said = get_args(hint)
    found |= _bounds(inner)
    for one in said:
        for name in ("ge", "gt", "le", "lt", "min_length"):
            if (value := getattr(one, name, None)) is not None:
                found[name] = value
    return found


def allowed(hint: Any, value: object) -> str:
    """The values allowed, as ``1 or more`` or ``one of: a, b``."""
    for option in types_of(hint):
        if get_origin(option) is Literal:
            choices = [str(choice) for choice in get_args(option)]
            return f"one of: {', '.join(choices)}{nearest(str(value), choices)}"
    at = _bounds(hint)
    if "ge" in at and "le" in at:
        return f"from {at['ge']:g} to {at['le']:g}"
    if at.keys() == {"ge"}:
        return f"{at['ge']:g} or more"
    if at.keys() == {"le"}:
        return f"{at['le']:g} or less"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return " and ".join(f"{word} {at[name]:g}" for name, word in words.items() if name in at)


def _described(hint: Any) -> str:
    """The type wanted, for people."""
    return " or ".join(_named(option) for option in types_of(hint) if option is not type(None))


def _named(option: Any) -> str:
    origin = get_origin(option)
    if origin is Literal:
        return f"one of: {', '.join(map(str, get_args(option)))}"
    if origin is tuple:
        item = get_args(option)[0]
        plural = " or ".join(_PLURALS.get(kind, str(kind)) for kind in types_of(item))
        return f"a list of {plural}" + (f", each {allowed(item, '')}" if _bounds(item) else "")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table of names and values"
    return _TYPES.get(option, str(option))


# --- for people ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of some settings, for people.

    Attributes:
        name: what ``--set`` takes.
        default: its value where nothing is given.
        values: its type and range, such as ``a whole number, 1 or more``.
        meaning: as the docstring of its class says it; empty where that says nothing.
    """

    name: str
    default: Any
    values: str
    meaning: str


def describe(cls: Any) -> list[Setting]:
    """Every field of settings, with what annotations and docstrings say of it."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        meanings |= attributes(base.__doc__ or "")
    found = []
    for one in dataclasses.fields(cls):
        hint, _ = _fields(cls)[one.name]
        default = one.default
        if one.default_factory is not dataclasses.MISSING:
            default = one.default_factory()
        said = [_described(hint)]
        if not said[0].startswith("one of") and (at := _bounds(hint) and allowed(hint, "")):
            said.append(at)
        if type(None) in types_of(hint):
            said.append("or none")
        found.append(Setting(one.name, default, ", ".join(said), meanings.get(one.name, "")))
    return found


def attributes(docstring: str) -> dict[str, str]:
    """The entries below ``Attributes:``, by name; one entry may speak of several names."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.fullmatch(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if entry is not None:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found
