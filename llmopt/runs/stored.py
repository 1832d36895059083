"""What the JSON files of a run folder must hold, as types; what else they hold is let pass.

They are checked whenever they are read: a folder may come from elsewhere, or have been edited.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from annotated_types import Interval
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Interval(ge=0, le=2**53)]
Amount = Annotated[float, Interval(ge=0, le=2**53)]
Share = Annotated[float, Interval(ge=0, le=1)]
Difference = Annotated[float, Interval(ge=-1, le=1)]


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Template(_Stored):
    """As :class:`llmopt.search.base.TemplateResult`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    weight: Share
    train_accuracy: Share
    train_logprob: float
    val_accuracy: Share | None


class Prompts(_Stored):
    """``prompts.json``."""

    templates: list[Template]
    classnames: list[str]


class Task(_Stored):
    """What was asked."""

    dataset: str
    classes: Count
    shots: Count
    seed: Count
    train_images: Count
    val_images: Count
    test_images: Count
    split_sha256: str


class Model(_Stored):
    """The black box."""

    name: str
    pretrained: str
    access: str
    weights_sha256: str


class Stage(_Stored):
    """As :class:`llmopt.search.base.Stage`."""

    name: str
    kept: bool
    why: str
    gain_nats: float | None
    se: float | None
    accuracy: Annotated[list[Share], Field(min_length=2, max_length=2)] | None
    spent: dict[str, Amount]


class Summary(_Stored):
    """Counts of a search; each has some of its own."""

    proposals: Count = 0
    calls: Count = 0
    gain_nats: float = 0.0
    gain_se: float = 0.0
    stages: list[Stage] = []


class Optimizer(_Stored):
    """The search."""

    name: str
    settings: dict[str, Any]
    llm: str | None
    summary: Summary
    notes: list[str] = []


class Measured(_Stored):
    """Accuracies, fractions."""

    train_accuracy: Share | None
    val_accuracy: Share | None
    test_accuracy: Share | None
    test_accuracy_ci95: Annotated[list[Share], Field(min_length=2, max_length=2)] | None


class Baseline(Measured):
    """The start."""

    template: str


class Best(Measured):
    """What was found."""

    templates: list[Template]
    soft_prompt: dict[str, Any] | None
    head: dict[str, Any] | None
    fallback: bool
    tried: bool = True


class Gain(_Stored):
    """Of the best over the start."""

    test_accuracy: Difference | None
    ci95: Annotated[list[Difference], Field(min_length=2, max_length=2)] | None
    p_value: Share | None


class Seconds(_Stored):
    """Where the time went."""

    total: Amount
    llm: Amount
    black_box: Amount


class Result(_Stored):
    """``result.json``."""

    schema_: Literal[1] = Field(alias="schema")
    run: str
    status: Literal["complete", "interrupted"]
    stop_reason: str
    task: Task
    model: Model
    optimizer: Optimizer
    baseline: Baseline
    best: Best
    gain: Gain
    ledger: dict[str, Amount | None]
    evaluation: dict[str, Amount | None]
    seconds: Seconds
    versions: dict[str, str]


class Remeasured(_Stored):
    """A finished run on other test images, as its journal holds it."""

    test_images: Annotated[int, Interval(ge=1, le=2**53)]
    best_accuracy: Share


def is_a(found: object, kind: type[_Stored]) -> bool:
    """Whether something read from a file holds what it should."""
    try:
        kind.model_validate(found)
    except ValidationError:
        return False
    return True


_LARGEST: Final = 2**28  # bytes


def read(path: Path, kind: type[_Stored]) -> dict[str, Any]:
    """A JSON file as it stands there, once it is known to hold what it should.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not; the message says where.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind.model_validate(found)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{where}: {first['msg']}") from None
    return found
