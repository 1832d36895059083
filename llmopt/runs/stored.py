"""What the JSON files of a run folder must hold, as types; what else they hold is let pass.

The reference of ``result.json`` is made from here: fields with a default are there only where there
is something to say.

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
Pair = Annotated[list[Share], Field(min_length=2, max_length=2)]


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Template(_Stored):
    """A template with what is known of it.

    Attributes:
        text: it has exactly one ``{}``.
        weight: of its scores in the predictor; all of them sum to 1.
        train_accuracy: on the training images.
        train_logprob: mean log-likelihood of the right class there, in nats.
        val_accuracy: on the validation images; null without any.
    """

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
    """What was asked.

    Attributes:
        dataset: as it was named.
        classes: how many.
        shots: labelled training images a class.
        seed: of the few-shot sample and of every random choice.
        train_images: labelled images the search looked at.
        val_images: labelled images the last choice looked at too.
        test_images: measured on once, at the end.
        split_sha256: of the images and labels of all three.
        split: where they come from.
        notes: what is odd about the data.
        skipped: what was left out, by reason.
    """

    dataset: str
    classes: Count
    shots: Count
    seed: Count
    train_images: Count
    val_images: Count
    test_images: Count
    split_sha256: str
    split: str = ""
    notes: list[str] = []
    skipped: dict[str, Count] = {}


class Model(_Stored):
    """The black box.

    Attributes:
        name: its architecture, folder or address.
        pretrained: tag of its weights.
        access: what it let out: labels, scores, features or soft.
        weights_sha256: of its weights, where they are known.
    """

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
    """Counts of a search; each has some of its own.

    Attributes:
        proposals: templates that a language model proposed.
        calls: how often it was asked.
        gain_nats: of log-likelihood on the few shots, over the start.
        gain_se: the standard error of that.
    """

    proposals: Count = 0
    calls: Count = 0
    gain_nats: float = 0.0
    gain_se: float = 0.0
    stages: list[Stage] = []


class Optimizer(_Stored):
    """The search.

    Attributes:
        name: as it was named.
        settings: all of them, defaults too.
        llm: the language model it asked, or null.
        notes: what is worth keeping of that.
    """

    name: str
    settings: dict[str, Any]
    llm: str | None
    summary: Summary
    notes: list[str] = []


class Measured(_Stored):
    """Accuracies.

    Attributes:
        train_accuracy: null where nobody looked; so are the others.
        val_accuracy: the same of validation images.
        test_accuracy: the same of test images.
        test_accuracy_ci95: Wilson's interval of it.
    """

    train_accuracy: Share | None
    val_accuracy: Share | None
    test_accuracy: Share | None
    test_accuracy_ci95: Pair | None


class Baseline(Measured):
    """The start.

    Attributes:
        template: what every gain is measured against.
    """

    template: str


class Before(Baseline):
    """What was best before a language model was asked, if one was.

    Attributes:
        template: it.
    """


class Described(_Stored):
    """Prompts that classes have of their own, beside the template with their name."""

    classes: Count
    prompts: Count


class Best(Measured):
    """What was found.

    Attributes:
        templates: those of the predictor.
        names: of classes that were given another, the old to the new.
        described: how many classes have how many prompts of their own.
        soft_prompt: size and origin of a soft prompt; its vectors are in predictor.safetensors.
        head: the head that was fitted, and why.
        fallback: nothing was convincingly better, so the start was kept.
        tried: anything but the start was scored.
        why: this one and no other.
        source: where its template comes from.
    """

    templates: list[Template]
    soft_prompt: dict[str, Any] | None
    head: dict[str, Any] | None
    fallback: bool
    tried: bool = True
    why: str = ""
    source: str = ""
    names: dict[str, str] = {}
    described: Described | None = None


class Gain(_Stored):
    """Of the best over the start, on the same test images.

    Attributes:
        test_accuracy: the difference.
        ci95: its interval, over images.
        p_value: of a paired test (McNemar's).
    """

    test_accuracy: Difference | None
    ci95: Annotated[list[Difference], Field(min_length=2, max_length=2)] | None
    p_value: Share | None


class Bin(_Stored):
    """Images whose prediction is about as sure."""

    low: Share
    high: Share
    images: Count
    confidence: Share
    accuracy: Share


class Figures(_Stored):
    """Of one predictor on the test images."""

    top1: Share
    top5: Share | None
    mean_per_class_recall: Share
    macro_f1: Share
    ece: Share | None
    reliability: list[Bin] | None = None


class PerClass(_Stored):
    """A class on the test images."""

    class_: str = Field(alias="class")
    images: Count
    start_recall: Share | None
    start_recall_ci95: Pair | None
    recall: Share | None
    recall_ci95: Pair | None
    precision: Share | None
    f1: Share | None


class Published(_Stored):
    """An ensemble of templates that everybody knows."""

    templates: Count
    test_accuracy: Share
    test_accuracy_ci95: Pair
    metrics: Figures
    gain: Gain


class Seconds(_Stored):
    """Where the time went.

    Attributes:
        total: of the search, in all sittings.
        llm: waiting for the language model.
        black_box: waiting for the black box.
    """

    total: Amount
    llm: Amount
    black_box: Amount


class Result(_Stored):
    """``result.json``.

    Attributes:
        schema: the version of this file.
        run: its folder.
        status: an interrupted run was not measured on the test images; resume it.
        stop_reason: why the search ended.
        before_llm: what was best before a language model was asked, if one was.
        at_chance: the start does no better than guessing.
        ledger: what the search spent, by currency; null where a price is not known.
        evaluation: what measuring on the test images spent, by currency.
        versions: of what decides a result.
        machine: what it ran on, and whether another would find the same.
    """

    schema_: Literal[1, 2] = Field(alias="schema")
    run: str
    status: Literal["complete", "interrupted"]
    stop_reason: str
    task: Task
    model: Model
    optimizer: Optimizer
    baseline: Baseline
    before_llm: Before | None = None
    best: Best
    gain: Gain
    at_chance: bool | None = None
    ledger: dict[str, Amount | None]
    evaluation: dict[str, Amount | None]
    metrics: dict[Literal["start", "best"], Figures] = {}
    per_class: list[PerClass] = []
    baselines: dict[str, Published] = {}
    seconds: Seconds
    versions: dict[str, str]
    machine: dict[str, Any] = {}


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
_SCHEMA: Final = 2  # the latest, of every file


class Newer(ValueError):
    """A file is whole, but of a later version than this one knows."""


def read(path: Path, kind: type[_Stored]) -> dict[str, Any]:
    """A JSON file as it stands there, once it is known to hold what it should.

    Raises:
        OSError: it cannot be read.
        Newer: a later version wrote it.
        ValueError: it does not; the message says where.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST >> 20} MiB")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = found.get("schema") if isinstance(found, dict) else None
        if isinstance(schema, int) and schema > _SCHEMA:
            raise Newer(f"was written by a newer llmopt (its schema is {schema}, not {_SCHEMA})")
        kind.model_validate(found)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{where}: {first['msg']}") from None
    return found
