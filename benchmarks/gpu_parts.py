"""What ``benchmarks/gpu.py`` measures: parts, each a list of cases, each of which gives rows.

Models have their true sizes and random weights; in miniature they are tiny and everything is small,
so that all of it runs on a CPU within a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import craft_speed
import numpy as np
import text_engine as text
import torch
from PIL import Image as PillowImage
from safetensors.torch import save_file

import llmopt
from llmopt.data.loading import cores, load_batches
from llmopt.errors import ModelError
from llmopt.images import FileImage, PixelImage
from llmopt.vision.decoders import make_decoder
from llmopt.vision.device import abilities, name
from llmopt.vision.openclip import OpenClipBlackBox
from llmopt.vision.text_engine.tree_encoder import TreeEncoder

open_clip = text.open_clip
ROOT = Path(__file__).parents[1]
MINIATURE = "miniature-"
PRECISIONS = ("fp32", "fp16", "bf16")
EQUAL: Final = ("RN50", "ViT-B-32", "ViT-L-14", "PE-Core-B-16", "coca_ViT-B-32")
"""The last one's text tower is no tree."""

Row = dict[str, Any]
Cases = dict[str, Callable[[], Sequence[Row]]]


class Scale:
    """How large everything is.

    Args:
        miniature: tiny, on the CPU.
        scratch: a folder for weights and pictures.
    """

    def __init__(self, miniature: bool, scratch: Path) -> None:
        self.miniature, self.scratch = miniature, scratch
        self.device = torch.device("cpu" if miniature else "cuda")

    def pick(self, full: Any, small: Any) -> Any:
        """The one that fits."""
        return small if self.miniature else full

    def model(self, model: str) -> str:
        """The name open_clip knows it by here."""
        if not self.miniature:
            return model
        (self.scratch / "configs").mkdir(exist_ok=True)
        config = shrunk(open_clip.get_model_config(model))
        path = self.scratch / "configs" / f"{MINIATURE}{model}.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
        return MINIATURE + model

    def weights(self, model: str) -> tuple[str, str]:
        """A model with random weights: its name, and the file of its weights."""
        path = self.scratch / f"{model}.safetensors"
        known = self.model(model)
        if not path.exists():
            torch.manual_seed(0)
            made = open_clip.create_model(known)
            with torch.no_grad():  # what begins at zero or one would hide a mistake
                for parameter in made.parameters():
                    # Some of a decoder's weights are left as memory was.
                    parameter.nan_to_num_(0.0, 0.0, 0.0).clamp_(-100, 100)
                    if parameter.ndim == 1:
                        parameter.add_(0.05 * torch.randn_like(parameter))
            save_file({k: v.contiguous() for k, v in made.state_dict().items()}, path)
        return known, str(path)

    def box(self, model: str, precision: str, device: str | None = None) -> OpenClipBlackBox:
        """The model as a user gets it."""
        return OpenClipBlackBox(
            *self.weights(model), device=device or str(self.device), precision=precision
        )

    def options(self, precision: str, **more: Any) -> argparse.Namespace:
        """What the other benchmarks are asked for."""
        return argparse.Namespace(
            device=self.device.type, precision=precision, full=not self.miniature,
            rounds=self.pick(5, 1), sample=4, threads=torch.get_num_threads(), **more,
        )  # fmt: skip

    def bench(self, model: str, precision: str) -> text.Bench:
        """A text tower, its engine and its padded path."""
        made = text.Bench(self.model(model), self.options(precision))
        if self.miniature:
            made.square = made.square[:64, :64].contiguous()
        return made

    def files(self, count: int) -> list[FileImage]:
        """JPEG files of 500 x 375 in ten class folders."""
        folder = self.scratch / "pictures"

        def draw(number: int) -> FileImage:
            path = folder / f"class {number % 10}" / f"{number:05}.jpg"
            if not path.exists():
                dice = np.random.default_rng(number)
                coarse = PillowImage.fromarray(dice.integers(0, 256, (24, 32, 3), dtype=np.uint8))
                smooth = np.asarray(coarse.resize((500, 375), PillowImage.Resampling.BICUBIC))
                noise = dice.integers(-12, 13, smooth.shape)
                pixels = (smooth + noise).clip(0, 255).astype(np.uint8)
                path.parent.mkdir(parents=True, exist_ok=True)
                PillowImage.fromarray(pixels).save(path, quality=90)
            return FileImage(folder, path.relative_to(folder).as_posix())

        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(draw, range(count)))

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any]) -> float:
        """The median of some runs after one that warms up."""
        times = []
        for _ in range(self.pick(6, 2)):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of the same kind, tiny."""
    config = copy.deepcopy(config)
    vision, small = config["vision_cfg"], {"width": 32, "heads": 2, "layers": 2}
    if "timm_model_name" in vision:
        vision = {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token",
                  "timm_proj": "linear"}  # fmt: skip
    elif isinstance(vision["layers"], list):
        vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    else:
        vision |= {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1}
        vision |= {"attn_pooler_heads": 4} if "attn_pooler_heads" in vision else {}
    config |= {"embed_dim": 32, "vision_cfg": vision, "text_cfg": config["text_cfg"] | small}
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {**small, "attn_pooler_heads": 4}
    return config


# ------------------------------------------------------------------------------------------ parts


def equality(scale: Scale) -> Cases:
    """Largest differences to fp32 on the CPU; scores are cosines."""
    texts = text.filled(text.eight_templates(), text.caltech101()[: scale.pick(100, 4)])
    dice = np.random.default_rng(0)
    images = [
        PixelImage(f"picture {n}", dice.integers(0, 256, (240, 300, 3), dtype=np.uint8))
        for n in range(scale.pick(16, 2))
    ]

    def answers(box: OpenClipBlackBox) -> dict[str, Any]:
        soft = box.engine.path == "trie"
        found = {
            "text": box.text_features(texts),
            "images": box.image_features(images),
            "scores": box.scores(images, texts) / box.info.logit_scale,
        }
        if soft:
            contexts = torch.from_numpy(box.embed_text("a photo of a"))[None].repeat(4, 1, 1)
            contexts += 0.01 * torch.randn(contexts.shape, generator=torch.manual_seed(1))
            found["soft prompts"] = box.soft_features(contexts, ["cat", "red_dog"]).cpu().numpy()
        return found

    def compare(model: str) -> Iterator[Row]:
        own = answers(scale.box(model, "fp32", "cpu"))
        for precision in PRECISIONS:
            box = scale.box(model, precision)
            apart = {k: float(np.abs(v - own[k]).max()) for k, v in answers(box).items()}
            limit = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-2}[precision]
            yield {"model": model, "precision": precision, "path": box.engine.path, **apart,
                   "target": limit, "met": max(apart.values()) <= limit}  # fmt: skip

    return {model: lambda model=model: list(compare(model)) for model in EQUAL}


def tests(scale: Scale) -> Cases:
    """The tests marked gpu."""

    def run() -> list[Row]:
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-o", "filterwarnings=default"]
        command += scale.pick(["tests/vision"], ["tests/vision/test_device.py", "--collect-only"])
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."}
        )
        lines = done.stdout.strip().splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        if done.returncode:
            print(done.stdout[-8000:], done.stderr[-2000:], file=sys.stderr, flush=True)
        return [{"exit": done.returncode, "said": lines[-1] if lines else "", "failed": failed}]

    return {"pytest -m gpu": run}


def texts(scale: Scale) -> Cases:
    """Text engine against ``encode_text`` in the same precision; share of the matrix rate."""

    def compare(model: str, precision: str) -> Iterator[Row]:
        bench = scale.bench(model, precision)
        backend = scale.pick("inductor", "eager")
        ids = bench.tokenizer(["a photo of a cat."] * bench.batch).to(bench.device)
        compiled = torch.compile(bench.model.encode_text, backend=backend)
        with torch.inference_mode():
            each = scale.seconds(lambda: compiled(ids)) / bench.batch
        for task, names in tasks(scale).items():
            texts = text.filled(text.eight_templates(), names)
            row = bench.compare_texts(texts)
            kept = ("prompts", "tree nodes", "padded batch", "padded seconds", "engine seconds",
                    "ratio", "difference", "share of matmul")  # fmt: skip
            yield {"model": model, "precision": precision, "task": f"{task} × 8",
                   **{key: row[key] for key in kept},
                   "ratio to compiled": len(texts) * each / row["engine seconds"],
                   "matmul TFLOP/s": row["matmul GFLOP/s"] / 1e3}  # fmt: skip
        for count, (task, names) in zip((40, 16), tasks(scale).items(), strict=True):
            yield {"model": model, "precision": precision,
                   "task": f"soft {count} × {task}", **soft(bench, names, count)}  # fmt: skip

    def soft(bench: text.Bench, names: Sequence[str], count: int) -> Row:
        width = bench.encoder.tower.width
        contexts = 0.02 * torch.randn(count, text.CONTEXT, width, device=bench.device)
        padded = scale.seconds(lambda: bench.padded_soft(contexts[:2], names)) * count / 2
        engine = scale.seconds(lambda: bench.engine.encode_soft(contexts, names))
        apart = bench.engine.encode_soft(contexts[:2], names) - bench.padded_soft(
            contexts[:2], names
        )
        return {"prompts": count * len(names), "padded seconds": padded, "engine seconds": engine,
                "ratio": padded / engine, "difference": float(apart.abs().max())}  # fmt: skip

    which = [(m, p) for m in ("ViT-B-32", "ViT-L-14") for p in ("fp16", "fp32", "bf16")]
    return {
        f"{m} {p}": lambda m=m, p=p: list(compare(m, p)) for m, p in scale.pick(which, which[1:3])
    }


def images(scale: Scale) -> Cases:
    """JPEG files: decoding and encoding in step, against each alone, by each decoder."""

    def measure(model: str) -> Iterator[Row]:
        files = scale.files(scale.pick(4096, 12))
        box = scale.box(model, scale.pick("fp16", "fp32"))
        expected, row = one(box, files)
        yield {"model": model, **row}
        try:
            box.decoder = make_decoder("nvjpeg", box.preprocess, box.device)
        except ModelError as error:
            yield {"model": model, "decoder": f"nvjpeg: no, {str(error)[:100]}"}
            return
        found, row = one(box, files)
        apart = 1.0 - (found * expected).sum(axis=1)
        yield {"model": model, **row, "largest 1 - cosine to pillow": float(apart.max())}

    def one(box: OpenClipBlackBox, files: Sequence[FileImage]) -> tuple[Any, Row]:
        load, stack, size = box.decoder.load, box.decoder.stack, box._batch.size
        began = time.perf_counter()
        for _, batch in load_batches(files, load, stack, size):  # noqa: B007
            pass
        scale.wait()
        decoding = len(files) / (time.perf_counter() - began)
        with torch.inference_mode():
            encoding = len(batch) / scale.seconds(lambda: box._encode_pixels(batch))
        began = time.perf_counter()
        features = box.image_features(files)
        both = len(files) / (time.perf_counter() - began)
        return features, {
            "decoder": box.decoder.name, "images": len(files), "cores": cores(), "batch": size,
            "decoding, images/s": decoding, "encoding, images/s": encoding,
            "both, images/s": both, "encoder busy": both / encoding,
            "limit": "decoding" if decoding < encoding else "encoding",
            "share of the limit": both / min(decoding, encoding),
        }  # fmt: skip

    return {m: lambda m=m: list(measure(m)) for m in ("ViT-B-32", "RN50", "ViT-L-14")}


def craft(scale: Scale) -> Cases:
    """A whole run of 8,000 evaluations, 16 shots, against the padded loop."""

    def measure(profile: str, classes: int) -> list[Row]:
        options = scale.options(
            scale.pick("fp16", "fp32"), profile=profile, classes=scale.pick(classes, 3),
            budget=scale.pick(8000, 80), every=scale.pick(50, 1), candidates=1,
            model=scale.model("ViT-B-32"), shots=scale.pick(16, 2),
        )  # fmt: skip
        row = craft_speed.measure(options)
        kept = ("evaluations", "soft prompts", "seconds", "padded seconds", "ratio", "cma share")
        return [{"profile": profile, "classes": options.classes, "stop": row["stop"],
                 **{key: row[key] for key in kept},
                 "target": "< 60 s" if classes == 100 else ""}]  # fmt: skip

    return {f"{p}, {c:,} classes": functools.partial(measure, p, c)
            for c in (100, 1000) for p in ("llmopt", "released")}  # fmt: skip


def runs(scale: Scale) -> Cases:
    """Default ``chat`` runs and one of ``auto``, end to end: embedded model, RN50 on JPEG files."""

    def run(**options: Any) -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            result = llmopt.run(llm="builtin", runs=folder, progress=False, **options).result
            spent = result["ledger"] | {}
            return [{"device": result["machine"]["device"],
                     "precision": result["machine"]["precision"],
                     "seconds": time.perf_counter() - began,
                     "in the box": result["seconds"]["black_box"],
                     "best": result["best"]["templates"][0]["text"],
                     "start, test": result["baseline"]["test_accuracy"],
                     "best, test": result["best"]["test_accuracy"],
                     "images": spent["image_encodings"] + result["evaluation"]["image_encodings"],
                     "prompts": spent["text_encodings"]}]  # fmt: skip

    def embedded(device: str) -> list[Row]:
        settings = scale.pick({}, {"iterations": 1, "restarts": 1})
        return run(dataset="shapes-small", device=device, settings=settings)

    def automatic() -> list[Row]:
        settings = scale.pick({}, {"budget": 16})
        return run(
            dataset="shapes-codes", shots=4, optimizer="auto", device=str(scale.device),
            settings=settings,
        )  # fmt: skip

    def photographs() -> list[Row]:
        count = scale.pick(2000, 40)
        scale.files(count)
        model, weights = scale.weights("RN50")
        return run(
            dataset=f"folder:{scale.scratch / 'pictures'}", model=model, pretrained=weights,
            device=str(scale.device), settings=scale.pick({}, {"iterations": 1, "restarts": 1}),
        )  # fmt: skip

    return {
        "shapes-small, on the card": lambda: embedded(str(scale.device)),
        "shapes-small, on the CPU": lambda: embedded("cpu"),
        "shapes-codes, auto, on the card": automatic,
        "RN50, JPEG files": photographs,
    }


def graphs(scale: Scale) -> Cases:
    """What launching costs: soft prompts as they run, against one CUDA graph replayed."""

    def measure(count: int, classes: int) -> list[Row]:
        bench = scale.bench("ViT-B-32", scale.pick("fp16", "fp32"))
        names = (list(text.IMAGENET_CLASSNAMES) * 2)[: scale.pick(classes, 4)]
        encoder, engine = bench.encoder, bench.engine
        contexts = 0.02 * torch.randn(count, text.CONTEXT, encoder.tower.width, device=bench.device)
        tree = engine._soft_tree(tuple(names), text.CONTEXT, True)
        whole = TreeEncoder(encoder.tower, len(tree) * count, encoder.block)
        with torch.inference_mode():
            for _, path in whole._walk(tree, 0, tree.shared):  # noqa: B007
                pass
            chunks = tree.chunks(tree.shared, len(tree), len(tree), encoder.block)
            plans = [whole._plan(chunk) for chunk in chunks]

            def work() -> torch.Tensor:
                return whole._under(plans, path, contexts)

            replay, out = captured(work, scale)
            plain = work()
            replay()
            apart = float((out() - plain).abs().max())
            each, graph = scale.seconds(work), scale.seconds(replay)
        return [{"candidates": count, "classes": len(names), "nodes": count * len(tree),
                 "as it runs, ms": 1e3 * each, "replayed, ms": 1e3 * graph,
                 "ratio": each / graph, "difference": apart}]  # fmt: skip

    sizes = ((16, 100), (40, 100), (16, 1000))
    return {f"{b} × {k:,}": functools.partial(measure, b, k) for b, k in sizes}


def captured(
    work: Callable[[], torch.Tensor], scale: Scale
) -> tuple[Callable[[], Any], Callable[[], torch.Tensor]]:
    """``work`` as a CUDA graph and its result; off a card ``work`` itself."""
    if scale.miniature:
        return work, work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()
    return graph.replay, lambda: out


def chunks(scale: Scale) -> Cases:
    """Seconds over nodes computed at once and queries that share a list of keys."""

    def measure() -> Iterator[Row]:
        bench = scale.bench("ViT-B-32", scale.pick("fp16", "fp32"))
        names = tasks(scale)["ImageNet"]
        forms = bench.engine.normal_forms(text.filled(text.eight_templates(), names))
        for chunk in scale.pick((4096, 8192, 16384, 32768, 65536), (32, 64)):
            for block in scale.pick((16, 32, 64, 128), (32,)):
                encoder = TreeEncoder(bench.encoder.tower, chunk, block)
                with torch.inference_mode():
                    seconds = scale.seconds(lambda e=encoder: list(e.encode(forms)))
                yield {
                    "nodes": chunk,
                    "block": block,
                    "seconds": seconds,
                    "ended at": encoder.chunk,
                }

    return {"ImageNet × 8, ViT-B-32": lambda: list(measure())}


def memory(scale: Scale) -> Cases:
    """1,000 classes × 80 templates above the model, and a batch size far too large."""

    def prompts(model: str) -> list[Row]:
        options = scale.options(scale.pick("fp16", "fp32"))
        if scale.miniature:
            return [{"model": model, "prompts": 0}]
        return [{"model": model, **text.memory_in_this_process(scale.model(model), options)}]

    def too_large() -> list[Row]:
        files = scale.files(scale.pick(4096, 12))
        box = OpenClipBlackBox(
            *scale.weights("ViT-L-14"), device=str(scale.device), precision="fp32",
            batch_size=len(files),
        )  # fmt: skip
        if not scale.miniature:  # as a small card would have it
            torch.cuda.set_per_process_memory_fraction(0.12)
        box.image_features(files)
        return [{"model": "ViT-L-14", "asked at once": len(files), "ended at": box._batch.size}]

    return {
        "ViT-B-32": functools.partial(prompts, "ViT-B-32"),
        "ViT-L-14": functools.partial(prompts, "ViT-L-14"),
        "an eighth of the memory": too_large,
    }


def profile(scale: Scale) -> Cases:
    """Where the time goes: the kernels that take most, and how busy the card is."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    def measure(task: str) -> list[Row]:
        bench = scale.bench("ViT-B-32", scale.pick("fp16", "fp32"))
        names = tasks(scale)[task]
        texts = text.filled(text.eight_templates(), names)
        bench.from_nothing(texts)
        kinds = [ProfilerActivity.CPU, *scale.pick([ProfilerActivity.CUDA], [])]
        with recording(activities=kinds) as recorded:
            began = time.perf_counter()
            bench.from_nothing(texts)
            scale.wait()
            wall = time.perf_counter() - began
        take = "self_cpu_time_total" if scale.miniature else "self_device_time_total"
        events = sorted(recorded.key_averages(), key=lambda e: -getattr(e, take))
        total = sum(getattr(event, take) for event in events)
        rows = [{"task": f"{task} × 8", "kernel": event.key[:60], "calls": event.count,
                 "share": getattr(event, take) / total} for event in events[:8]]  # fmt: skip
        return [{"task": f"{task} × 8", "kernel": "all", "share": total / 1e6 / wall}, *rows]

    return {task: functools.partial(measure, task) for task in tasks(scale)}


def tasks(scale: Scale) -> dict[str, list[str]]:
    """Class names by task."""
    return {
        "Caltech": text.caltech101()[: scale.pick(100, 3)],
        "ImageNet": list(text.IMAGENET_CLASSNAMES)[: scale.pick(1000, 5)],
    }


PARTS: Mapping[str, Callable[[Scale], Cases]] = {
    "equality": equality,
    "tests": tests,
    "text": texts,
    "images": images,
    "craft": craft,
    "runs": runs,
    "graphs": graphs,
    "chunks": chunks,
    "memory": memory,
    "profile": profile,
}


# ---------------------------------------------------------------------------------- as a process


def work(parts: Sequence[str], done: Mapping[str, Sequence[str]], miniature: bool) -> None:
    """Do the cases of ``parts`` that are not done; print a line of JSON for each at once.

    The first that fails ends the process, which a broken card does not survive; the rest is for
    the next one.
    """
    told = os.dup(1)  # what else is printed goes to stderr
    os.dup2(2, 1)

    def tell(**line: Any) -> None:
        os.write(told, (json.dumps(line, default=str) + "\n").encode())

    with tempfile.TemporaryDirectory() as scratch:
        scale = Scale(miniature, Path(scratch))
        tell(machine=machine(scale))
        for part in parts:
            for case, measure in PARTS[part](scale).items():
                if case in done.get(part, ()):
                    continue
                began = time.perf_counter()
                if not miniature:
                    torch.cuda.reset_peak_memory_stats()
                try:
                    rows = [{"case": case, **row} for row in measure()]
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"[:500]
                    tell(part=part, case=case, error=said)
                    raise
                peak = 0 if miniature else torch.cuda.max_memory_allocated() / text.MIB
                for row in rows:
                    row["peak MiB"] = round(peak)
                tell(part=part, case=case, rows=rows, seconds=time.perf_counter() - began)


def machine(scale: Scale) -> dict[str, Any]:
    """The card and what it runs under."""
    driver = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    rates = {} if scale.miniature else abilities(scale.device)["rates"]
    return {
        "card": name(scale.device),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cores": cores(),
        "TFLOP/s": {kind: round(rate / 1e12, 1) for kind, rate in rates.items()},
    }
