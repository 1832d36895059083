"""The prompts of a run in a neutral form, from which every format is written.

A prompt list holds templates with ``{}`` for the class name, never filled prompts, and class names
in label order as a list: two classes may share a name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from llmopt.errors import ConfigError, RunFolderError
from llmopt.predictor import Predictor
from llmopt.runs import folder as run_folder
from llmopt.runs.load import load_predictor, read_found
from llmopt.template import Template, clean, display_name

REPEATS = 64
"""A list that repeats its templates to keep their weights grows no longer than this."""


@dataclass(frozen=True)
class Prompt:
    """A template as a format may show it.

    Attributes:
        text: with one ``{}``.
        weight: its share in the run's classifier; 0 for a runner-up.
        train_accuracy, val_accuracy: fractions; None where not known.
    """

    text: str
    weight: float = 1.0
    train_accuracy: float | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True)
class PromptList:
    """What a run offers for export.

    Attributes:
        prompts: the run's own choice first.
        classnames: in label order.
        dataset: what they were found on.
        model: the black box they were found behind, ``NAME`` or ``NAME TAG``.
        by_class: K lists of whole prompts with weights, where classes have their own; the template
            is then what fills the prompts of other classes.
    """

    prompts: tuple[Prompt, ...]
    classnames: tuple[str, ...] = ()
    dataset: str = ""
    model: str = ""
    by_class: tuple[tuple[Prompt, ...], ...] = ()

    @property
    def templates(self) -> tuple[str, ...]:
        """The texts alone."""
        return tuple(prompt.text for prompt in self.prompts)

    @property
    def names(self) -> list[str]:
        """Class names as they stand in prompts; other tools fill them in as they are."""
        return [clean(display_name(name)) for name in self.classnames]


def read_run(folder: Path, top: int | None, warnings: list[str]) -> PromptList:
    """The prompts of a finished run: those of its predictor, or the ``top`` finalists.

    A head on the prompts is left out, and ``warnings`` says so.

    Raises:
        RunFolderError: the run found no text prompts (a soft prompt is exported otherwise).
    """
    if top is not None and top < 1:
        raise ConfigError(f"--top must be 1 or more, not {top}")
    result = run_folder.read_result(folder)
    predictor = load_predictor(folder, warnings.append)
    found = predictor.text
    if predictor.by_class is not None:
        return _by_class(result, predictor, top, warnings)
    if found is None:
        raise RunFolderError(
            f"run {folder} found {predictor.describe()}, not text prompts; "
            "use --format safetensors --out FILE"
        )
    _warn_of_head(predictor, warnings)
    weights = {t.text: w for t, w in zip(found.templates, found.weights, strict=True)}
    known = {entry["text"]: entry for entry in read_found(folder)["templates"]}
    texts = list(weights) if top is None else list(dict.fromkeys([*weights, *known]))[:top]
    prompts = tuple(
        Prompt(
            Template(text).text,
            weights.get(text, 0.0),
            known.get(text, {}).get("train_accuracy"),
            known.get(text, {}).get("val_accuracy"),
        )
        for text in texts
    )
    return PromptList(prompts, found.classnames, result["task"]["dataset"], _model(result))


def _by_class(
    result: dict[str, Any], predictor: Predictor, top: int | None, warnings: list[str]
) -> PromptList:
    """The prompts of classes that have their own."""
    if top is not None:
        raise ConfigError("--top chooses templates; here every class has prompts of its own")
    _warn_of_head(predictor, warnings)
    described = predictor.innermost
    _, rest = described.state()
    own = tuple(
        tuple(Prompt(text, weight) for text, weight in prompts.items())
        for prompts in (predictor.by_class or {}).values()
    )
    return PromptList(
        (Prompt(str(rest["template"])),),
        tuple(rest["classnames"]),
        result["task"]["dataset"],
        _model(result),
        own,
    )


def _warn_of_head(predictor: Predictor, warnings: list[str]) -> None:
    if predictor.head is not None:
        warnings.append(
            "prompts only: the run's classifier has a head as well, without which its accuracy was "
            "not measured (--format safetensors --out FILE keeps it)"
        )


def _model(result: dict[str, Any]) -> str:
    return f"{result['model']['name']} {result['model']['pretrained'] or ''}".strip()


def repeated_by_class(prompts: PromptList, warnings: list[str]) -> list[list[str]]:
    """As :func:`repeated`, for each class its own prompts."""
    said: list[str] = []
    lists = [repeated(replace(prompts, prompts=own), said) for own in prompts.by_class]
    warnings += dict.fromkeys(said)
    return lists


def repeated(prompts: PromptList, warnings: list[str]) -> list[str]:
    """Templates for a tool that averages a list: each as often as its weight asks.

    The plain mean of such a list is the weighted mean of the run's own classifier. Where that
    cannot be had, ``warnings`` says so.
    """
    texts = list(prompts.templates)
    weights = [prompt.weight for prompt in prompts.prompts]
    if not all(weights):
        if len(texts) > 1:
            warnings.append(
                "this list holds runners-up: a tool that averages it builds a classifier other "
                "than the run's own, whose accuracy was not measured"
            )
        return texts
    shares = [Fraction(weight).limit_denominator(REPEATS) for weight in weights]
    exact = all(abs(float(s) - w) < 1e-6 for s, w in zip(shares, weights, strict=True))
    scale = math.lcm(*(share.denominator for share in shares))
    counts = [int(share * scale) for share in shares]
    common = math.gcd(*counts) or 1
    counts = [count // common for count in counts]
    if not exact or sum(weights) < 1 - 1e-6 or sum(counts) > REPEATS:
        warnings.append(
            "this format has no place for the weights of the templates: a tool that averages them "
            "equally builds a classifier other than the run's own (--format json keeps them)"
        )
        return texts
    return [text for text, count in zip(texts, counts, strict=True) for _ in range(count)]
