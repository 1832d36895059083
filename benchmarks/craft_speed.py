"""A CraFT run of 8,000 evaluations against a plain padded loop, side by side in one process.

    .venv/bin/python benchmarks/craft_speed.py

A ViT-B-32 text tower with random weights, the 100 class names of Caltech-101, 16 shots: 1,600
images whose features are random and cost nothing, so that text encoding and the search itself are
what is timed. The published profile runs whole, through llmopt's own search, ledger, journal and
checkpoints. After every ``--every`` generations the padded loop, written from the method's
description, scores ``--candidates`` contexts and trains the head on one batch; what it takes in a
run is worked out from what those took, as its contexts all cost the same. Writes
``benchmarks/results/craft_speed.json`` and ``craft_speed.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import text_engine as measuring
import torch
from PIL import Image as PillowImage
from safetensors.numpy import save
from torch.nn import functional as F

from llmopt.heads.residual import Refinement
from llmopt.images import Image
from llmopt.search.base import Search
from llmopt.search.soft.craft import Craft, CraftSettings
from llmopt.search.soft.craft_published import CraftReleased, CraftReleasedSettings
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.spend.checkpoint import Checkpoints
from llmopt.spend.events import Progress
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger
from llmopt.task import FewShot, FloatArray, Task
from llmopt.template import PLAIN, Template, display_name
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.metered import MeteredBox

RESULTS = Path(__file__).parent / "results"
MODEL, SHOTS, BATCH = "ViT-B-32", 16, 256
PROFILES = {
    "released": (CraftReleased, CraftReleasedSettings),
    "llmopt": (Craft, CraftSettings),
}
TARGETS = {"ratio": 15.0, "cma": 0.10}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=int, default=8000, help="evaluations of the run")
    parser.add_argument("--every", type=int, default=20, help="generations between padded rounds")
    parser.add_argument("--candidates", type=int, default=2, help="padded candidates a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profile", choices=PROFILES, default="released")
    parser.add_argument("--classes", type=int, default=100, help="above 100: ImageNet's names")
    parser.add_argument("--shots", type=int, default=SHOTS)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=measuring.PRECISIONS)
    parser.add_argument("--out", type=Path, default=RESULTS / "craft_speed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = measure(options)
    report["command"] = " ".join(["python benchmarks/craft_speed.py", *sys.argv[1:]])
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(report))
    print(markdown(report))


@dataclass(frozen=True)
class Blank:
    """An image of which only the number matters."""

    number: int

    @property
    def name(self) -> str:
        return str(self.number)

    def key(self) -> str:
        return str(self.number)

    def load(self) -> PillowImage.Image:
        raise AssertionError("no image is looked at")


class RandomWeights(BlackBox):
    """A text tower with random weights; image features are random too and at hand."""

    def __init__(self, bench: measuring.Bench, images: int) -> None:
        self.engine = bench.engine
        dice = torch.Generator().manual_seed(1)
        self._images = F.normalize(
            torch.randn(images, self.engine.dim, generator=dice), dim=-1
        ).numpy()

    @cached_property
    def info(self) -> BoxInfo:
        return BoxInfo("a text tower", "random weights", Access.SOFT, "0" * 64)

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        """The same for every view of an image."""
        return self._images[[int(image.name.partition(" ")[0]) for image in images]]

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        return self.engine.encode(prompts).cpu().numpy()

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        return self.engine.encode_soft(contexts, classnames, grad=grad)

    def embed_text(self, text: str) -> FloatArray:
        return self.engine.embed_text(text).cpu().numpy()

    @property
    def embedding_std(self) -> float:
        return self.engine.embedding_std


class PaddedLoop:
    """CraFT as one writes it from its description: a context at a time, each prompt padded."""

    def __init__(self, bench: measuring.Bench, box: RandomWeights, task: Task) -> None:
        self.bench, self.names = bench, task.classnames
        self.images = torch.from_numpy(box.image_features(task.train.images)).to(bench.device)
        self.labels = torch.from_numpy(task.train.labels).to(bench.device)
        self.start = torch.from_numpy(box.embed_text("a photo of a")).to(bench.device)
        dice = torch.Generator().manual_seed(2)
        into = 0.2 * torch.randn(self.start.numel(), 512, generator=dice)
        self.into = into.to(bench.device)
        self.head = Refinement(len(self.names), 256, dice, start="released").to(bench.device)
        self.adam = torch.optim.Adam(self.head.parameters(), lr=1e-3)

    def scores(self, z: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Of the images for the context of z."""
        context = self.start + (self.into @ z.to(self.into)).view_as(self.start)
        with torch.inference_mode():
            return 100.0 * images @ self.bench.padded_soft(context[None], self.names)[0].T

    def evaluate(self, z: torch.Tensor) -> float:
        """The fitness of one candidate."""
        raw = self.scores(z, self.images)
        with torch.no_grad():
            refined = self.head(raw).log_softmax(-1)
        pull = F.kl_div(raw.log_softmax(-1), refined, log_target=True, reduction="batchmean")
        return float(F.cross_entropy(raw, self.labels) + 0.1 * pull)

    def train(self, z: torch.Tensor) -> None:
        """The head on one batch, the text encoded anew for it."""
        raw = self.scores(z, self.images[:BATCH]).clone()
        refined = self.head(raw)
        pull = F.kl_div(
            refined.log_softmax(-1), raw.log_softmax(-1), log_target=True, reduction="batchmean"
        )
        loss = F.cross_entropy(refined, self.labels[:BATCH]) + 0.1 * pull
        self.adam.zero_grad()
        torch.autograd.backward(loss)
        self.adam.step()
        self.bench.wait()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The run, with rounds of the padded loop between its generations."""
    bench = measuring.Bench(options.model, options)
    known = measuring.caltech101() if options.classes <= 100 else measuring.IMAGENET_CLASSNAMES
    names = tuple(display_name(name) for name in known[: options.classes])
    count = options.shots * len(names)
    labels = np.arange(count, dtype=np.int64) % len(names)
    box = RandomWeights(bench, count)
    task = Task(
        dataset="caltech101",
        classnames=names,
        train=FewShot(tuple(map(Blank, range(count))), labels),
        val=FewShot((), np.empty(0, dtype=np.int64)),
        shots=options.shots,
        seed=1,
        start=Template(PLAIN),
        split_sha256="0" * 64,
    )
    loop = PaddedLoop(bench, box, task)
    dice = torch.Generator().manual_seed(3)
    loop.evaluate(torch.randn(512, generator=dice))  # warm up

    evaluations: list[float] = []
    batches: list[float] = []
    beside = 0.0

    def padded_round(progress: Progress) -> None:
        nonlocal beside
        began = time.perf_counter()
        print(f"generation {progress.step} of {progress.steps}", file=sys.stderr, flush=True)
        if progress.step % options.every == 0:
            z = torch.randn(512, generator=dice)
            evaluations.extend(timed(lambda: loop.evaluate(z)) for _ in range(options.candidates))
            batches.append(timed(lambda: loop.train(z)))
        beside += time.perf_counter() - began

    arithmetic = Stopwatch()
    for part in ("ask", "tell", "draw"):
        setattr(CmaSearch, part, arithmetic.around(getattr(CmaSearch, part)))

    optimizer, its_settings = PROFILES[options.profile]
    settings = its_settings(budget=options.budget)
    before = measuring.resident()
    measuring.reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        ledger = Ledger()
        search = Search(
            task=task,
            box=MeteredBox(box, ledger),
            chat=None,
            seed=1,
            journal=journal,
            ledger=ledger,
            checkpoints=Checkpoints(Path(folder) / "state.safetensors", ledger, journal),
            on_progress=padded_round,
        )
        began = time.perf_counter()
        outcome = optimizer(settings).run(search)
        seconds = time.perf_counter() - began - beside
        journal.close()
    generations = options.budget // settings.population
    per_epoch = -(-count // BATCH) if options.profile == "released" else 0
    one, step = statistics.median(evaluations), statistics.median(batches)
    padded = generations * (settings.population * one + per_epoch * step)
    return {
        "machine": measuring.machine(options),
        "model": options.model,
        "profile": options.profile,
        "classes": len(names),
        "images": count,
        "stop": outcome.stop_reason,
        "evaluations": options.budget,
        "soft prompts": ledger["soft_prompt_encodings"],
        "seconds": seconds,
        "padded seconds an evaluation": one,
        "padded seconds a batch of the head": step,
        "padded evaluations run": len(evaluations),
        "padded seconds": padded,
        "ratio": padded / seconds,
        "cma seconds": arithmetic.seconds,
        "cma share": arithmetic.seconds / seconds,
        "peak MiB above model": (measuring.peak_resident() - before) / measuring.MIB,
        "deployed bytes": len(save(outcome.predictor.state()[0])),
        "model bytes": sum(p.nbytes for p in bench.model.parameters()),
    }


class Stopwatch:
    """Adds up what calls of wrapped functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        return wrapped


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def markdown(report: dict[str, Any]) -> str:
    """The figures, with what they were to be."""
    deployed, model = report["deployed bytes"], report["model bytes"]
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    padded = (
        f"{report['padded seconds']:,.0f} (from {report['padded evaluations run']} evaluations)"
    )
    lines = [
        f"# CraFT, {report['evaluations']:,} evaluations",
        "",
        f"`{report['command']}`",
        "",
        f"{machine}.",
        f"{report['model']} text tower with random weights, {report['classes']} classes, "
        f"{report['images'] // report['classes']} shots ({report['images']:,} images with random "
        f"features), profile `{report['profile']}`: dimension 512, population 40, an epoch of the "
        "head each generation (`llmopt`: 32, 16, a head at the end).",
        "",
        "| | llmopt | padded loop | ratio | target |",
        "|---|---|---|---|---|",
        f"| whole run, seconds | {report['seconds']:,.0f} | {padded} | "
        f"**{report['ratio']:.1f}×** | ≥ {TARGETS['ratio']:.0f}× |",
        f"| CMA-ES's own arithmetic, share of the run | **{report['cma share']:.1%}** | | | "
        f"< {TARGETS['cma']:.0%} |",
        f"| peak memory above the model, MiB | {report['peak MiB above model']:,.0f} | | | |",
        "",
        f"{report['soft prompts']:,} soft prompts were encoded, those of the head's batches among "
        f"them; the run ended by: {report['stop']}. The padded loop took "
        f"{report['padded seconds an evaluation']:.2f} s an evaluation and "
        f"{report['padded seconds a batch of the head']:.2f} s a batch of the head, measured "
        "between generations of the run in the same process. The peak holds both sides.",
        "",
        f"Deployed are the soft prompt and the head: {deployed / 1e3:,.0f} kB, against "
        f"{model / 1e6:,.0f} MB for the model behind the wall, 1/{model / deployed:,.0f} of it.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
