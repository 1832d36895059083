"""Requests that an OpenAPI page describes, and requests that nearly keep to it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=5,
)


def requests(page: dict[str, Any], known: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Pairs of a path that takes a body and a body.

    Args:
        page: an OpenAPI page.
        known: texts that are something to who is asked, such as pictures.
    """
    drawn = []
    for path, methods in page["paths"].items():
        if content := methods.get("post", {}).get("requestBody"):
            schema = content["content"]["application/json"]["schema"]
            drawn.append(st.tuples(st.just(path), _bodies(schema, page, known, 6)))
    return st.one_of(drawn)


def _bodies(
    schema: dict[str, Any], page: dict[str, Any], known: st.SearchStrategy[str], depth: int
) -> st.SearchStrategy[Any]:
    """What keeps to a schema, and in one case of ten something else."""
    right = _right(schema, page, known, depth)
    return st.integers(0, 9).flatmap(lambda n: JUNK if n == 0 else right)


def _right(
    schema: dict[str, Any], page: dict[str, Any], known: st.SearchStrategy[str], depth: int
) -> st.SearchStrategy[Any]:
    if name := schema.get("$ref"):
        schema = page["components"]["schemas"][name.rpartition("/")[2]]
    if not depth:
        return JUNK
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return st.one_of([_bodies(one, page, known, depth - 1) for one in choices])
    match schema.get("type"):
        case "object":
            required = schema.get("required", [])
            fields = {
                name: _bodies(one, page, known, depth - 1)
                for name, one in schema.get("properties", {}).items()
            }
            return st.fixed_dictionaries(
                {name: one for name, one in fields.items() if name in required},
                optional={name: one for name, one in fields.items() if name not in required},
            )
        case "array":
            return st.lists(_bodies(schema.get("items", {}), page, known, depth - 1), max_size=4)
        case "string":
            return known | st.text(max_size=30)
        case "integer":
            return st.integers(-2, 2000)
        case "number":
            return st.floats()
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    return JUNK
