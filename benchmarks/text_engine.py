"""Text encoding against open_clip's own, side by side in one process.

    .venv/bin/python benchmarks/text_engine.py

Needs no weights (they are random) and no network. The towers that transformers brings are in the
table where it is installed (``pip install 'llmopt[transformers]'``). Writes
``benchmarks/results/text_engine.json`` and ``text_engine.md``; with ``--device cuda``,
``text_engine-cuda.json`` and ``.md``. Every figure is a median over rounds that run both sides in
turn. All of it takes half an hour on two cores; ``--parts`` names what to run.

Padded prompts all cost the same, so unless ``--full`` is given the padded side encodes an evenly
spaced sample in each round and its time is scaled to all prompts; the tables say how many it ran.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile, record_function

from llmopt._torchvision import ensure_operators
from llmopt.resources import read_lines, read_prompt
from llmopt.template import PLAIN, display_name
from llmopt.vision.text_engine.engine import PRECISIONS, TextEngine
from llmopt.vision.text_engine.token_tree import BLOCK, TokenTree
from llmopt.vision.text_engine.tree_encoder import TreeEncoder

ensure_operators()

import open_clip  # noqa: E402
from open_clip.zero_shot_metadata import (  # noqa: E402
    IMAGENET_CLASSNAMES,
    OPENAI_IMAGENET_TEMPLATES,
)

HERE = Path(__file__).parent
MODELS = ("ViT-B-32", "RN50")
CANDIDATES, CONTEXT = 40, 4
SQUARE, SQUARE_CUDA = 2048, 8192  # a card is not filled by less
MIB = 2**20
TARGETS = {
    "caltech101 × 8": 20.0,
    "imagenet × 8": 12.0,
    "soft": 18.0,
    "difference": 1e-5,
    "matmul": 0.70,
    "memory": 1536.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=400, help="padded prompts per round")
    parser.add_argument("--full", action="store_true", help="run the padded side on every prompt")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--measure-memory", metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure_memory:
        print(json.dumps(memory_in_this_process(options.measure_memory, options)))
        return

    report: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/text_engine.py", *sys.argv[1:]]),
        "machine": machine(options),
        "rounds": options.rounds,
    }
    for part in options.parts:
        print(f"{part} …", file=sys.stderr, flush=True)
        report[part] = PARTS[part](options)
        save(report, options)  # what is measured is kept, whatever becomes of the rest
    print(markdown(report))


def save(report: dict[str, Any], options: argparse.Namespace) -> None:
    name = "text_engine" if options.device == "cpu" else f"text_engine-{options.device}"
    options.results.mkdir(exist_ok=True)
    (options.results / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.results / f"{name}.md").write_text(markdown(report))


# ------------------------------------------------------------------------------------------ parts


def text_prompts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Class names × templates: padded and engine in turn, and the rate of matrix products."""
    rows = []
    for name in options.models:
        bench = Bench(name, options)
        for task, classnames in (("caltech101", caltech101()), ("imagenet", IMAGENET_CLASSNAMES)):
            for templates in ([PLAIN], eight_templates()):
                texts = filled(templates, classnames)
                rows.append(
                    {"model": name, "task": task, "templates": len(templates)}
                    | bench.compare_texts(texts)
                )
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def soft_prompts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Candidates × Caltech's classes: padded loop over candidates and engine in turn."""
    rows = []
    for name in options.models:
        bench = Bench(name, options)
        rows.append({"model": name} | bench.compare_soft(caltech101()))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def chunks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Engine time over chunk and block size; a block as large as the chunk is one dense mask."""
    bench = Bench(options.models[0], options)
    texts = filled(eight_templates(), caltech101())
    settings = [(chunk, BLOCK) for chunk in (128, 256, 512, 1024, 2048, 4096)]
    settings += [(2048, block) for block in (8, 16, 64, 128, 1024)] + [(512, 512), (256, 256)]
    encoders = [TreeEncoder(bench.encoder.tower, chunk, block) for chunk, block in settings]
    forms = bench.engine.normal_forms(texts)
    with torch.inference_mode():
        times = in_turn([lambda e=e: list(e.encode(forms)) for e in encoders], bench, options)
    return [
        {"chunk": chunk, "block": block, "seconds": statistics.median(seconds)}
        for (chunk, block), seconds in zip(settings, times, strict=True)
    ]


def where_time_goes(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Shares of the engine's time by torch's profiler, for few prompts and for many."""
    bench = Bench(options.models[0], options)
    return {
        "caltech101 × 1": profile_texts(bench, filled([PLAIN], caltech101())),
        "caltech101 × 8": profile_texts(bench, filled(eight_templates(), caltech101())),
        "imagenet × 8": profile_texts(bench, filled(eight_templates(), IMAGENET_CLASSNAMES)),
    }


def profile_texts(bench: Bench, texts: list[str]) -> dict[str, float]:
    """Share of each kind of work in encoding ``texts`` from nothing."""
    bench.engine.encode(texts)
    bench.engine.forget()
    with profile(activities=[ProfilerActivity.CPU]) as recorded, record_function("all"):
        with record_function("tokenizing"):
            forms = bench.engine.normal_forms(texts)
        bench.engine.encode_tokens(forms)
    kinds = {
        "matrix products": ("aten::addmm", "aten::mm", "mkldnn::_linear_pointwise"),
        "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu",),
        "activation": ("aten::gelu", "aten::sigmoid"),
        "norms": ("aten::native_layer_norm",),
        "tokenizing": ("tokenizing",),
    }
    totals = {event.key: event.cpu_time_total for event in recorded.key_averages()}
    shares = {
        kind: sum(totals.get(key, 0.0) for key in keys) / totals["all"]
        for kind, keys in kinds.items()
    }
    return shares | {"the rest": 1 - sum(shares.values())}


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory above the model of 1,000 classes × 80 templates, each in a fresh process."""
    rows = []
    for name in options.models:
        command = [sys.executable, str(Path(__file__)), "--measure-memory", name]
        command += ["--device", options.device, "--precision", options.precision]
        command += ["--threads", str(options.threads)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append({"model": name} | json.loads(answer.stdout))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def families(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every kind of text tower open_clip builds, tiny and random: path and largest difference."""
    sys.path.insert(0, str(HERE.parent / "tests" / "blackbox"))
    import tiny_clip

    texts = filled(eight_templates(), caltech101()[:20])
    rows = []
    for kind, names in tiny_clip.families().items():
        row: dict[str, Any] = {"configurations": len(names), "such as": names[0]}
        rows.append(row)
        try:
            if kind == "transformers":
                model, tokenizer = tiny_clip.tiny_transformers()
            else:
                model, tokenizer = tiny_clip.tiny(names[0]), tiny_clip.tokenizer_for(names[0])
        except ImportError as error:
            row |= {"path": "padded", "difference": None, "why": f"not built here: {error}"}
            continue
        engine = TextEngine(model, tokenizer)
        with torch.inference_mode():
            own = F.normalize(model.encode_text(tokenizer(texts)), dim=-1)
        difference = float((engine.encode(texts) - own).abs().max())
        row |= {"path": engine.path, "difference": difference, "why": engine.why}
    return rows


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "text prompts": text_prompts,
    "soft prompts": soft_prompts,
    "families": families,
    "where time goes": where_time_goes,
    "memory": memory,
    "chunks": chunks,
}


# -------------------------------------------------------------------------------------- measuring


class Bench:
    """One model with random weights, its engine without a cache, and its padded path."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options = options
        self.device = torch.device(options.device)
        self.model = open_clip.create_model(
            name, precision=options.precision, device=options.device
        ).eval()
        self.tokenizer = open_clip.get_tokenizer(name)
        self.engine = TextEngine(self.model, self.tokenizer, cache_bytes=0)
        assert self.engine.path == "trie", self.engine.why
        encoder = self.engine._encoder
        assert isinstance(encoder, TreeEncoder)
        self.encoder = encoder
        side = SQUARE if self.device.type == "cpu" else SQUARE_CUDA
        self.square = torch.randn(side, side, device=self.device).to(self.encoder.dtype)
        self.batch = self.best_batch()

    def best_batch(self) -> int:
        """The batch size at which the padded path is fastest per prompt."""
        sizes = (16, 32, 64, 128, 256) if self.device.type == "cpu" else (256, 512, 1024, 2048)
        ids = self.tokenizer(["a photo of a cat."] * sizes[-1]).to(self.device)
        with torch.inference_mode():
            runs = [lambda s=s: self.model.encode_text(ids[:s]) for s in sizes]
            times = in_turn(runs, self, argparse.Namespace(rounds=3))
        per_prompt = [statistics.median(t) / s for t, s in zip(times, sizes, strict=True)]
        return sizes[int(np.argmin(per_prompt))]

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def from_nothing(self, texts: Sequence[str]) -> Tensor:
        """The engine, tokenizing included."""
        self.engine.forget()
        return self.engine.encode(texts)

    def padded(self, texts: Sequence[str]) -> Tensor:
        """What users of open_clip run."""
        with torch.inference_mode():
            batches = self.tokenizer(list(texts)).to(self.device).split(self.batch)
            return torch.cat([self.model.encode_text(b, normalize=True) for b in batches]).float()

    def padded_soft(self, contexts: Tensor, classnames: Sequence[str]) -> Tensor:
        """What the reference implementations run: one candidate after the other, all padded."""
        model, m = self.model, contexts.shape[1]
        ids = self.tokenizer(["X " * m + display_name(c) + "." for c in classnames])
        ids = ids.to(self.device)
        dtype = model.transformer.get_cast_dtype()
        ends = ids.argmax(dim=-1)
        features = []
        with torch.inference_mode():
            table = model.token_embedding(ids).to(dtype)
            for context in contexts.to(dtype):
                rows = context.expand(len(ids), -1, -1)
                x = torch.cat([table[:, :1], rows, table[:, 1 + m :]], dim=1)
                x = x + model.positional_embedding.to(dtype)
                x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
                x = x[torch.arange(len(ids)), ends] @ model.text_projection
                features.append(F.normalize(x, dim=-1).float())
            return torch.stack(features)

    def matmul(self) -> None:
        """Five square products: the yardstick of arithmetic."""
        for _ in range(5):
            self.square @ self.square

    def compare_texts(self, texts: list[str]) -> dict[str, Any]:
        """One row of the table of text prompts."""
        sample = texts if self.options.full else spaced(texts, self.options.sample)
        runs = [
            lambda: self.from_nothing(texts),
            lambda: self.padded(sample),
            self.matmul,
        ]
        times = in_turn(runs, self, self.options)
        engine, padded, product = (statistics.median(t) for t in times)
        padded *= len(texts) / len(sample)
        tree = TokenTree.build(list(dict.fromkeys(self.engine.normal_forms(texts))))
        rate = self.operations(tree) / engine
        peak = 5 * 2 * len(self.square) ** 3 / product
        difference = (self.engine.encode(sample) - self.padded(sample)).abs().max()
        return {
            "prompts": len(texts),
            "padded tokens": len(texts) * self.engine.context_length,
            "tree nodes": len(tree),
            "padded seconds": padded,
            "padded prompts run": len(sample),
            "padded batch": self.batch,
            "engine seconds": engine,
            "ratio": statistics.median(
                p * len(texts) / len(sample) / e for e, p in zip(*times[:2], strict=True)
            ),
            "difference": float(difference),
            "GFLOP/s": rate / 1e9,
            "matmul GFLOP/s": peak / 1e9,
            "share of matmul": rate / peak,
        }

    def compare_soft(self, classnames: Sequence[str]) -> dict[str, Any]:
        """One row of the table of soft prompts."""
        width = self.encoder.tower.width
        contexts = 0.02 * torch.randn(CANDIDATES, CONTEXT, width, device=self.device)
        loop = CANDIDATES if self.options.full else max(2, self.options.sample // len(classnames))
        sample = contexts[:: CANDIDATES // loop]
        runs = [
            lambda: self.engine.encode_soft(contexts, classnames),
            lambda: self.padded_soft(sample, classnames),
        ]
        times = in_turn(runs, self, self.options)
        engine, padded = (statistics.median(t) for t in times)
        scale = CANDIDATES / len(sample)
        found = self.engine.encode_soft(sample, classnames)
        return {
            "candidates": CANDIDATES,
            "classes": len(classnames),
            "context": CONTEXT,
            "padded seconds": padded * scale,
            "padded candidates run": len(sample),
            "engine seconds": engine,
            "ratio": statistics.median(p * scale / e for e, p in zip(*times, strict=True)),
            "difference": float((found - self.padded_soft(sample, classnames)).abs().max()),
        }

    def operations(self, tree: TokenTree) -> float:
        """Floating-point operations that the tree's nodes call for; masked pairs do not count."""
        tower = self.encoder.tower
        layer = tower.layers[0]
        into, rest = layer.qkv.weight.numel(), layer.out.weight.numel()
        rest += layer.up.weight.numel() + layer.down.weight.numel()
        pairs = 2 * tower.width * int((tree.depth + 1).sum())  # scores and sums, per node above
        nodes, reads, layers = len(tree), len(tree.ends), len(tower.layers)
        products = layers * nodes * into + ((layers - 1) * nodes + reads) * rest
        if tower.projection is not None:
            products += reads * tower.projection.weight.numel()
        return 2.0 * (products + layers * pairs)


def in_turn(
    runs: Sequence[Callable[[], Any]], bench: Bench, options: argparse.Namespace
) -> list[list[float]]:
    """Seconds of each run in each round; the runs of a round follow each other."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(options.rounds + 1):
        for run, seconds in zip(runs, times, strict=True):
            bench.wait()
            start = time.perf_counter()
            run()
            bench.wait()
            if turn:  # the first round warms up
                seconds.append(time.perf_counter() - start)
    return times


def memory_in_this_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of 1,000 × 80 prompts above what the process holds with the model loaded."""
    bench = Bench(name, options)
    bench.engine = TextEngine(bench.model, bench.tokenizer)  # with its cache
    bench.engine.encode(["warm up"])
    gpu = bench.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if gpu else resident()
    reset_peak()
    start = time.perf_counter()
    texts = [
        template(name) for template in OPENAI_IMAGENET_TEMPLATES for name in IMAGENET_CLASSNAMES
    ]
    features = bench.engine.encode(texts)
    bench.wait()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if gpu else peak_resident()
    return {
        "prompts": len(texts),
        "seconds": seconds,
        "result MiB": features.nbytes / MIB,
        "peak MiB above model": (peak - before) / MIB,
    }


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def reset_peak() -> None:
    """Let the kernel's peak start from here, where it allows that; else it only overstates."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident() -> int:
    """The most bytes this process ever had resident, or since :func:`reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(options: argparse.Namespace) -> dict[str, Any]:
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(s.split(":")[1].strip() for s in lines if s.startswith("model name"))
    found: dict[str, Any] = {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load before": round(os.getloadavg()[0], 2),
        "precision": options.precision,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }
    if options.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


# ------------------------------------------------------------------------------------------- data


def caltech101() -> list[str]:
    return list(json.loads(read_prompt("classnames/caltech101.json")))


def eight_templates() -> list[str]:
    return [PLAIN, *read_lines("templates/clip_subset.txt")]


def filled(templates: Sequence[str], classnames: Sequence[str]) -> list[str]:
    return [t.replace("{}", display_name(c)) for t in templates for c in classnames]


def spaced(texts: list[str], count: int) -> list[str]:
    places = np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int)
    return [texts[place] for place in places]


# ----------------------------------------------------------------------------------------- report


def markdown(report: dict[str, Any]) -> str:
    lines = [
        "# Text engine",
        "",
        f"`{report['command']}`",
        "",
        ", ".join(f"{key} {value}" for key, value in report["machine"].items()) + ".",
        f"Medians of {report['rounds']} rounds, both sides in turn in one process; random weights.",
        "",
    ]
    for part, write in _WRITERS.items():
        if part in report:
            lines += [*write(report[part]), ""]
    return "\n".join(lines)


def _text_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from ("## Text prompts against `encode_text`", "")
    yield from _table(
        ("model", "prompts", "padded tokens", "tree nodes", "padded s", "engine s", "ratio",
         "target", "largest difference", "GFLOP/s", "matmul GFLOP/s", "share"),
        (
            (
                row["model"],
                f"{row['task']} × {row['templates']}",
                f"{row['padded tokens']:,}",
                f"{row['tree nodes']:,}",
                f"{row['padded seconds']:.2f}{_sampled(row, 'padded prompts run', 'prompts')}",
                f"{row['engine seconds']:.3f}",
                f"**{row['ratio']:.1f}×**",
                _target(TARGETS.get(f"{row['task']} × {row['templates']}")),
                f"{row['difference']:.1e}",
                f"{row['GFLOP/s']:.0f}",
                f"{row['matmul GFLOP/s']:.0f}",
                f"{row['share of matmul']:.0%}",
            )
            for row in rows
        ),
    )  # fmt: skip
    yield ""
    yield (
        "GFLOP/s counts the arithmetic that distinct tokens call for, tokenizing included in the "
        "time, with words that both sides have met before; the yardstick is a square product of "
        f"{SQUARE} (on a card {SQUARE_CUDA}) in the same rounds. Targets: ratios as listed, "
        f"difference ≤ {TARGETS['difference']:.0e}, share ≥ {TARGETS['matmul']:.0%}."
    )


def _soft_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from ("## Soft prompts against the padded loop over candidates", "")
    yield from _table(
        ("model", "candidates × classes × context", "padded s", "engine s", "ratio", "target",
         "largest difference"),
        (
            (
                row["model"],
                f"{row['candidates']} × {row['classes']} × {row['context']}",
                f"{row['padded seconds']:.1f}"
                + _sampled(row, "padded candidates run", "candidates"),
                f"{row['engine seconds']:.2f}",
                f"**{row['ratio']:.1f}×**",
                _target(TARGETS["soft"]),
                f"{row['difference']:.1e}",
            )
            for row in rows
        ),
    )  # fmt: skip


def _chunk_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from ("## Chunk and block size (ViT-B-32, Caltech × 8)", "")
    yield from _table(
        ("nodes a chunk", "queries a block", "seconds"),
        ((row["chunk"], row["block"], f"{row['seconds']:.3f}") for row in rows),
    )
    yield ""
    yield "A block as large as the chunk is one dense mask over the chunk."


def _profile_lines(columns: dict[str, dict[str, float]]) -> Iterator[str]:
    yield from ("## Where the engine's time goes (ViT-B-32)", "")
    parts = next(iter(columns.values()))
    yield from _table(
        ("part", *columns),
        ((part, *(f"{shares[part]:.1%}" for shares in columns.values())) for part in parts),
    )
    yield ""
    yield "Where weights are packed, bias and activation are part of the products."


def _memory_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from ("## Memory of 1,000 classes × 80 templates, above the model", "")
    yield from _table(
        ("model", "prompts", "result MiB", "peak MiB", "target", "seconds"),
        (
            (
                row["model"],
                f"{row['prompts']:,}",
                f"{row['result MiB']:.0f}",
                f"**{row['peak MiB above model']:.0f}**",
                f"< {TARGETS['memory']:.0f}",
                f"{row['seconds']:.0f}",
            )
            for row in rows
        ),
    )


def _family_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from ("## Text towers of open_clip, one tiny random model each", "")
    yield from _table(
        ("configurations", "such as", "path", "largest difference to `encode_text`", "why"),
        (
            (
                row["configurations"],
                row["such as"],
                row["path"],
                "–" if row["difference"] is None else f"{row['difference']:.1e}",
                row["why"] if row["path"] == "padded" else "",
            )
            for row in rows
        ),
    )


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def _sampled(row: dict[str, Any], ran: str, of: str) -> str:
    return "" if row[ran] == row[of] else f" (from {row[ran]})"


def _target(value: float | None) -> str:
    return "" if value is None else f"≥ {value:.0f}×"


_WRITERS: dict[str, Callable[[Any], Iterator[str]]] = {
    "text prompts": _text_lines,
    "soft prompts": _soft_lines,
    "memory": _memory_lines,
    "chunks": _chunk_lines,
    "where time goes": _profile_lines,
    "families": _family_lines,
}


if __name__ == "__main__":
    main()
