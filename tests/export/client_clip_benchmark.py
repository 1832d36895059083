"""CLIP_benchmark's zero-shot evaluation of both its export formats, as a program: ``FOLDER``.

Prints accuracy, predictions and classifier of each as one line of JSON. The one line of it that
numpy 2.4 broke is put right: CLIP_benchmark makes a number of an array of one element.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from llmopt._torchvision import ensure_operators

ensure_operators()
import open_clip  # noqa: E402
from clip_benchmark.datasets import builder  # noqa: E402
from clip_benchmark.metrics import zeroshot_classification as zeroshot  # noqa: E402


def accuracy(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...] = (1,)) -> Any:
    """CLIP_benchmark's, but for the conversion of its sum to a number."""
    ranks = output.topk(max(topk), 1, True, True)[1].t()
    correct = ranks.eq(target.view(1, -1).expand_as(ranks))
    return [float(correct[:k].reshape(-1).float().sum()) / output.shape[0] for k in topk]


def evaluate(folder: Path, preprocess: Any, model: Any, tokenizer: Any, files: Any) -> Any:
    """What CLIP_benchmark finds, with its own reading of data and prompts."""
    dataset = builder.build_dataset(
        "wds/shapes", root=str(folder / "data"), transform=preprocess, split="test",
        task="zeroshot_classification", **files,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(dataset.batched(64), batch_size=None, num_workers=0)
    names, templates = dataset.classes, dataset.templates
    classifier = zeroshot.zero_shot_classifier(model, tokenizer, names, templates, "cpu", amp=False)
    logits, _ = zeroshot.run_classification(model, classifier, loader, "cpu", amp=False)
    metrics = zeroshot.evaluate(model, loader, tokenizer, names, templates, "cpu", amp=False)
    return {
        "acc1": metrics["acc1"],
        "predicted": logits.argmax(dim=1).tolist(),
        "classifier": classifier.tolist(),
    }


def main(folder: Path) -> None:
    """Evaluate and print."""
    zeroshot.accuracy = accuracy
    name = f"local-dir:{folder / 'model'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    shared = folder, preprocess, model.eval(), open_clip.get_tokenizer(name)
    custom = {
        "custom_template_file": str(folder / "json" / "templates.json"),
        "custom_classname_file": str(folder / "json" / "classnames.json"),
    }
    print(json.dumps({"wds": evaluate(*shared, {}), "json": evaluate(*shared, custom)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
