"""``auto`` against every other optimizer, with and without ``--head auto``.

    LLMOPT_DATA=DIR .venv/bin/python benchmarks/auto.py
    .venv/bin/python benchmarks/auto.py --arms craft cbbt zip bbt --seeds 1 --shots 1 4
    .venv/bin/python benchmarks/auto.py --arms 'auto without chat' 'auto with soft' ...
    .venv/bin/python benchmarks/auto.py --large 250     # and 500, and 1000, each on its own

All shapes tasks and harder worlds, scikit-learn's digits and, where ``LLMOPT_DATA`` holds it,
Caltech-101, behind the embedded model, which knows nothing of the last two. The language model is
the built-in rewriter, which does not know what things look like: no descriptions are asked for;
the arms that have some (``auto_parts.py``) read them from a file, for drawn worlds only. A
search runs once; its result is measured as it is and with ``--head auto`` on it. Optimizers with a
head of their own search once more without it. Runs are kept in the results and not repeated, but
with ``--again``. ``--large CLASSES`` measures ``auto`` on so many with 60 descriptions each,
behind a text tower of the size of ViT-B-32's with random weights. Each row says at which commit
it was measured.

Writes ``benchmarks/results/auto.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from auto_parts import PARTS, make_part

from llmopt.data.registry import open_dataset
from llmopt.data.shapes import TASKS
from llmopt.data.tasks import make_task, open_test
from llmopt.data.worlds import WORLDS
from llmopt.heads.predictor import AUTO, with_head
from llmopt.language.builtin import BuiltinRewriter
from llmopt.predictor import Predictor, single
from llmopt.search import make_optimizer
from llmopt.search.base import Optimizer
from llmopt.spend.ledger import Ledger
from llmopt.stats import accuracy, mean_interval
from llmopt.task import FewShot, Task, TestSet
from llmopt.template import PLAIN, Template
from llmopt.testing.world import stage
from llmopt.vision.metered import MeteredBox
from llmopt.vision.openclip import OpenClipBlackBox

RESULTS = Path(__file__).parent / "results" / "auto.json"
FIELDS = (
    "arm", "world", "shots", "seed", "start", "bare", "headed", "head", "queries", "calls",
    "seconds", "kept", "commit",
)  # fmt: skip
Row = dict[str, Any]

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "auto": ("auto", {}),
    "chat": ("chat", {}),
    "random": ("random", {}),
    "rename": ("rename", {}),
    "handcrafted": ("handcrafted", {"templates": "openai"}),
    "zeroshot": ("zeroshot", {}),
    "craft": ("craft", {}),
    "cbbt": ("cbbt", {}),
    "zip": ("zip", {}),
    "bbt": ("bbt", {}),
    "bptvlm": ("bptvlm", {}),
    "coop": ("coop", {}),
}
TEXT = ("auto", "chat", "random", "rename", "handcrafted", "zeroshot")


class Kept(OpenClipBlackBox):
    """The embedded model, which keeps what it has encoded from run to run."""

    def __init__(self) -> None:
        self._texts: dict[Hashable, Any] = {}
        self._images: dict[str, Any] = {}
        super().__init__()

    def text_features(self, prompts: Sequence[str]) -> Any:
        """(M, d) float32."""
        forms = self.normal_forms(prompts)
        new = {f: p for f, p in zip(forms, prompts, strict=True) if f not in self._texts}
        if new:
            found = super().text_features(list(new.values()))
            self._texts.update(zip(new, found, strict=True))
        return np.stack([self._texts[form] for form in forms])

    def image_features(self, images: Any) -> Any:
        """(N, d) float32."""
        new = {image.key(): image for image in images if image.key() not in self._images}
        if new:
            found = super().image_features(list(new.values()))
            self._images.update(zip(new, found, strict=True))
        return np.stack([self._images[image.key()] for image in images])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *PARTS], default=TEXT)
    parser.add_argument("--worlds", nargs="+", default=[*TASKS, *WORLDS, "digits", "caltech101"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--large", type=int, metavar="CLASSES")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()

    found: dict[str, Any] = {"commands": [], "notes": [], "large": [], "runs": []}
    if asked.out.is_file():
        found = json.loads(asked.out.read_text())
    command = shlex.join(["python", "benchmarks/auto.py", *sys.argv[1:]])
    found["commands"] = list(dict.fromkeys([*found["commands"], command]))
    rows = {tuple(row[:4]): row for row in found["runs"]}
    if asked.large:
        rest = [row for row in found["large"] if row["classes"] != asked.large]
        found["large"] = sorted([*rest, large(asked.large)], key=lambda row: row["classes"])
    else:
        root = os.environ.get("LLMOPT_DATA", "")
        box = Kept()
        for world in asked.worlds:
            if world == "caltech101" and not root:
                print("caltech101 is left out: LLMOPT_DATA is not set")
                continue
            for row in runs(box, world, root, asked, set() if asked.again else set(rows)):
                rows[tuple(row[:4])] = row
            found["runs"] = sorted(rows.values(), key=lambda row: row[:4])
            write(asked.out, found)
            print(f"{time.strftime('%H:%M:%S')} {world}", flush=True)
    write(asked.out, found)
    print(asked.out.with_suffix(".md").read_text())


def runs(
    box: Kept, world: str, root: str, asked: argparse.Namespace, done: set[Any]
) -> Iterator[list[Any]]:
    """A row for each run of a world that is not done."""
    dataset = open_dataset(world, Path(root))
    test = open_test(dataset)
    for shots, seed, arm in itertools.product(asked.shots, asked.seeds, asked.arms):
        if (arm, world, shots, seed) in done:
            continue
        if "descriptions" in arm and world not in (*TASKS, *WORLDS):
            continue
        task = make_task(dataset, shots, seed)
        if arm in PARTS:
            with tempfile.TemporaryDirectory() as folder:
                row = measure(box, make_part(arm, world, Path(folder)), task, test)
        else:
            kind, given = ARMS[arm]
            optimizer = make_optimizer(kind, given)
            row = measure(box, optimizer, task, test, bool(optimizer.HEADLESS))
            if optimizer.HEADLESS:
                headless = make_optimizer(kind, given, head="auto")
                row |= {k: v for k, v in measure(box, headless, task, test).items() if "head" in k}
        where = {"arm": arm, "world": world, "shots": shots, "seed": seed}
        yield [(where | row | {"commit": commit()})[name] for name in FIELDS]


@cache
def commit() -> str:
    """What this is run at."""
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return told.stdout.strip()


def measure(
    box: Kept, optimizer: Optimizer[Any], task: Task, test: TestSet, own: bool = False
) -> Row:
    """A search, and its accuracy on the test images as it is and with a head.

    Args:
        own: the search has a head of its own; no other is put on it.
    """
    begun = time.monotonic()
    chat = BuiltinRewriter(seed=task.seed) if optimizer.needs_chat else None
    with (
        tempfile.TemporaryDirectory() as folder,
        stage(Path(folder), task, box, chat=chat, seed=task.seed) as held,
    ):
        start = single(task.start, task.classnames)
        start.scores(held.search.box, task.train)
        outcome = optimizer.run(held.search)
        headed, head = outcome.predictor, "none"
        if not own:
            headed, selection = with_head(outcome.predictor, AUTO, held.search.box, task, task.seed)
            head = selection.head.name
        spent, stages = held.ledger, outcome.summary.get("stages", ())
    seconds = time.monotonic() - begun
    unpaid = MeteredBox(box, Ledger())

    def tested(predictor: Predictor) -> float:
        return round(100 * accuracy(predictor.scores(unpaid, test), test.labels), 2)

    return {
        "start": tested(start),
        "bare": tested(outcome.predictor),
        "headed": tested(headed),
        "head": head,
        "queries": int(spent.spent("queries")),
        "calls": int(spent["llm_calls"]),
        "seconds": round(seconds, 2),
        "kept": [one["name"] for one in stages if one["kept"]],
    }


# --- many classes -------------------------------------------------------------------------------


def large(classes: int, budget: int = 48) -> Row:
    """Time, encodings and memory of ``auto`` on classes with 60 descriptions each."""
    import open_clip
    import torch
    from craft_speed import Blank, RandomWeights
    from open_clip import IMAGENET_CLASSNAMES

    from llmopt.sentences import probe_bank
    from llmopt.vision.text_engine.engine import TextEngine

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32").eval()
    engine = TextEngine(model, open_clip.get_tokenizer("ViT-B-32"), cache_bytes=0)  # as in runs
    names = [f"{name} {k}" if k else name for k, name in numbered(IMAGENET_CLASSNAMES[:classes])]
    phrases = [phrase for family in probe_bank().values() for phrase in family][-60:]
    said = {name: [f"a photo of {p.replace('{}', name)}." for p in phrases] for name in names}
    box = RandomWeights(SimpleNamespace(engine=engine), 2 * len(names))  # type: ignore[arg-type]
    labels = np.arange(len(names))
    images = tuple(map(Blank, range(2 * len(names))))
    task = Task(
        dataset="many",
        classnames=tuple(names),
        train=FewShot(images[: len(names)], labels),
        val=FewShot(images[len(names) :], labels),
        shots=1,
        seed=1,
        start=Template(PLAIN),
        split_sha256="0" * 64,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "descriptions.json"
        told.write_text(json.dumps(said))
        optimizer = make_optimizer("auto", {"budget": budget, "file": str(told)})
        planned = optimizer.bounds(task)
        with stage(Path(folder), task, box, chat=BuiltinRewriter(seed=1), seed=1) as held:
            outcome = optimizer.run(held.search)
            spent = held.ledger
    return {
        "classes": classes,
        "budget": budget,
        "descriptions": sum(map(len, said.values())),
        "planned": int(planned["text_encodings"]),
        "encoded": int(spent["text_encodings"]),
        "seconds": round(time.monotonic() - begun),
        "processor_seconds": round(time.process_time()),
        "threads": torch.get_num_threads(),
        "mib_texts": int(spent["text_encodings"]) * 4 * engine.dim // 2**20,
        "mib_before": before // 1024,
        "mib_most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "stages": list(outcome.summary["stages"]),
    }


def numbered(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each name with how often it came before: two classes of ImageNet may share one."""
    for place, name in enumerate(names):
        yield names[:place].count(name), name


# --- tables --------------------------------------------------------------------------------------


def write(out: Path, found: dict[str, Any]) -> None:
    """The rows, and the tables."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found).replace("], [", "],\n[") + "\n")
    rows = [dict(zip(FIELDS, row, strict=True)) for row in found["runs"]]
    lines = ["# Everything in one search", "", *(f"- `{one}`" for one in found["commands"])]
    lines += ["", *found["notes"], ""]
    if rows:
        lines += [*measured_at(rows), ""]
        lines += [*overview(rows), *against(rows), *by_world(rows), *same_runs(rows)]
        lines += [*ten_tasks(rows), *ablation(rows)]
    if found["large"]:
        lines += many_classes(found["large"])
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def measured_at(rows: list[Row]) -> Iterator[str]:
    """How many runs of what were measured at which commit."""
    for told in sorted({row["commit"] for row in rows}):
        some = [row for row in rows if row["commit"] == told]
        arms, worlds, shots, seeds = (
            ", ".join(map(str, sorted({row[name] for row in some})))
            for name in ("arm", "world", "shots", "seed")
        )
        yield f"- {f'`{told}`' if told else 'before commits were noted'}: {len(some)} runs, of"
        yield f"  {arms}; on {worlds}; shots {shots}; seeds {seeds}"


def where(row: Row) -> tuple[Any, ...]:
    return row["world"], row["shots"], row["seed"]


def gain(row: Row, key: str) -> float:
    return float(row[key] - row["start"])


def mean(rows: Sequence[Row], key: str) -> float:
    """Over worlds, of the mean over their runs."""
    return statistics.mean(over_worlds(rows, itemgetter(key)))


def over_worlds(rows: Iterable[Row], value: Callable[[Row], float]) -> list[float]:
    """The mean of each world's runs."""
    worlds: dict[str, list[float]] = {}
    for row in rows:
        worlds.setdefault(row["world"], []).append(value(row))
    return [statistics.mean(some) for some in worlds.values()]


def arms_of(rows: list[Row], known: Iterable[str]) -> list[str]:
    return [arm for arm in known if any(row["arm"] == arm for row in rows)]


def overview(rows: list[Row]) -> Iterator[str]:
    """Means over all worlds that every text search was measured on."""
    shots = sorted({row["shots"] for row in rows})
    common = set.intersection(
        *({where(row) for row in rows if row["arm"] == arm} for arm in arms_of(rows, TEXT))
    )
    some = [row for row in rows if row["arm"] in TEXT and where(row) in common]
    worlds, seeds = ({row[name] for row in some} for name in ("world", "seed"))
    yield (
        f"{len(some)} runs of searches by words, all on the same images: {len(worlds)} "
        f"worlds, shots {', '.join(map(str, shots))}, seeds {', '.join(map(str, sorted(seeds)))}."
    )
    yield "Test accuracy in per cent, mean over the worlds; prompts encoded, mean over the runs;"
    yield "the worst run against its start, with world, shots and seed. `+` is with `--head auto`."
    yield ""
    yield f"| search | {' | '.join(f'{n} shots' for n in shots)} | prompts | worst run |"
    yield "|---|" + "---|" * (len(shots) + 2)
    for arm in arms_of(rows, TEXT):
        own = [row for row in some if row["arm"] == arm]
        for key, mark in (("bare", ""), ("headed", " +")):
            figures = [f"{mean([r for r in own if r['shots'] == n], key):.1f}" for n in shots]
            worst = min(own, key=lambda row: gain(row, key))
            told = f"{gain(worst, key):+.1f} ({worst['world']}, {worst['shots']}, {worst['seed']})"
            prompts = statistics.mean(row["queries"] for row in own)
            yield f"| {arm}{mark} | {' | '.join(figures)} | {prompts:,.0f} | {told} |"


def against(rows: list[Row]) -> Iterator[str]:
    """What ``auto`` with a head is ahead of each other search with a head, paired by world."""
    auto = {where(row): row for row in rows if row["arm"] == "auto"}
    shots = sorted({row["shots"] for row in rows})
    yield from ("", "Points that `auto +` is ahead of each `+` where both were measured: mean over")
    yield from ("the worlds, with its 95 % interval over them.", "")
    yield f"| search | {' | '.join(f'{n} shots' for n in shots)} |"
    yield "|---|" + "---|" * len(shots)
    for arm in arms_of(rows, [arm for arm in ARMS if arm != "auto"]):
        cells = []
        for n in shots:
            own = [r for r in rows if (r["arm"], r["shots"]) == (arm, n) and where(r) in auto]
            ahead = over_worlds(own, lambda row: auto[where(row)]["headed"] - row["headed"])
            cells.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*mean_interval(ahead)))
        yield f"| {arm} + | {' | '.join(cells)} |"


def ten_tasks(rows: list[Row]) -> Iterator[str]:
    """Every search on the ten shapes tasks, at the seeds that all were measured at."""
    some = [row for row in rows if row["arm"] in ARMS and row["world"] in TASKS]
    arms = arms_of(some, ARMS)
    common = set.intersection(*({where(r) for r in some if r["arm"] == arm} for arm in arms))
    some = [row for row in some if where(row) in common]
    told = ", ".join(map(str, sorted({row["seed"] for row in some})))
    yield from ("", f"The ten shapes tasks at seeds {told}, with no head but those of `craft` and")
    yield "`cbbt`: test accuracy with its 95 % interval over the runs, tasks that end below the"
    yield from ("start on average, the worst run against its start.", "")
    yield "| search | shots | runs | start | accuracy | tasks below | worst run | prompts |"
    yield "|---|---|---|---|---|---|---|---|"
    for arm, n in itertools.product(arms, sorted({row["shots"] for row in some})):
        own = [row for row in some if (row["arm"], row["shots"]) == (arm, n)]
        start = statistics.mean(row["start"] for row in own)
        middle, low, high = mean_interval([row["bare"] for row in own])
        found = f"{middle:.1f} [{low:.1f}, {min(high, 100):.1f}]"
        below = sum(one < 0 for one in over_worlds(own, lambda row: gain(row, "bare")))
        worst = min(gain(row, "bare") for row in own)
        prompts = statistics.mean(row["queries"] for row in own)
        yield (
            f"| {arm} | {n} | {len(own)} | {start:.1f} | {found} | {below} | {worst:+.1f} "
            f"| {prompts:,.0f} |"
        )


def by_world(rows: list[Row]) -> Iterator[str]:
    """``bare`` and ``headed`` of each search by words."""
    arms = arms_of(rows, TEXT)
    shots = sorted({row["shots"] for row in rows})
    yield from ("", "By world, without and with `--head auto`:", "")
    yield f"| world | shots | start | {' | '.join(arms)} |"
    yield "|---|---|---|" + "---|" * len(arms)
    known = [*TASKS, *WORLDS, "digits", "caltech101"]
    for world, n in itertools.product(
        [w for w in known if any(r["world"] == w for r in rows)], shots
    ):
        cells = []
        for arm in arms:
            own = [r for r in rows if (r["arm"], r["world"], r["shots"]) == (arm, world, n)]
            told = (f"{statistics.mean(r[key] for r in own):.1f}" for key in ("bare", "headed"))
            cells.append(" · ".join(told) if own else "")
        start = next(r["start"] for r in rows if r["world"] == world)
        yield f"| {world} | {n} | {start:.1f} | {' | '.join(cells)} |"


def same_runs(rows: list[Row]) -> Iterator[str]:
    """``auto`` beside each continuous search, on the runs of that one."""
    auto = {where(row): row for row in rows if row["arm"] == "auto"}
    arms = arms_of(rows, [arm for arm in ARMS if arm not in TEXT])
    if not arms:
        return
    yield from ("", "Continuous searches, and `auto` on the same worlds, shots and seeds:", "")
    yield "| search | shots | runs | it | it + | auto | auto + | its prompts | auto's |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for arm, n in itertools.product(arms, sorted({row["shots"] for row in rows})):
        own = [r for r in rows if (r["arm"], r["shots"]) == (arm, n) and where(r) in auto]
        if own:
            same = [auto[where(row)] for row in own]
            told = [f"{mean(some, key):.1f}" for some in (own, same) for key in ("bare", "headed")]
            spent = [f"{statistics.mean(r['queries'] for r in s):,.0f}" for s in (own, same)]
            yield f"| {arm} | {n} | {len(own)} | {' | '.join([*told, *spent])} |"


ABLATION = {  # stage: the arm with it, the arm without it, its name in a summary
    "rename": ("auto", "auto without rename", "rename"),
    "chat, by class": ("auto", "auto without chat", "chat"),
    "probes": ("auto", "auto without probes", "chat"),
    "conversation": ("auto", "auto without conversation", "chat"),
    "by class": ("auto", "auto without by class", "by class"),
    "describe, alone": ("descriptions alone", "zeroshot", "describe"),
    "describe, at last": ("auto with descriptions", "auto", "describe"),
    "describe, wrong": ("wrong descriptions alone", "zeroshot", "describe"),
    "soft": ("auto with soft", "auto", "craft"),
}


def ablation(rows: list[Row]) -> Iterator[str]:
    """What each stage brings to the same runs, in points, with 95 % intervals over the runs."""
    yield from ("", "What a stage brings: points of test accuracy over the same runs without it,")
    yield "with its 95 % interval over the runs, and the worst. Descriptions are 12 captions of"
    yield "each class by somebody who knows it, wrong ones those of another class; alone is beside"
    yield from ("the start with no other stage, at last after all others.", "")
    yield "| stage | shots | runs | without a head | with `--head auto` | kept in |"
    yield "|---|---|---|---|---|---|"
    found = {(row["arm"], *where(row)): row for row in rows}
    shots = sorted({row["shots"] for row in rows})
    for name, (with_it, without, stage_name) in ABLATION.items():
        for n in shots:
            pairs = [
                (found[with_it, *place], found[without, *place])
                for arm, *place in found
                if arm == with_it and place[1] == n and (without, *place) in found
            ]
            if pairs:
                cells = [spread([a[key] - b[key] for a, b in pairs]) for key in ("bare", "headed")]
                kept = sum(stage_name in one["kept"] for one, _ in pairs)
                yield f"| {name} | {n} | {len(pairs)} | {' | '.join(cells)} | {kept} |"
    for n in shots:
        some = [row for row in rows if (row["arm"], row["shots"]) == ("auto", n)]
        cell = spread([row["headed"] - row["bare"] for row in some])
        kept = sum(row["head"] != "none" for row in some)
        yield f"| head | {n} | {len(some)} | | {cell} | {kept} |"


def spread(gains: list[float]) -> str:
    """Mean with its interval, and the worst."""
    middle, low, high = mean_interval(gains)
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}], worst {min(gains):+.1f}"


def many_classes(found: Sequence[Row]) -> Iterator[str]:
    """Prompts, time and memory by classes."""
    yield ""
    yield "Many classes with 60 descriptions each from a file, 1 shot, a text tower of the"
    yield "size of ViT-B-32's with random weights, on a machine shared with others. MiB: of the"
    yield "process before the search, at most in it, of the features that it keeps so that no"
    yield "prompt is encoded twice (512 MiB at most), and the rest: texts, logits, work under way."
    yield ""
    yield "| classes | prompts planned | encoded | by stage | cpu s | before | most | kept | rest |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in found:
        stages = ", ".join(
            f"{one['name']} {one['spent'].get('text_encodings', 0):,.0f}" for one in row["stages"]
        )
        yield (
            f"| {row['classes']:,} | {row['planned']:,} | {row['encoded']:,} | {stages} "
            f"| {row['processor_seconds']:,} | {row['mib_before']:,} | {row['mib_most']:,} "
            f"| {row['mib_texts']:,} | {row['mib_most'] - row['mib_before'] - row['mib_texts']:,} |"
        )


if __name__ == "__main__":
    main()
