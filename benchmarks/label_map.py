"""A map from answers to classes, on what GPT-4V said of eight benchmarks.

    .venv/bin/python benchmarks/label_map.py --answers DIR

``DIR`` holds a file a data set, ``NAME.json.gz``: ``{image: {"label": class, "answers": five texts
or null}}``, as made from GPT4Vis (whwu95, 2023; MIT). Shots are drawn from the images of a file,
the others are the test. What stands behind the wall is the file: a box of level ``labels`` that
answers in ranked words; the head is ``--head auto``'s. Writes
``benchmarks/results/label_map.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from llmopt.heads.predictor import AUTO, with_head
from llmopt.images import Image
from llmopt.predictor import single
from llmopt.spend.ledger import Ledger
from llmopt.stats import accuracy, mean_interval
from llmopt.task import FewShot, Labelled, Task
from llmopt.template import PLAIN, Template
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.metered import MeteredBox
from llmopt.vision.spoken import plain

RESULTS = Path(__file__).parent / "results" / "label_map.json"


@dataclass(frozen=True)
class Named:
    """An image of which only the name is known."""

    name: str

    def key(self) -> str:
        """Its name."""
        return self.name

    def load(self) -> PillowImage.Image:
        """There is nothing to load."""
        raise FileNotFoundError(self.name)


class Recorded(BlackBox):
    """A box that says what a file says it said."""

    images_per_call = 10**6

    def __init__(self, name: str, answers: dict[str, Any]) -> None:
        self._name, self._answers = name, answers

    @property
    def info(self) -> BoxInfo:
        """A box of answers."""
        return BoxInfo(f"answers on {self._name}", "", Access.LABELS, "")

    def answers(self, images: Sequence[Image], prompts: Sequence[str]) -> list[Any]:
        """Five ranked words an image, or None."""
        return [self._answers[image.key()]["answers"] for image in images]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--shots", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    files = {
        file.name.removesuffix(".json.gz"): file for file in arguments.answers.glob("*.json.gz")
    }
    if not files:
        sys.exit(f"there are no answers (NAME.json.gz) in {arguments.answers}")
    rows: list[dict[str, Any]] = []
    for name in arguments.sets or sorted(files):
        recorded = json.loads(gzip.decompress(files[name].read_bytes()))
        box = MeteredBox(Recorded(name, recorded), Ledger())
        for shots in arguments.shots:
            for seed in range(arguments.seeds):
                rows.append({"set": name, **measure(box, recorded, shots, seed)})
            print(f"{time.strftime('%H:%M:%S')} {line(of(rows, name, shots))}", flush=True)
    command = "python benchmarks/label_map.py --answers DIR"
    rest = shlex.join(a for a in sys.argv[1:] if a not in ("--answers", str(arguments.answers)))
    write(arguments.out, f"{command} {rest}".strip(), rows)
    print(arguments.out.with_suffix(".md").read_text())


def measure(box: MeteredBox, recorded: dict[str, Any], shots: int, seed: int) -> dict[str, Any]:
    """Accuracy of the answers as they are and as the head reads them, on the images not drawn."""
    images = sorted(recorded)
    names = tuple(sorted({plain(recorded[image]["label"]) for image in images}))
    labels = np.array([names.index(plain(recorded[image]["label"])) for image in images])
    rng = np.random.default_rng([seed, shots])
    drawn = np.zeros(len(images), dtype=bool)
    for k in range(len(names)):
        own = rng.permutation(np.flatnonzero(labels == k))
        drawn[own[: min(shots, len(own) - 1)]] = True
    train, test = (
        (tuple(Named(images[i]) for i in np.flatnonzero(some)), labels[some])
        for some in (drawn, ~drawn)
    )
    nobody = FewShot((), np.zeros(0, np.int64))
    start = Template(PLAIN)
    task = Task(box.info.name, names, FewShot(*train), nobody, shots, seed, start, "")
    base, unseen = single(start, names), Labelled(*test)
    before = accuracy(base.scores(box, unseen), unseen.labels)
    predictor, selection = with_head(base, AUTO, box, task, seed)
    after = before
    if not selection.fallback:
        after = accuracy(predictor.scores(box, unseen), unseen.labels)
    return {
        "shots": shots,
        "seed": seed,
        "before": round(100 * before, 2),
        "gain": round(100 * (after - before), 2),
        "head": selection.head.name,
    }


def of(rows: list[dict[str, Any]], name: str, shots: int) -> list[dict[str, Any]]:
    """The runs of a set at so many shots."""
    return [row for row in rows if (row["set"], row["shots"]) == (name, shots)]


def line(rows: list[dict[str, Any]]) -> str:
    """A row of the table."""
    gains = mean_interval([row["gain"] for row in rows])
    headed = sum(row["head"] != "none" for row in rows)
    return (
        f"| {rows[0]['set']} | {rows[0]['shots']} | "
        f"{statistics.mean(row['before'] for row in rows):.1f} | {gains.value:+.2f} "
        f"[{gains.low:+.2f}, {gains.high:+.2f}] | {min(row['gain'] for row in rows):+.2f} | "
        f"{headed} of {len(rows)} |"
    )


def write(out: Path, command: str, rows: list[dict[str, Any]]) -> None:
    """The rows, and the table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"command": command, "runs": rows}, indent=0) + "\n")
    sets, shots = (sorted({row[key] for row in rows}) for key in ("set", "shots"))
    lines = [
        "# What GPT-4V says, and what it means",
        "",
        f"`{command}`; accuracy of the first of GPT-4V's",
        "five answers that is a class, in per cent, and the gain in points by the map from answers",
        "to classes that `--head auto` fits on the shots: mean over seeds with its 95 % interval,",
        "worst seed, seeds with a map.",
        "",
        "| set | shots | before | gain | worst | map |",
        "|---|---|---|---|---|---|",
    ]
    lines += [line(of(rows, name, n)) for n in shots for name in sets]
    for n in shots:
        means = [statistics.mean(row["gain"] for row in of(rows, name, n)) for name in sets]
        lines += ["", f"{n} shots: mean over sets {statistics.mean(means):+.2f}, "]
        lines[-1] += f"least of a set {min(means):+.2f} points."
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
