"""Heads at few shots: what they gain over none, with and without images to judge them.

    LLMOPT_DATA=DIR .venv/bin/python benchmarks/heads.py [--name before]

Every shapes task from the plain template and from the right one, the harder worlds (which have no
one right template) from the plain one, scikit-learn's digits and, where
``LLMOPT_DATA`` holds it, Caltech-101, which the embedded model knows nothing of; on a box that
gives features and, for the shapes, on one that gives scores. Everything is encoded once. The part
``auto`` is what ``--head auto`` does; ``usual`` is where the priors come from: the strength that
suits the test images best, by head and shots, and what the usual one gains.

Rows of another ``--name`` are kept, so that two versions can be compared: put the older one into
``PYTHONPATH`` and name it; or other seeds.
Writes ``benchmarks/results/heads.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmopt.data.registry import open_dataset
from llmopt.data.shapes import TASKS
from llmopt.data.tasks import make_task
from llmopt.data.worlds import WORLDS
from llmopt.heads.base import Shots
from llmopt.heads.predictor import AUTO, with_head
from llmopt.heads.select import make
from llmopt.images import Image
from llmopt.predictor import TextPredictor, single
from llmopt.spend.files import default_cache_dir
from llmopt.spend.ledger import Ledger
from llmopt.stats import accuracy, log_likelihoods
from llmopt.task import FewShot, FloatArray, Labelled, Task
from llmopt.template import PLAIN, Template
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.feature_cache import FeatureCache
from llmopt.vision.metered import MeteredBox
from llmopt.vision.openclip import OpenClipBlackBox

RESULTS = Path(__file__).parent / "results" / "heads.json"
NOBODY = FewShot((), np.zeros(0, np.int64))
Rows = list[dict[str, Any]]


class OnlyScores(BlackBox):
    """What another box scores, and nothing else of it; what it encodes is kept."""

    def __init__(self, box: MeteredBox) -> None:
        self._box = box

    @property
    def info(self) -> BoxInfo:
        """That of the other box, at another level."""
        return replace(self._box.info, access=Access.SCORES)

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        """(N, M) float32 logits."""
        visual = self._box.image_features(Labelled(tuple(images), np.zeros(len(images), np.int64)))
        text = self._box.text_features([Template("{}")], prompts)[0]
        return self._box.logits(visual, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="after")
    parser.add_argument("--worlds", nargs="+", default=[*TASKS, *WORLDS, "digits", "caltech101"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--levels", nargs="+", choices=("features", "scores"), default=["features"])
    parser.add_argument("--parts", nargs="+", choices=("auto", "usual"), default=["auto"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    found: dict[str, Any] = {"commands": {}, "auto": {}, "usual": []}
    if arguments.out.is_file():
        found = json.loads(arguments.out.read_text())
        found["auto"] = {name: opened(rows) for name, rows in found["auto"].items()}
        found["usual"] = opened(found["usual"])
    command = shlex.join(["python", "benchmarks/heads.py", *sys.argv[1:]])
    found["commands"].setdefault(arguments.name, [])
    if command not in found["commands"][arguments.name]:
        found["commands"][arguments.name].append(command)
    if "auto" in arguments.parts:
        kept = found["auto"].get(arguments.name, [])
        found["auto"][arguments.name] = [r for r in kept if not _again(r, arguments)]
    if "usual" in arguments.parts:
        found["usual"] = [r for r in found["usual"] if not _again(r, arguments)]
    root = os.environ.get("LLMOPT_DATA", "")
    for world in arguments.worlds:
        if world == "caltech101" and not root:
            print("caltech101 is left out: LLMOPT_DATA is not set")
            continue
        for where, box, predictor, task, test in runs(world, root, arguments):
            if "auto" in arguments.parts:
                found["auto"][arguments.name] += auto(where, box, predictor, task, test)
            if "usual" in arguments.parts and where["access"] == "features":
                found["usual"] += usual(where, box, predictor, task, test)
        print(f"{time.strftime('%H:%M:%S')} {world}", flush=True)
        write(arguments.out, found)
    print(arguments.out.with_suffix(".md").read_text())


def _again(row: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Whether a row is measured anew."""
    return row["access"] in arguments.levels and row["world"] in arguments.worlds


def runs(
    world: str, root: str, arguments: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], MeteredBox, TextPredictor, Task, Labelled]]:
    """Box, start, task and test images of each run of a world."""
    dataset = open_dataset(world, Path(root))
    test = dataset.split("test")
    inner = MeteredBox(OpenClipBlackBox(), Ledger(), FeatureCache(default_cache_dir()))
    boxes = {"features": inner}
    starts = {"plain": PLAIN}
    if world in TASKS or world in WORLDS:
        boxes["scores"] = MeteredBox(OnlyScores(inner), Ledger())
    if world in TASKS:
        word = world.removeprefix("shapes-")
        side = word in ("left", "right")
        starts["right"] = (
            "a photo of a {}" + f" on the {word}." if side else f"a photo of a {word} {{}}."
        )
    for (access, box), (start, text), shots, seed in itertools.product(
        boxes.items(), starts.items(), arguments.shots, arguments.seeds
    ):
        if access not in arguments.levels:
            continue
        where = {"world": world, "access": access, "start": start, "shots": shots, "seed": seed}
        task = make_task(dataset, shots, seed)
        yield where, box, single(Template(text), dataset.classnames), task, test


def auto(
    where: dict[str, Any], box: MeteredBox, start: TextPredictor, task: Task, test: Labelled
) -> Rows:
    """The gain of ``--head auto`` with and without validation images."""
    rows = []
    before = accuracy(start.scores(box, test), test.labels)
    for val in (True, False):
        seen = task if val else replace(task, val=NOBODY)
        predictor, selection = with_head(start, AUTO, box, seen, task.seed)
        gain = 0.0
        if not selection.fallback:
            gain = accuracy(predictor.scores(box, test), test.labels) - before
        rows.append(where | {"val": val, "head": selection.head.name, "gain": round(100 * gain, 2)})
    return rows


def usual(
    where: dict[str, Any], box: MeteredBox, start: TextPredictor, task: Task, test: Labelled
) -> Rows:
    """The strength that suits the test images, and the gain of each strength."""
    from llmopt.heads.base import OCTAVES, TEMPERATURES, temperature

    def scores(images: Labelled) -> FloatArray:
        return start.scores(box, images)

    rows = []
    visual, text = box.image_features(task.train), start.text_matrix(box, task.train)
    base, unseen = scores(task.train)[:, None], scores(test)
    few = Shots(base, task.train.labels, visual[:, None], text, box.info.logit_scale)
    warmth = temperature(few.plain, few.labels)
    for head in make(AUTO):
        if head.prior is None:
            continue
        config, left_out = next(iter(head.held_out(few, task.seed)))
        unit = head.unit(left_out, warmth)
        correction = head.correct(
            head.fit(few, config, task.seed), unseen, box.image_features(test)
        )
        strengths = unit * head.prior.strengths(task.shots)
        moved = [unseen + np.float32(alpha) * correction for alpha in strengths]

        def likelihood(scores: FloatArray) -> float:
            return max(log_likelihoods(scores / t, test.labels).mean() for t in TEMPERATURES)

        nats = [likelihood(one) - likelihood(unseen) for one in moved]
        points = [100 * (accuracy(m, test.labels) - accuracy(unseen, test.labels)) for m in moved]
        own, octaves = int(np.argmin(np.abs(OCTAVES))), np.log2(strengths / unit)
        rows.append(
            where
            | {"head": head.name, "best": round(octaves[int(np.argmax(nats))], 2)}
            | {"usual": round(octaves[own], 2)}
            | {"nats": round(nats[own], 4), "points": round(points[own], 2)}
        )
    return rows


def closed(rows: Rows) -> list[list[Any]]:
    """Rows of one kind as a table, its header first."""
    return [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []


def opened(table: list[list[Any]]) -> Rows:
    """The inverse of :func:`closed`."""
    return [dict(zip(table[0], row, strict=True)) for row in table[1:]]


def by_world(rows: Rows, key: str) -> float:
    """Mean over worlds of the mean over their runs; a start is a world of its own."""
    worlds: dict[Any, list[float]] = {}
    for row in rows:
        worlds.setdefault((row["world"], row["start"]), []).append(row[key])
    return statistics.mean(map(statistics.mean, worlds.values()))


def write(out: Path, found: dict[str, Any]) -> None:
    """The rows, and the tables."""
    out.parent.mkdir(parents=True, exist_ok=True)
    tables = {name: closed(rows) for name, rows in found["auto"].items()}
    content = {**found, "auto": tables, "usual": closed(found["usual"])}
    lists = ("],\n[", "], [")
    out.write_text(json.dumps(content).replace(*lists[::-1]) + "\n")
    lines = ["# Heads at few shots", ""]
    for name, commands in found["commands"].items():
        lines.append(f"- {name}: {', '.join(f'`{command}`' for command in commands)}")
    lines += [
        "",
        "Gain of `--head auto` over no head in points of test accuracy: mean over worlds (the",
        "plain and the right start of a shapes task are two), worst run, runs with a head. The",
        "first worlds are the ten tasks, digits and Caltech-101; the harder ones are seven.",
        "",
    ]
    names = list(found["auto"])
    lines.append(f"| worlds | box | validation | shots | {' | '.join(names)} |")
    lines.append("|---|---|---|---|" + "---|" * len(names))
    every = [row for rows in found["auto"].values() for row in rows]
    keys = sorted({(r["world"] in WORLDS, r["access"], r["val"], r["shots"]) for r in every})
    for harder, access, val, shots in keys:
        cells = []
        for name in names:
            rows = [
                r
                for r in found["auto"][name]
                if (r["world"] in WORLDS, r["access"], r["val"], r["shots"])
                == (harder, access, val, shots)
            ]
            headed = sum(r["head"] != "none" for r in rows)
            worst = min((r["gain"] for r in rows), default=0.0)
            cells.append(
                f"{by_world(rows, 'gain'):+.1f}, worst {worst:+.1f}, {headed} of {len(rows)}"
                if rows
                else ""
            )
        judged = "with" if val else "without"
        which = "harder" if harder else "first"
        lines.append(f"| {which} | {access} | {judged} | {shots} | {' | '.join(cells)} |")
    lines += _kinds(found["auto"])
    if found["usual"]:
        lines += _usual(found["usual"])
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _kinds(auto: dict[str, Rows]) -> list[str]:
    """The same by kind of world, on features and without validation images."""
    lines = ["", "By world, on features, without validation images:", ""]
    kinds = {
        "shapes, plain start": lambda r: r["world"] in TASKS and r["start"] == "plain",
        "shapes, right start": lambda r: r["world"] in TASKS and r["start"] == "right",
        "harder worlds": lambda r: r["world"] in WORLDS,
        "digits": lambda r: r["world"] == "digits",
        "caltech101": lambda r: r["world"] == "caltech101",
    }
    shots = sorted({r["shots"] for rows in auto.values() for r in rows})
    lines.append(f"| world | version | {' | '.join(f'{n} shots' for n in shots)} |")
    lines.append("|---|---|" + "---|" * len(shots))
    for kind, holds in kinds.items():
        for name, rows in auto.items():
            cells = []
            for n in shots:
                some = [
                    r["gain"]
                    for r in rows
                    if holds(r) and r["shots"] == n and r["access"] == "features" and not r["val"]
                ]
                cells.append(
                    f"{statistics.mean(some):+.1f} (worst {min(some):+.1f})" if some else ""
                )
            if any(cells):
                lines.append(f"| {kind} | {name} | {' | '.join(cells)} |")
    return lines


def _usual(rows: Rows) -> list[str]:
    """Strengths in octaves of the head's unit, by head and shots."""
    lines = [
        "",
        "Where the priors come from: the strength, in octaves of the head's unit, that is",
        "likeliest on the test images (mean and standard deviation over runs), that of the",
        "prior, and what the head gains at it before any image judges: nats an image and points.",
        "",
        "| head | shots | likeliest | usual | nats | points | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(r["head"] for r in rows):
        for shots in sorted({r["shots"] for r in rows}):
            some = [r for r in rows if (r["head"], r["shots"]) == (name, shots)]
            spread = statistics.pstdev(r["best"] for r in some)
            lines.append(
                f"| {name} | {shots} | {by_world(some, 'best'):+.1f} ± {spread:.1f} "
                f"| {some[0]['usual']:+.1f} | {by_world(some, 'nats'):+.3f} "
                f"| {by_world(some, 'points'):+.1f} | {min(r['points'] for r in some):+.1f} |"
            )
    return lines


if __name__ == "__main__":
    main()
