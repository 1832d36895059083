"""``result.json``: what a run found, in the schema of the command-line contract."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from llmopt._version import __version__
from llmopt.data.soundness import NOTHING_ODD, Findings
from llmopt.predictor import Predictor, TextPredictor
from llmopt.runs.folder import PREDICTIONS, PREDICTOR, PROMPTS, RESULT
from llmopt.runs.machine import machine
from llmopt.runs.measure import Evaluation
from llmopt.search.base import Optimizer, Outcome
from llmopt.search.text.described import DescribedPredictor
from llmopt.spend.files import keeping, write_arrays, write_text
from llmopt.spend.ledger import Ledger
from llmopt.stats import accuracy_interval
from llmopt.task import Task
from llmopt.vision.base import BoxInfo

SCHEMA = 2


def build(
    *,
    folder: Path,
    task: Task,
    info: BoxInfo,
    optimizer: Optimizer[Any],
    name: str,
    llm: str | None,
    outcome: Outcome,
    train: tuple[float | None, float | None],
    val: tuple[float | None, float | None],
    before: tuple[float | None, float | None] = (None, None),
    evaluation: Evaluation | None,
    ledger: Ledger,
    evaluation_ledger: Ledger,
    seconds: dict[str, float],
    found: Findings = NOTHING_ODD,
    left_out: int = 0,
    llm_repeats: bool = True,
    precision_why: str = "",
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """The result of a run.

    Args:
        optimizer, name: the search, and the name it was asked for by.
        llm: the language model it asked, or None.
        remarks: what about that is worth keeping.
        train, val: accuracies of the start and of what was found; None without such images.
        before: of what was best before a language model was asked, on both.
        evaluation: on the test images, or None if they were not opened (an interrupted run).
        seconds: ``total``, ``llm``, ``black_box``.
        found: what is odd about the data.
        left_out: test images that could not be read.
        llm_repeats: the language model, if there is one, answers the same messages alike.
        precision_why: what decided the precision of the black box, where nobody asked for one.
    """
    interrupted = outcome.stop_reason == "interrupted"
    gain = evaluation.gain if evaluation else None
    skipped = {
        **found.skipped,
        "training images that cannot be read": task.left_out,
        "test images that cannot be read": left_out,
    }
    odd = {
        "notes": [*found.warnings, *found.notes],
        "skipped": {reason: count for reason, count in skipped.items() if count},
    }
    alias = {} if optimizer.name == name else {"same_as": optimizer.name}
    return {
        "schema": SCHEMA,
        "run": str(folder),
        "status": "interrupted" if interrupted else "complete",
        "stop_reason": outcome.stop_reason,
        "task": {
            "dataset": task.dataset,
            "classes": len(task.classnames),
            "shots": task.shots,
            "seed": task.seed,
            "train_images": len(task.train),
            "val_images": len(task.val),
            "test_images": len(evaluation.labels) if evaluation else 0,
            "split_sha256": task.split_sha256,
            "split": task.provenance,
            **{name: told for name, told in odd.items() if told},
        },
        "model": {
            "name": info.name,
            "pretrained": info.pretrained,
            "access": str(info.access),
            "weights_sha256": info.weights_sha256,
        },
        "optimizer": {
            "name": name,
            "settings": optimizer.as_given(),
            "llm": llm,
            "summary": {**outcome.summary, **alias},
            **({"notes": list(remarks)} if remarks else {}),
        },
        "baseline": {
            "template": task.start.text,
            "train_accuracy": train[0],
            "val_accuracy": val[0],
            "test_accuracy": evaluation.baseline_accuracy if evaluation else None,
            "test_accuracy_ci95": list(evaluation.baseline_ci95) if evaluation else None,
        },
        "best": {
            "templates": [dataclasses.asdict(t) for t in outcome.templates if t.weight > 0],
            **_of_classes(outcome.predictor.innermost, task),
            "soft_prompt": outcome.predictor.soft_prompt,
            "head": outcome.predictor.head,
            "fallback": outcome.fallback,
            **{name: told for name in ("why", "source") if (told := getattr(outcome, name))},
            **({} if outcome.tried else {"tried": False}),
            "train_accuracy": train[1],
            "val_accuracy": val[1],
            "test_accuracy": evaluation.best_accuracy if evaluation else None,
            "test_accuracy_ci95": list(evaluation.best_ci95) if evaluation else None,
        },
        **_before(outcome, before, evaluation),
        "gain": {
            "test_accuracy": gain.difference if gain else None,
            "ci95": list(gain.ci95) if gain else None,
            "p_value": gain.p_value if gain else None,
        },
        "at_chance": evaluation.at_chance if evaluation else None,
        **(evaluation.told(task.classnames) if evaluation else {}),
        "ledger": ledger.snapshot(),
        "evaluation": evaluation_ledger.snapshot(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "versions": versions(),
        "machine": machine(info, llm_repeats, precision_why),
    }


def _of_classes(predictor: Predictor, task: Task) -> dict[str, Any]:
    """What was found for single classes: other names, and prompts of their own."""
    found: dict[str, Any] = {}
    if isinstance(predictor, (TextPredictor, DescribedPredictor)):
        pairs = zip(task.classnames, predictor.classnames, strict=True)
        if names := {old: new for old, new in pairs if old != new}:
            found["names"] = names
    if isinstance(predictor, DescribedPredictor):
        plain = map(predictor.template.fill, predictor.classnames)
        own = [set(p) - {one} for p, one in zip(predictor.prompts, plain, strict=True)]
        found["described"] = {"classes": sum(map(bool, own)), "prompts": sum(map(len, own))}
    return found


def _before(
    outcome: Outcome, accuracies: tuple[float | None, float | None], evaluation: Evaluation | None
) -> dict[str, Any]:
    """What was best before a language model was asked, if one was."""
    if outcome.before is None:
        return {}
    predicted = evaluation.before if evaluation else None
    hits = None if evaluation is None or predicted is None else predicted.top == evaluation.labels
    return {
        "before_llm": {
            "template": outcome.before.describe(),
            "train_accuracy": accuracies[0],
            "val_accuracy": accuracies[1],
            "test_accuracy": None if hits is None else float(hits.mean()),
            "test_accuracy_ci95": None if hits is None else list(accuracy_interval(hits)),
        }
    }


def save(
    folder: Path,
    result: dict[str, Any],
    outcome: Outcome,
    evaluation: Evaluation | None,
    classnames: Sequence[str],
) -> None:
    """Write the files of a run; ``result.json`` last, since it says that the others are there.

    Raises:
        RunFolderError: they cannot be written.
    """
    ranked = [dataclasses.asdict(template) for template in outcome.templates]
    found = {"schema": 1, "templates": ranked, "classnames": list(classnames)}
    tensors, state = outcome.predictor.state()
    with keeping(folder):
        write_text(folder / PROMPTS, _json(found))
        write_arrays(folder / PREDICTOR, tensors, {"predictor": json.dumps(state)})
        if evaluation is not None:
            write_arrays(folder / PREDICTIONS, evaluation.arrays(), {})
        write_text(folder / RESULT, _json(result))


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"llmopt": __version__, "python": platform.python_version(), "platform": sys.platform}
    for package in ("torch", "open_clip_torch", "numpy", "pillow", "langchain-core", "openai"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
