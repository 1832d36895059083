"""Memory and disk of ``craft`` as released, which draws its training images anew each generation.

    .venv/bin/python benchmarks/craft_memory.py

100 classes with 16 shots, photo-sized JPEG files of noise, behind ViT-B-32 with random weights on a
CPU in fp32: the whole ``run``, in a fresh process for each number of generations. Counted is the
most memory above what the process holds once the model has answered, and what lies in the cache
folder at the end. ``--layers 2`` takes a fifth of the time: one layer computes in the memory of the
one before. Writes ``benchmarks/results/craft_memory.json`` and ``craft_memory.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
CLASSES, SHOTS, POPULATION = 100, 16, 40
GOAL_MIB = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32", help="with random weights; or shapes-tiny")
    parser.add_argument("--layers", type=int, default=0, help="of each tower; 0 is all it has")
    parser.add_argument("--generations", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--out", type=Path, default=RESULTS / "craft_memory")
    parser.add_argument("--child", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        model, folder = options.child
        print(json.dumps(measure(model, Path(folder), options.generations[0])))
        return
    command = " ".join(["python", "benchmarks/craft_memory.py", *sys.argv[1:]])
    rows: list[Any] = []
    model = options.model + (f" with {options.layers} layers a tower" if options.layers else "")
    found = {"command": command, "model": model, "goal MiB": GOAL_MIB, "runs": rows}
    for row in compare(options.model, options.generations, layers=options.layers):
        rows.append(row)  # what is measured is kept, whatever becomes of the rest
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(found))
    print(markdown(found))


def compare(
    model: str, generations: list[int], size: tuple[int, int] = (300, 200), layers: int = 0
) -> Iterator[dict[str, Any]]:
    """A row for each number of generations, each of a process and a cache of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_photos(folder / "photos", size)
        if model != "shapes-tiny":
            from cpu_images import write_random

            write_random(model, folder / model, layers)
        for count in generations:
            command = [sys.executable, __file__, "--child", model, name, "--generations"]
            cache = {"LLMOPT_CACHE": str(folder / f"cache-{count}")}
            told = subprocess.run(
                [*command, str(count)],
                env={**os.environ, **cache},
                check=True,
                stdout=subprocess.PIPE,
            )
            row = json.loads(told.stdout)
            print(row, file=sys.stderr, flush=True)
            yield row


def draw_photos(folder: Path, size: tuple[int, int]) -> None:
    """A folder of 100 classes: 16 images of each to learn from, 4 to judge by, 1 to test on."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", SHOTS + 4), ("test", 1)):
        for k in range(CLASSES):
            place = folder / part / f"thing {k:02}"
            place.mkdir(parents=True)
            for n in range(count):
                rough = Image.fromarray(rng.integers(0, 256, (12, 18, 3), dtype=np.uint8))
                rough.resize(size, Image.Resampling.BICUBIC).save(place / f"{n}.jpg")


def measure(model: str, folder: Path, generations: int) -> dict[str, Any]:
    """One run in this process."""
    from text_engine import MIB, peak_resident, reset_peak, resident

    import llmopt
    from llmopt.images import as_image
    from llmopt.runs.compose import choose_model
    from llmopt.runs.config import RunConfig
    from llmopt.spend.events import Watch

    name = model if model == "shapes-tiny" else f"local-dir:{folder / model}"
    box = choose_model(RunConfig(model=name, precision="full")).open(Watch())
    box.image_features([as_image(np.full((200, 300, 3), n, np.uint8)) for n in range(64)])
    box.text_features(["a photo of a thing."])
    before = resident()
    reset_peak()
    run = llmopt.run(
        dataset=f"folder:{folder / 'photos'}",
        shots=SHOTS,
        optimizer="craft",
        settings={"profile": "released", "budget": POPULATION * generations},
        baselines="none",
        model=box,
        runs=str(folder / f"runs-{generations}"),
        progress=False,
    )
    cache = Path(os.environ["LLMOPT_CACHE"])
    return {
        "generations": generations,
        "image_encodings": int(run.result["ledger"]["image_encodings"]),
        "soft_prompt_encodings": int(run.result["ledger"]["soft_prompt_encodings"]),
        "peak MiB above model": (peak_resident() - before) / MIB,
        "cache MiB": sum(one.stat().st_size for one in cache.rglob("*") if one.is_file()) / MIB,
        "run folder MiB": sum(one.stat().st_size for one in run.folder.rglob("*") if one.is_file())
        / MIB,
    }


def markdown(found: dict[str, Any]) -> str:
    keys = list(found["runs"][0])
    lines = [
        "# Memory and disk of `craft` as released",
        "",
        f"`{found['command']}`",
        "",
        f"{CLASSES} classes, {SHOTS} shots, {found['model']} in full precision on a CPU. Every "
        "generation encodes all 1,600 training images in a view of its own and scores "
        f"{POPULATION} contexts. Memory is what the process held at most above what it held once "
        f"the model had answered; the goal is less than {found['goal MiB']} MiB, whatever the "
        "number of generations.",
        "",
        f"| {' | '.join(key.replace('_', ' ') for key in keys)} |",
        f"|{' ---: |' * len(keys)}",
        *(f"| {' | '.join(cell(row[key]) for key in keys)} |" for row in found["runs"]),
    ]
    return "\n".join(lines) + "\n"


def cell(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    main()
