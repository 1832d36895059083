"""What ``shapes-tiny`` makes of right, plain and wrong templates, on the test images.

    python benchmarks/shapes_clip/evaluate.py

Writes ``results.json`` and the table ``results.md`` beside this file. Columns, in percent correct
of the 1,000 test images of each task:

* plain: ``a photo of a {}.``
* planted: the template that names the hidden concept
* wrong: the best of the templates that name another concept of the same kind
* synonyms, frames: the concept in other words, and in other sentences; mean and (lowest)
* captions, + concept: the pool of everyday captions in ``prompts/templates/captions.txt``, as they
  are and with the concept's word put beside the class name; means
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from captions import COLOURS, PATTERNS, SIDES, SIZES, SYNONYMS  # noqa: E402

from llmopt.blackbox import shapes_tiny  # noqa: E402
from llmopt.data.shapes import SHAPES, TASKS, ShapesDataset, planted_template  # noqa: E402
from llmopt.resources import read_lines  # noqa: E402

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

Score = Callable[[Sequence[str]], NDArray[np.float64]]


def described(concept: str, word: str | None = None) -> str:
    """The class name's slot with the concept's word beside it."""
    word = word or concept
    return f"{{}} on the {word}" if concept in SIDES and word == concept else f"{word} {{}}"


def scorer(task: str, weights: Path | None) -> Score:
    """A function from templates to their accuracies on the task's test images."""
    model, preprocess, tokenizer = shapes_tiny.load(weights)
    images, labels = ShapesDataset(task).split("test")
    pixels = torch.stack([preprocess(image.load()) for image in images])
    with torch.inference_mode():
        features = model.encode_image(pixels, normalize=True)
    truth = torch.from_numpy(labels)

    def score(templates: Sequence[str]) -> NDArray[np.float64]:
        accuracies = []
        with torch.inference_mode():
            for template in templates:
                prompts = [template.replace("{}", shape) for shape in SHAPES]
                text = F.normalize(model.encode_text(tokenizer(prompts)), dim=-1)
                right = (features @ text.T).argmax(1) == truth
                accuracies.append(right.double().mean().item())
        return np.array(accuracies)

    return score


def evaluate(task: str, weights: Path | None = None) -> dict[str, float]:
    """One row of the table: fractions correct."""
    score = scorer(task, weights)
    concept = task.removeprefix("shapes-")
    kind = next(kind for kind in KINDS if concept in kind)
    wrong = [_template(other) for other in kind if other != concept]
    synonyms = [f"a photo of a {described(concept, word)}." for word in SYNONYMS[concept]]
    frames = [frame.replace("@", described(concept)) for frame in FRAMES]
    captions = read_lines("templates/captions.txt")
    synonym_scores, frame_scores = score(synonyms), score(frames)
    return {
        "plain": score([ShapesDataset.template])[0],
        "planted": score([planted_template(task)])[0],
        "wrong": score(wrong).max(),
        "synonyms": synonym_scores.mean(),
        "synonyms_lowest": synonym_scores.min(),
        "frames": frame_scores.mean(),
        "frames_lowest": frame_scores.min(),
        "captions": score(captions).mean(),
        "captions_with_concept": score(
            [caption.replace("{}", described(concept)) for caption in captions]
        ).mean(),
    }


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
            name, p["plain"], p["planted"], gain, p["wrong"],
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
    rows = {task: evaluate(task, arguments.weights) for task in TASKS}
    result: dict[str, Any] = {
        "command": "python benchmarks/shapes_clip/evaluate.py",
        "test_images_per_task": len(ShapesDataset(TASKS[0]).split("test")[0]),
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
