"""What ``shapes-tiny`` makes of right, plain and wrong templates, on the test images.

    python benchmarks/shapes_clip/evaluate.py

Writes ``results.json`` and the table ``results.md`` beside this file. Columns, in percent correct
of the 1,000 test images of each task:

* plain: ``a photo of a {}.``
* planted: the template that names the hidden concept
* wrong: the templates that name another concept of the same kind; mean and (highest)
* synonyms, frames: the concept in other words, and in other sentences; mean and (lowest)
* captions, + concept: everyday captions from ``prompts/templates/captions.txt``, as they are and
  with the concept's word put beside the class name; means
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from captions import COLOURS, PATTERNS, SIDES, SIZES, SYNONYMS  # noqa: E402

from llmopt.data.shapes import (  # noqa: E402
    SHAPES,
    TASKS,
    TEST_IMAGES,
    ShapesDataset,
    planted_template,
)
from llmopt.resources import read_lines  # noqa: E402
from llmopt.vision import shapes_tiny  # noqa: E402

CAPTION_STEP = 4  # every fourth caption of the pool will do
KINDS = (SIZES, SIDES, COLOURS, PATTERNS)
# How sentences speak of the concept; @ is the described class name.
FRAMES = (
    "a photo of a @.", "a photo of the @", "the @.", "@", "an image of one @ on a table.",
    "a close-up photo of a @ in the wild.", "there is a @ near the old harbour.",
    "a photograph of my grandmother's @ at the kitchen window.", "this is a @!",
    "a drawing of a @.", "a @ sitting near the window of an old house on a sunny day.",
    "a museum in Vienna shows a @ behind glass", "we found this @ at the market last summer",
    "a toy @, handmade and shipped from Denmark", "a low resolution photo of a @.",
)  # fmt: skip


def described(concept: str, word: str | None = None) -> str:
    """The class name's slot with the concept's word beside it."""
    word = word or concept
    return f"{{}} on the {word}" if concept in SIDES and word == concept else f"{word} {{}}"


class Scorer:
    """Accuracies of templates on the tasks' test images; every image and prompt is encoded once."""

    def __init__(self, weights: Path | None = None) -> None:
        self._model, self._preprocess, self._tokenizer = shapes_tiny.load(weights)
        self._texts: dict[str, Tensor] = {}

    @torch.inference_mode()
    def images(self, task: str, count: int | None = None) -> tuple[Tensor, Tensor]:
        """(N, d) features and (N,) labels of the task's first ``count`` test images, or of all."""
        images, labels = ShapesDataset(task).split("test")
        pixels = torch.stack([self._preprocess(image.load()) for image in images[:count]])
        features = self._model.encode_image(pixels, normalize=True)
        return features, torch.from_numpy(labels[:count])

    @torch.inference_mode()
    def accuracies(
        self, images: tuple[Tensor, Tensor], templates: Sequence[str]
    ) -> NDArray[np.float64]:
        """(T,) fraction of ``images`` that each template labels correctly."""
        features, labels = images
        right = [(features @ self._text(t).T).argmax(1) == labels for t in templates]
        return torch.stack(right).double().mean(1).numpy()

    def _text(self, template: str) -> Tensor:
        if template not in self._texts:
            prompts = [template.replace("{}", shape) for shape in SHAPES]
            features = self._model.encode_text(self._tokenizer(prompts), normalize=True)
            self._texts[template] = features
        return self._texts[template]


def evaluate(task: str, scorer: Scorer) -> dict[str, float]:
    """One row of the table: fractions correct."""
    images = scorer.images(task)
    concept = task.removeprefix("shapes-")
    kind = next(kind for kind in KINDS if concept in kind)
    captions = read_lines("templates/captions.txt")[::CAPTION_STEP]
    columns = {
        "plain": [ShapesDataset.template],
        "planted": [planted_template(task)],
        "wrong": [_template(other) for other in kind if other != concept],
        "synonyms": [f"a photo of a {described(concept, word)}." for word in SYNONYMS[concept]],
        "frames": [frame.replace("@", described(concept)) for frame in FRAMES],
        "captions": captions,
        "captions_with_concept": [c.replace("{}", described(concept)) for c in captions],
    }
    scores = {name: scorer.accuracies(images, templates) for name, templates in columns.items()}
    row = {name: float(values.mean()) for name, values in scores.items()}
    row["wrong_highest"] = float(scores["wrong"].max())
    row |= {f"{name}_lowest": float(scores[name].min()) for name in ("synonyms", "frames")}
    return row


def _template(concept: str) -> str:
    """The planted template's wording for any concept of the world."""
    return f"a {described(concept)}."


def table(rows: dict[str, dict[str, float]]) -> str:
    """The results as Markdown, in percent."""
    lines = [
        "| task | plain | planted | gain | wrong | synonyms | frames | captions | + concept |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in rows[TASKS[0]]}
    for name, row in [*rows.items(), ("**mean**", mean)]:
        p = {key: f"{100 * value:.1f}" for key, value in row.items()}
        gain = f"{100 * (row['planted'] - row['plain']):+.1f}"
        cells = [
            name, p["plain"], p["planted"], gain, f"{p['wrong']} ({p['wrong_highest']})",
            f"{p['synonyms']} ({p['synonyms_lowest']})", f"{p['frames']} ({p['frames_lowest']})",
            p["captions"], p["captions_with_concept"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, help="instead of the packaged ones")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the results")
    arguments = parser.parse_args()
    scorer = Scorer(arguments.weights)
    rows = {task: evaluate(task, scorer) for task in TASKS}
    result: dict[str, Any] = {
        "command": "python benchmarks/shapes_clip/evaluate.py",
        "test_images_per_task": TEST_IMAGES,
        "accuracy": {
            task: {key: round(float(value), 4) for key, value in row.items()}
            for task, row in rows.items()
        },
    }
    if arguments.weights is None:
        result["weights_sha256"] = shapes_tiny.weights_sha256()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "results.md").write_text(table(rows))
    print(table(rows), end="")


if __name__ == "__main__":
    main()
