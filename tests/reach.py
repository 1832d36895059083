"""What can be reached from an object: the test of a wall is that nothing behind it is found."""

from __future__ import annotations

import contextlib
import functools
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)


def reachable(start: Any) -> list[Any]:
    """Every object that attributes, items, closures and bound methods of ``start`` lead to."""
    seen: dict[int, Any] = {id(start): start}
    todo = deque([start])
    while todo:
        for part in _parts(todo.popleft()):
            if not isinstance(part, _LEAVES) and id(part) not in seen:
                seen[id(part)] = part
                todo.append(part)
    return list(seen.values())


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, Mapping):
        yield from thing.keys()
        yield from thing.values()
    elif isinstance(thing, (list, tuple, set, frozenset, deque)):
        yield from thing
    elif isinstance(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                yield cell.cell_contents
        yield from thing.__defaults__ or ()
    elif isinstance(thing, types.MethodType):
        yield thing.__self__
        yield thing.__func__
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    if isinstance(getattr(thing, "__dict__", None), dict):
        yield from thing.__dict__.values()
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                yield getattr(thing, name)
