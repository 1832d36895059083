"""The user's own command on a CPU: where its time goes, before and after.

    LLMOPT_DATA=~/data .venv/bin/python benchmarks/cpu_images.py

Runs ``llmopt run --dataset caltech101 --shots 1 --optimizer chat`` behind image towers with random
weights: in fp32 with pixels as they come (before), as ``--precision auto`` has it, and with
``--precision bf16``; each with an empty feature cache (cold) and again (warm), in a process of its
own. Beside it open_clip's ``encode_image``, in turn on the same images. Needs Caltech-101 in CoOp's
layout and no network. Writes ``benchmarks/results/cpu_images.json`` and ``cpu_images.md``; what is
measured already is kept, so that towers can be added one by one.

One thread, and seconds of the processor (``process_time``): what others do on the machine hardly
changes those. ``--classes`` and ``--every`` take a part of the data, and the tables say so; what
the whole command would take by the measured rates then stands beside it as computed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from startup import Clock

RESULTS = Path(__file__).parent / "results" / "cpu_images.json"
TOWERS = ("RN50", "ViT-B-32", "ViT-B-16")
ARMS = {"before": "fp32", "auto": "auto", "bf16": "bf16"}
"""What ``--precision`` says in each."""

STATES = ("cold", "warm")
"""Of the feature cache."""

ROUNDS, SIDE_BY_SIDE = 3, 16
# What runs inside of another part counts for the inner one alone.
ENCODE, TEXT = "decode and encode images", ("compute text features", "tokenise")
CLASSES = 100
WHOLE = {"images": 2665, "prompts": 19_300}
"""What the command on all of Caltech-101 encodes."""

PARTS = {
    ENCODE: ("llmopt.vision.openclip", "OpenClipBlackBox.image_features"),
    TEXT[0]: ("llmopt.vision.openclip", "OpenClipBlackBox.text_features"),
    TEXT[1]: ("llmopt.vision.text_engine.engine", "TextEngine.normal_forms"),
    "check the length of templates": ("llmopt.vision.base", "BlackBox.check"),
    "write templates (built-in rewriter)": ("llmopt.language.builtin", "BuiltinRewriter._generate"),
    "score and choose": ("llmopt.vision.metered", "MeteredBox.score_templates"),
    "load the model": ("llmopt.runs.compose", "ModelChoice.open"),
    "hash the weights": ("llmopt.vision.openclip", "OpenClipBlackBox._sha256"),
    "hash the images": ("llmopt.images", "FileImage.key"),
    "list, sample and examine the data": ("llmopt.runs.compose", "compose"),
    "write the journal": ("llmopt.spend.journal", "Journal._append"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--towers", nargs="+", default=list(TOWERS))
    parser.add_argument("--classes", type=int, default=CLASSES, help="the first N")
    parser.add_argument("--every", type=int, default=1, help="open each N-th test image")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LLMOPT_DATA") or "data"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.towers[0], options.child, options.data, options.out)
        return
    kept = json.loads(options.out.read_text())["towers"] if options.out.is_file() else {}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:
        folder = Path(name)
        data = thinned(options.data, folder, options.classes, options.every)
        for tower in options.towers:
            write_random(tower, folder / tower)
        wanted = list(itertools.product(options.towers, ARMS))
        for tower in options.towers:
            kept[tower] = {"command": command(), "classes": options.classes, "every": options.every}
        done = {pool.submit(in_child, *one, data, folder): one for one in wanted}
        for future in as_completed(done):
            tower, arm = done[future]
            kept[tower][arm] = future.result()
            save(options.out, kept)
            print(f"{tower}, {arm}: done", file=sys.stderr, flush=True)
    print(options.out.with_suffix(".md").read_text())


def thinned(data: Path, folder: Path, classes: int, every: int) -> Path:
    """The data with the first classes and, of them, each ``every``-th test image."""
    source, copy = data / "caltech-101", folder / "data" / "caltech-101"
    split = json.loads((source / "split_zhou_Caltech101.json").read_text())
    split = {part: [row for row in rows if row[1] < classes] for part, rows in split.items()}
    split["test"] = split["test"][::every]
    copy.mkdir(parents=True)
    (copy / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    (copy / "101_ObjectCategories").symlink_to((source / "101_ObjectCategories").absolute())
    return copy.parent


def write_random(tower: str, folder: Path, layers: int = 0) -> None:
    """The model with random weights as open_clip's ``local-dir``; of its towers' layers so many."""
    import torch
    from safetensors.torch import save_file

    from llmopt._torchvision import ensure_operators

    ensure_operators()
    import open_clip

    torch.manual_seed(0)
    parts = open_clip.get_model_config(tower)
    if layers:
        parts["vision_cfg"]["layers"] = parts["text_cfg"]["layers"] = layers
    model = open_clip.create_model(tower, **parts)
    config = {"model_cfg": parts, "preprocess_cfg": {}}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def in_child(tower: str, arm: str, data: Path, folder: Path) -> dict[str, Any]:
    """What :func:`measure` finds in a process of its own."""
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    out = folder / f"{tower}-{arm}.json"
    command = [sys.executable, __file__, "--child", arm, "--towers", tower]
    subprocess.run(
        [*command, "--data", str(data), "--out", str(out)],
        env={**os.environ, **one, "LLMOPT_CACHE": str(folder / f"{tower}-{arm}")},
        cwd=folder,
        check=True,
    )
    found: dict[str, Any] = json.loads(out.read_text())
    return found


# --------------------------------------------------------------------------------------- one arm


def measure(tower: str, arm: str, data: Path, out: Path) -> None:
    """The command cold, its encoder beside open_clip's, the command warm; written part by part."""
    started = time.process_time()
    import torch

    from llmopt.runs import compose, engine
    from llmopt.vision import openclip

    found: dict[str, Any] = {"imports": time.process_time() - started}
    if arm == "before":
        openclip._format = lambda *_: torch.preserve_format
        openclip._IN_CACHE = 64
    clock, spans = Clock(time.process_time), dict[str, float]()
    for place in PARTS.items():
        clock.watch(*place)
    for module, name in ((compose, "settle"), (engine, "_measure")):
        setattr(module, name, timed(getattr(module, name), spans, name))
    for name, part in (
        ("cold", lambda: run_once(tower, arm, data, clock, spans)),
        ("decode_ms", lambda: decode_ms(data)),
        ("beside", lambda: beside(tower, arm, data)),
        ("warm", lambda: run_once(tower, arm, data, clock, spans)),
    ):
        found[name] = part()
        out.write_text(json.dumps(found))


def run_once(
    tower: str, arm: str, data: Path, clock: Clock, spans: dict[str, float]
) -> dict[str, Any]:
    """One run: seconds by part, those of the test apart, and what it found."""
    from llmopt.runs import compose, engine
    from llmopt.runs.config import RunConfig
    from llmopt.spend.files import read_arrays

    config = RunConfig(
        dataset="caltech101", shots=1, optimizer="chat", llm="builtin", data_root=str(data),
        model=f"local-dir:{tower}", precision=ARMS[arm],
        runs=f"{tower}-{arm}",
    )  # fmt: skip
    spans |= {"settle": 0.0, "_measure": 0.0}
    clock.seconds = dict.fromkeys(PARTS, 0.0)
    wall, cpu = time.perf_counter(), time.process_time()
    result = engine.start(compose.compose(config))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    clock.seconds["the rest"] = cpu - sum(clock.seconds.values())
    best = read_arrays(Path(result["run"]) / "test_predictions.safetensors").arrays["best"]
    return {
        "cpu": cpu,
        "waiting": max(0.0, wall - cpu),
        "parts": clock.seconds,
        "settle": spans["settle"],
        "test": spans["_measure"],
        "test_images": result["task"]["test_images"],
        "encodings": {
            name: result["ledger"][name] + result["evaluation"][name]
            for name in ("image_encodings", "text_encodings")
        },
        "precision": result["machine"]["precision_because"],
        "template": [template["text"] for template in result["best"]["templates"]],
        "accuracy": result["best"]["test_accuracy"],
        "predictions": best.tolist(),
    }


def timed(function: Callable[..., Any], spans: dict[str, float], name: str) -> Callable[..., Any]:
    """The function, with all it takes added to ``spans[name]``."""

    def watched(*args: Any, **kwargs: Any) -> Any:
        before = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spans[name] += time.process_time() - before

    return watched


def decode_ms(data: Path) -> float:
    """Milliseconds to decode and scale one image."""
    from llmopt.data.loading import load_batches

    images, transform = some_images(data, 128)
    before = time.process_time()
    for _ in load_batches(images, lambda image: transform(image.load()), list, 16):
        pass
    return 1000 * (time.process_time() - before) / len(images)


def some_images(data: Path, count: int) -> tuple[Any, Any]:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from llmopt.data.registry import open_dataset

    images = open_dataset("caltech101", data).split("test").images
    images = images[:: max(1, len(images) // count)][:count]
    return images, image_transform_v2(PreprocessCfg(), is_train=False)


def beside(tower: str, arm: str, data: Path) -> dict[str, float]:
    """Images a second of this arm's encoder, decoding in step, and of ``encode_image`` in fp32,
    which finds them decoded; in turn."""
    import torch

    from llmopt.vision import openclip

    precision = "fp32" if arm == "before" else "bf16"
    box = openclip.OpenClipBlackBox(f"local-dir:{tower}", device="cpu", precision=precision)
    plain = openclip.load_model(f"local-dir:{tower}", "")[0].eval()
    images, transform = some_images(data, SIDE_BY_SIDE)
    pixels = torch.stack([transform(image.load()) for image in images])
    seconds: dict[str, list[float]] = {"ours": [], "encode_image": []}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, encode in (
                ("ours", lambda: box.image_features(images)),
                ("encode_image", lambda: plain.encode_image(pixels, normalize=True)),
            ):
                before = time.process_time()
                encode()
                seconds[name].append(time.process_time() - before)
    return {name: SIDE_BY_SIDE / statistics.median(spent) for name, spent in seconds.items()}


# ------------------------------------------------------------------------------ what is written


def save(out: Path, towers: dict[str, Any]) -> None:
    data = {"machine": processor(), "towers": towers}
    out.write_text(json.dumps(data, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(data))


def command() -> str:
    """As it was typed."""
    return shlex.join(["python", "benchmarks/cpu_images.py", *sys.argv[1:]])


def processor() -> str:
    """What computed, in words."""
    import torch

    found = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.partition(":")[2].strip() for line in found if line.startswith("model name"))
    family = [line.partition(":")[2].strip() for line in found[:5] if "family" in line]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} (family {family[0]}), {capability}, one thread, PyTorch {torch.__version__}"


def took(tower: dict[str, Any], arm: str, state: str) -> float:
    """Seconds of the command, imports included."""
    return float(tower[arm]["imports"] + tower[arm][state]["cpu"])


def is_part(tower: dict[str, Any]) -> bool:
    """Whether the command ran on fewer images than there are."""
    return bool(tower["classes"] < CLASSES or tower["every"] > 1)


def whole(tower: dict[str, Any], arm: str) -> float:
    """Seconds of all images and prompts of the whole command, by the measured rates."""
    run = tower[arm]["cold"]
    counts = run["encodings"]
    image = run["parts"][ENCODE] / counts["image_encodings"]
    prompt = sum(run["parts"][part] for part in TEXT) / counts["text_encodings"]
    return WHOLE["images"] * float(image) + WHOLE["prompts"] * float(prompt)


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def header(*cells: str) -> list[str]:
    """The first two lines of a table."""
    return [row(*cells), "|" + "---|" * len(cells)]


def markdown(data: dict[str, Any]) -> str:
    towers = {name: tower for name, tower in data["towers"].items() if {*ARMS} <= {*tower}}
    lines = [
        "# The user's own command on a CPU",
        "",
        f"`python benchmarks/cpu_images.py`; {data['machine']}.",
        "",
        "`llmopt run --dataset caltech101 --shots 1 --optimizer chat --llm builtin` behind towers "
        "with random weights. *Before*: fp32, pixels and weights as they come, 64 images at a "
        "time. Since then: 16 images at a time, channels last where the tower is convolutional, "
        "packed bf16 weights for text, `--precision auto`. Seconds of the processor, imports "
        "included, which others on the machine hardly change.",
        "",
        *header("tower", "", "before", "auto", "as fast", "--precision bf16", "as fast"),
    ]
    for name, tower in towers.items():
        figures = {state: [took(tower, arm, state) for arm in ARMS] for state in STATES}
        if is_part(tower):
            figures["all images and prompts, computed"] = [whole(tower, arm) for arm in ARMS]
        for state, (before, auto, bf16) in figures.items():
            ratios = f"{before / auto:.2f} ×", f"{before / bf16:.2f} ×"
            seconds = f"{before:.0f} s", f"{auto:.0f} s", ratios[0], f"{bf16:.0f} s", ratios[1]
            lines.append(row(name, state, *seconds))
    lines.append("")
    for name, tower in towers.items():
        run = tower["auto"]["cold"]
        counts = run["encodings"]
        part = f"the first {tower['classes']} classes and each {tower['every']}th test image"
        data_taken = part if is_part(tower) else "all of it"
        rates = (
            f" The computed row takes {WHOLE['images']:,} and {WHOLE['prompts']:,} at these rates, "
            "without what does not grow with them, such as loading the model."
        )
        lines.append(
            f"- {name}: `{tower['command']}`, that is {data_taken}: "
            f"{counts['image_encodings']:,} images and {counts['text_encodings']:,} prompts."
            f"{rates if is_part(tower) else ''} Auto: {run['precision']}."
        )
    lines += [
        "",
        "## What changes in the answer",
        "",
        *header(
            "tower", "", "best template", "test accuracy", "classes named", "predicted as before"
        ),
    ]
    for name, tower in towers.items():
        before = tower["before"]["cold"]
        for arm in ARMS:
            run = tower[arm]["cold"]
            pairs = zip(before["predictions"], run["predictions"], strict=True)
            alike = statistics.mean(one == other for one, other in pairs)
            told = f"{100 * alike:.1f} % of {run['test_images']:,}"
            named = len({*run["predictions"]})
            accuracy = f"{100 * run['accuracy']:.2f} %"
            lines.append(row(name, arm, "; ".join(run["template"]), accuracy, named, told))
    lines += [
        "",
        "Random weights know nothing of the images and name few classes: what `auto` finds behind "
        "them says little of trained models, which are looked at in the same way.",
        "",
        "## Beside open_clip's `encode_image`",
        "",
        "Images a second in one process, in turn: ours with decoding in step, `encode_image` in "
        "fp32 with all of them decoded before.",
        "",
        *header("tower", "before", "bf16", "`encode_image`", "decoding one image"),
    ]
    for name, tower in towers.items():
        ours = [f"{tower[arm]['beside']['ours']:.1f}" for arm in ("before", "bf16")]
        plain = f"{tower['bf16']['beside']['encode_image']:.1f}"
        lines.append(row(name, *ours, plain, f"{tower['bf16']['decode_ms']:.1f} ms"))
    lines += [
        "",
        "Images are decoded ahead on threads while others are encoded; on few cores that takes "
        "from the same processor, by the last column.",
        "",
        "## Where the time goes",
        "",
        "Seconds of the processor as measured; in brackets warm. *Looking at bf16* is within the "
        "parts above: loading the model once more, few images and prompts in both precisions. "
        "*Waiting* is for the disk and for others on the machine.",
        "",
        *header("part", *(f"{name}, {arm}" for name in towers for arm in ARMS)),
    ]
    runs = [tower[arm] for tower in towers.values() for arm in ARMS]
    for part in [*PARTS, "the rest"]:
        told = (_bracketed({s: run[s]["parts"] for s in STATES}, part) for run in runs)
        lines.append(row(part, *told))
    lines.append(row("imports", *(f"{run['imports']:.1f}" for run in runs)))
    for title, key in (
        ("*looking at bf16*", "settle"),
        ("*the test*", "test"),
        ("*waiting, by the clock*", "waiting"),
    ):
        lines.append(row(title, *(_bracketed(run, key) for run in runs)))
    return "\n".join(lines) + "\n"


def _bracketed(run: dict[str, Any], key: str) -> str:
    cold, warm = (run[state][key] for state in STATES)
    return f"{cold:.1f} ({warm:.1f})"


if __name__ == "__main__":
    main()
