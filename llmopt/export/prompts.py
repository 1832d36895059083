"""Prompt lists of a run in other tools' formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import ConfigError, RunFolderError, nearest
from llmopt.predictor import TextPredictor
from llmopt.run import folder as run_folder
from llmopt.run.open import load_predictor

SCHEMA = 1


@dataclass(frozen=True)
class PromptList:
    """What a run offers for export.

    Attributes:
        templates: texts with one ``{}``, the run's own choice first.
        weights: one each; 0 for runners-up.
        classnames: in label order.
        dataset: what they were found on.
    """

    templates: tuple[str, ...]
    weights: tuple[float, ...]
    classnames: tuple[str, ...]
    dataset: str


def read_prompts(folder: Path, top: int | None = None) -> PromptList:
    """The prompts of a finished run: those of its predictor, or the ``top`` finalists.

    Raises:
        RunFolderError: the run found no text prompts (a soft prompt is exported otherwise).
    """
    result = run_folder.read_result(folder)
    predictor = load_predictor(folder)
    if not isinstance(predictor, TextPredictor):
        raise RunFolderError(
            f"run {folder} found a soft prompt, which has no words; use --format safetensors"
        )
    templates = {t.text: w for t, w in zip(predictor.templates, predictor.weights, strict=True)}
    if top is not None:
        if top < 1:
            raise ConfigError(f"--top must be 1 or more, not {top}")
        ranked = json.loads((folder / run_folder.PROMPTS).read_text(encoding="utf-8"))["templates"]
        texts = dict.fromkeys([*templates, *(entry["text"] for entry in ranked)])
        templates = {text: templates.get(text, 0.0) for text in list(texts)[:top]}
    return PromptList(
        tuple(templates),
        tuple(templates.values()),
        predictor.classnames,
        result["task"]["dataset"],
    )


def as_text(prompts: PromptList) -> str:
    """One template a line."""
    return "".join(f"{text}\n" for text in prompts.templates)


def as_json(prompts: PromptList) -> str:
    """llmopt's own format, with weights and class names."""
    data = {
        "schema": SCHEMA,
        "dataset": prompts.dataset,
        "templates": [
            {"text": text, "weight": weight}
            for text, weight in zip(prompts.templates, prompts.weights, strict=True)
        ],
        "classnames": list(prompts.classnames),
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def as_openclip(prompts: PromptList) -> str:
    """A Python file for ``open_clip.build_zero_shot_classifier``."""
    return (
        "# For open_clip.build_zero_shot_classifier(model, tokenizer, CLASSNAMES, TEMPLATES).\n"
        f"TEMPLATES = {_literal(prompts.templates)}\n\n"
        f"CLASSNAMES = {_literal(name.replace('_', ' ') for name in prompts.classnames)}\n"
    )


FORMATS: dict[str, Callable[[PromptList], str]] = {
    "txt": as_text,
    "json": as_json,
    "openclip": as_openclip,
}


def export(folder: Path, format: str, top: int | None = None) -> str:
    """The prompts of a run as the text of one file.

    Raises:
        ConfigError: an unknown format; the nearest is suggested.
    """
    if format not in FORMATS:
        raise ConfigError(
            f"unknown format '{format}'{nearest(format, FORMATS)} (there are: {', '.join(FORMATS)})"
        )
    return FORMATS[format](read_prompts(folder, top))


def _literal(texts: Any) -> str:
    items: Sequence[str] = list(texts)
    return "[\n" + "".join(f"    {text!r},\n" for text in items) + "]"
