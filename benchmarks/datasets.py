"""Checking, decoding and encoding real images, and whole runs on them.

    LLMOPT_DATA=DIR .venv/bin/python benchmarks/datasets.py

Needs Caltech-101 in CoOp's layout below DIR. The encoder is the embedded model, a small one: what
share of the time goes into decoding is the most unfavourable there. Writes
``benchmarks/results/datasets.json`` and ``.md``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from llmopt.data.check import check_dataset
from llmopt.data.loading import load_batches
from llmopt.data.registry import open_dataset
from llmopt.data.tasks import make_task
from llmopt.images import Image
from llmopt.runs.compose import compose
from llmopt.runs.config import RunConfig
from llmopt.runs.engine import start
from llmopt.vision.openclip import OpenClipBlackBox, load_model

RESULTS = Path(__file__).parent / "results"
RUNS: dict[str, dict[str, Any]] = {"chat": {}, "craft": {"budget": 400}}


def main() -> None:
    root = os.environ.get("LLMOPT_DATA")
    if not root:
        sys.exit("set LLMOPT_DATA to the folder that holds caltech-101")
    report = check_dataset("caltech101", Path(root))
    dataset = open_dataset("caltech101", Path(root))
    images = dataset.split("test").images
    box = OpenClipBlackBox()
    _, transform, _ = load_model("shapes-tiny", "")
    box.image_features(images[:64])

    def load(image: Image) -> torch.Tensor:
        return transform(image.load())

    decode = timed(lambda: [None for _ in load_batches(images, load, torch.stack, 64)])
    both = timed(lambda: box.image_features(images))
    ready = torch.stack([transform(image.load()) for image in images[:640]])
    encode = timed(lambda: [encode_batch(box, ready[i : i + 64]) for i in range(0, 640, 64)])
    encode *= len(images) / 640

    samples = sum(
        len(make_task(dataset, shots, seed).train) > 0
        for shots in (1, 2, 4, 8, 16)
        for seed in (1, 2, 3)
    )
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMOPT_CACHE"] = folder
        for optimizer, settings in RUNS.items():
            config = RunConfig(
                dataset="caltech101", data_root=root, model="shapes-tiny", optimizer=optimizer,
                settings=settings, llm="builtin" if optimizer == "chat" else "", runs=folder,
            )  # fmt: skip
            seconds = timed(
                lambda config=config: runs.update({config.optimizer: start(compose(config))})
            )
            result = runs[optimizer]
            runs[optimizer] = {
                "seconds": round(seconds, 1),
                "start": result["baseline"]["test_accuracy"],
                "best": result["best"]["test_accuracy"],
                "at_chance": result["at_chance"],
                "ledger": result["ledger"],
            }
    data = {
        "command": "LLMOPT_DATA=DIR python benchmarks/datasets.py",
        "check": {"images": report.images, "ok": report.ok, "seconds": round(report.seconds, 2)},
        "few_shot_samples_drawn": samples,
        "test_images": len(images),
        "images_per_second": round(len(images) / both),
        "decode_only_seconds": round(decode, 2),
        "encode_only_seconds": round(encode, 2),
        "together_seconds": round(both, 2),
        "runs": runs,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "datasets.json").write_text(json.dumps(data, indent=1) + "\n")
    lines = [
        "# Real images",
        "",
        f"`{data['command']}`: Caltech-101 in CoOp's layout, two CPU cores, embedded model.",
        "",
        f"- `datasets check`: {report.images:,} images in {report.seconds:.1f} s.",
        f"- Few-shot samples of 5 shot counts and 3 seeds drawn: {samples} of 15.",
        f"- Encoding {len(images):,} test images: {both:.1f} s, {len(images) / both:.0f} a second. "
        f"Decoding alone takes {decode:.1f} s and encoding alone {encode:.1f} s; they share the "
        "same cores, so together they cannot take less than both.",
        "",
        "| whole run, 1 shot | seconds | start | best |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {run['seconds']} | {100 * run['start']:.1f} % | {100 * run['best']:.1f} % |"
        for name, run in runs.items()
    ]
    lines += ["", "The embedded model knows nothing of these images; the tool says so."]
    text = "\n".join(lines) + "\n"
    (RESULTS / "datasets.md").write_text(text)
    print(text)


@torch.inference_mode()
def encode_batch(box: OpenClipBlackBox, pixels: torch.Tensor) -> torch.Tensor:
    """The model alone, on pixels that are ready."""
    return box._model.encode_image(pixels)


def timed(work: Any) -> float:
    """Seconds of a call."""
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


if __name__ == "__main__":
    main()
