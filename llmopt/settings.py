"""Settings that people give as texts or files, converted to the types of a dataclass's fields."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from llmopt.errors import ConfigError, nearest


def typed_values(cls: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values converted to the types of a dataclass's fields.

    Raises:
        ConfigError: an unknown name (the nearest is suggested) or a value of a wrong type.
    """
    hints = get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            listed = f" (there are: {', '.join(known)})" if known else " (there are none)"
            raise ConfigError(f"unknown name '{name}' in {where}{nearest(name, known)}{listed}")
        typed[name] = _convert(value, hints[name], name, where)
    return typed


def _convert(value: Any, hint: Any, name: str, where: str) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, str) and value.lower() == "none" and type(None) in options:
        return None
    for option in options:
        if get_origin(option) in (Mapping, dict) or option in (Mapping, dict):
            if isinstance(value, Mapping):
                return dict(value)
            continue
        try:
            return _CONVERTERS[option](value)
        except (KeyError, TypeError, ValueError):
            continue
    wanted = " or ".join(_TYPE_NAMES.get(o, str(o)) for o in options if o is not type(None))
    raise ConfigError(f"'{name}' in {where} must be {wanted}, not {value!r}")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    return words[str(value).lower()]


def _int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(value)
    return number


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


_CONVERTERS = {bool: _bool, int: _int, float: _float, str: _str}
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
