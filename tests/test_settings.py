"""Settings hold what their annotations say, or are refused in one clear sentence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import ConfigError
from llmopt.settings import Settings


@dataclass(frozen=True)
class Walk(Settings):
    """Every kind of field there is.

    Attributes:
        steps: how many.
    """

    steps: Annotated[int, Ge(1)] = 10
    tokens: Annotated[int, Interval(ge=1, le=64)] = 4
    rate: Annotated[float, Gt(0)] = 0.1
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    share: Annotated[float, Le(1)] = 0.5
    budget: Annotated[int, Ge(2)] | None = None
    deadline: Annotated[float | None, Gt(0)] = None
    start: Literal["zero", "random"] = "zero"
    words: str = ""
    flip: bool = True
    sizes: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (1.0, 2.0)
    extra: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


def in_range(walk: Walk) -> bool:
    return (
        type(walk.steps) is int
        and walk.steps >= 1
        and 1 <= walk.tokens <= 64
        and 0 < walk.rate < math.inf
        and 0 <= walk.momentum < 1
        and -math.inf < walk.share <= 1
        and (walk.budget is None or (type(walk.budget) is int and walk.budget >= 2))
        and (walk.deadline is None or 0 < walk.deadline < math.inf)
        and walk.start in ("zero", "random")
        and isinstance(walk.words, str)
        and walk.flip in (True, False)
        and len(walk.sizes) > 0
        and all(0 < size < math.inf for size in walk.sizes)
        and isinstance(walk.extra, dict)
    )


names = st.sampled_from([f.name for f in dataclasses.fields(Walk)])
texts = st.sampled_from(
    ["", "none", "yes", "1", "3.0", "-1", "inf", "nan", "1e9", "random", "\udcff", "9" * 5000]
)
single = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts
    | st.sampled_from([10**400, Fraction(10**400), 1j, b"x", object(), Walk, Path("x"),
                       np.int64(3), np.float32(0.5), np.zeros(2)])
)  # fmt: skip
anything = st.recursive(
    single,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(names, anything, max_size=4))
def test_whatever_is_given_is_in_range_or_refused(values: dict[str, Any]) -> None:
    for make in (lambda: Walk(**values), lambda: Walk.make(values, "the test")):
        try:
            walk = make()
        except ConfigError:
            continue
        assert in_range(walk)
        assert Walk.make(dataclasses.asdict(walk), "the test") == walk


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 0}, "setting steps=0 must be 1 or more"),
        ({"steps": "0"}, "setting steps=0 must be 1 or more"),
        ({"tokens": 65}, "setting tokens=65 must be from 1 to 64"),
        ({"rate": 0}, "setting rate=0 must be above 0"),
        ({"momentum": 1.0}, "setting momentum=1.0 must be at least 0 and below 1"),
        ({"share": 2.0}, "setting share=2.0 must be 1 or less"),
        ({"budget": 1}, "setting budget=1 must be 2 or more"),
        ({"deadline": -1.0}, "setting deadline=-1.0 must be above 0"),
        (
            {"start": "zeros"},
            "setting start='zeros' must be one of: zero, random; did you mean 'zero'?",
        ),
        ({"start": 5}, "setting start=5 must be one of: zero, random"),
        ({"steps": "many"}, "'steps' in a.toml must be a whole number, not 'many'"),
        ({"steps": 1.5}, "'steps' in a.toml must be a whole number, not 1.5"),
        ({"steps": True}, "'steps' in a.toml must be a whole number, not True"),
        ({"steps": None}, "'steps' in a.toml must be a whole number, not None"),
        ({"rate": "inf"}, "'rate' in a.toml must be a number, not 'inf'"),
        ({"rate": math.nan}, "'rate' in a.toml must be a number, not nan"),
        ({"rate": False}, "'rate' in a.toml must be a number, not False"),
        ({"budget": "all"}, "'budget' in a.toml must be a whole number, not 'all'"),
        ({"words": 5}, "'words' in a.toml must be a text, not 5"),
        ({"flip": "maybe"}, "'flip' in a.toml must be true or false, not 'maybe'"),
        ({"sizes": []}, "'sizes' in a.toml must be a list of numbers, each above 0, not []"),
        ({"sizes": [0]}, "'sizes' in a.toml must be a list of numbers, each above 0, not [0]"),
        ({"extra": "k=3"}, "'extra' in a.toml must be a table of names and values, not 'k=3'"),
        (
            {"step": 5},
            "unknown name 'step' in a.toml; did you mean 'steps'? (there are: steps, tokens, ",
        ),
    ],
)
def test_refusals_name_the_setting_the_value_and_what_it_must_be(
    values: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Walk.make(values, "a.toml")
    assert str(refused.value).startswith(says)
    assert refused.value.exit_code == 2


def test_settings_made_directly_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="setting steps=0 must be 1 or more"):
        Walk(steps=0)
    with pytest.raises(ConfigError, match="'rate' in Walk must be a number, not 'fast'"):
        Walk(rate="fast")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="setting steps=0"):
        dataclasses.replace(Walk(), steps=0)


def test_texts_become_what_the_field_is() -> None:
    walk = Walk.make(
        {"steps": "3.0", "rate": "1e-3", "budget": "None", "flip": "off", "extra": {"k": "1"}}, "x"
    )
    assert (walk.steps, walk.rate, walk.budget, walk.flip) == (3, 1e-3, None, False)
    assert walk.extra == {"k": "1"}
    for text in ("true", "yes", "on", "1", "True"):
        assert Walk.make({"flip": text}, "x").flip is True
    for text in ("false", "no", "off", "0", "NO"):
        assert Walk.make({"flip": text}, "x").flip is False
    assert Walk.make({"words": "none"}, "x").words == "none"


def test_values_of_other_libraries_become_plain_ones() -> None:
    walk = Walk(steps=np.int64(3), rate=np.float32(0.5), words=Path("a") / "b", sizes=[1, 2])  # type: ignore[arg-type]
    assert (walk.steps, walk.rate, walk.words, walk.sizes) == (3, 0.5, str(Path("a/b")), (1.0, 2.0))
    assert type(walk.steps) is int
    assert type(walk.rate) is float


def test_the_schema_has_ranges_choices_and_defaults() -> None:
    properties = Walk.json_schema()["properties"]
    assert properties["tokens"] == {
        "default": 4, "maximum": 64, "minimum": 1, "title": "Tokens", "type": "integer"
    }  # fmt: skip
    assert properties["start"]["enum"] == ["zero", "random"]
    assert properties["rate"]["exclusiveMinimum"] == 0


def test_settings_without_fields() -> None:
    @dataclass(frozen=True)
    class Nothing(Settings):
        """There is nothing to set."""

    assert Nothing.make({}, "x") == Nothing()
    with pytest.raises(ConfigError, match=r"unknown name 'k' in x \(there are none\)"):
        Nothing.make({"k": 1}, "x")
