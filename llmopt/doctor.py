"""``llmopt doctor``: what is here, what is missing, and what would not work because of it."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import LlmoptError
from llmopt.registry import Plugin, Registry
from llmopt.runs.result import versions


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether all that depends on it works.
        found: what is there; never the value of a key.
        remedy: what to do if it is not fine.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class PluginCheck(Check):
    """What a package outside adds, as a finding."""

    plugin: Plugin


def examine(data_root: Path | None = None) -> list[Check]:
    """Look at everything a run may need. Sends nothing anywhere."""
    checks = [Check(name, True, version) for name, version in versions().items()]
    checks += [*_devices(), _model(), _cache(), *_keys(), *_extras(), _data(data_root)]
    return [*checks, *(_plugin(p) for registry in registries() for p in registry.plugins())]


def registries() -> tuple[Registry[Any], ...]:
    """Every kind of thing that packages outside can add to."""
    from llmopt.data.registry import SOURCES
    from llmopt.export import FORMATS
    from llmopt.heads import HEADS
    from llmopt.language.providers import PROVIDERS
    from llmopt.predictor import PREDICTORS
    from llmopt.search import OPTIMIZERS
    from llmopt.track.services import TRACKERS
    from llmopt.vision.boxes import BLACK_BOXES

    return OPTIMIZERS, HEADS, PREDICTORS, SOURCES, BLACK_BOXES, PROVIDERS, FORMATS, TRACKERS


def _devices() -> list[Check]:
    """Each device: the one that ``--device auto`` takes comes first and is named ``device``."""
    import torch

    from llmopt._torchvision import ensure_operators
    from llmopt.vision import device
    from llmopt.vision.decoders import why_no_nvjpeg

    ensure_operators()
    checks = []
    for number, one in enumerate(device.available()):
        can = device.abilities(one)
        told = [device.name(one)]
        if one.type == "cpu":
            told += [f"{torch.get_num_threads()} threads"]
        if "memory" in can:
            told += [f"{can['free'] / 2**30:.1f} of {can['memory'] / 2**30:.1f} GiB free"]
        rates = [f"{kind} {rate / 1e12:.3g}" for kind, rate in can["rates"].items()]
        told += [f"matrix products, TFLOP/s: {', '.join(rates)}"]
        if one.type == "cuda":
            told += [f"decoder nvjpeg: {why_no_nvjpeg(one) or 'ready'}"]
        checks.append(Check(f"device {one}" if number else "device", True, "; ".join(told)))
    return checks


def _model() -> Check:
    from llmopt.vision.openclip import load_model

    try:
        load_model("shapes-tiny", "")
    except LlmoptError as error:
        return Check("embedded model", False, str(error), "install llmopt again")
    return Check("embedded model", True, "shapes-tiny loads")


def _cache() -> Check:
    from llmopt.spend.files import default_cache_dir
    from llmopt.vision.feature_cache import SIZE_VARIABLE, most_bytes

    folder = default_cache_dir()
    try:
        most = most_bytes()
    except LlmoptError as error:
        return Check("feature cache", False, str(error), f"set {SIZE_VARIABLE} to a size")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(
            "feature cache",
            False,
            f"{folder} cannot be written ({error.strerror}): images are encoded anew in every run",
            "set LLMOPT_CACHE to a folder you can write",
        )
    size = sum(f.stat().st_size for f in (folder / "features").rglob("*.safetensors"))
    share = f"{size / 2**20:.0f} of at most {most / 2**20:.0f} MiB"
    return Check("feature cache", True, f"{folder}, {share}")


def _keys() -> list[Check]:
    known = (
        "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "HF_TOKEN",
        "CO_API_KEY", "VOYAGE_API_KEY", "ROBOFLOW_API_KEY",
    )  # fmt: skip
    present = [name for name in known if os.environ.get(name)]
    return [
        Check(
            "keys",
            True,
            ", ".join(f"{name} is set" for name in present) or "none is set",
            "" if present else "without one, --llm builtin or --llm-base-url works",
        )
    ]


def _extras() -> list[Check]:
    wanted = {
        "langchain": ("langchain", "--llm with providers other than openai"),
        "hub": ("datasets", "--dataset hub:ORG/NAME"),
        "transformers": ("transformers", "--model of SigLIP and others that read text with it"),
        "sklearn": ("sklearn", "--dataset digits"),
    }
    checks = []
    for extra, (module, use) in wanted.items():
        here = importlib.util.find_spec(module) is not None
        found = "installed" if here else f"not installed: no {use}"
        remedy = "" if here else f"pip install 'llmopt[{extra}]'"
        checks.append(Check(f"extra {extra}", True, found, remedy))
    return checks


def _data(data_root: Path | None) -> Check:
    root = data_root or Path(os.environ.get("LLMOPT_DATA") or "data")
    if not root.is_dir():
        return Check(
            "data",
            True,
            f"no folder {root}: shapes tasks work, benchmark data sets do not",
            "set LLMOPT_DATA or use --data-root",
        )
    folders = sorted(p.name for p in root.iterdir() if p.is_dir())
    return Check("data", True, f"{root}: {', '.join(folders) or 'empty'}")


def _plugin(plugin: Plugin) -> PluginCheck:
    package = plugin.package.partition(" ")[0]
    remedy = f"update {package} or uninstall it; everything else works" if plugin.problem else ""
    return PluginCheck(
        name=f"plug-in: {plugin.kind} {plugin.name}",
        ok=not plugin.problem,
        found=plugin.note,
        remedy=remedy,
        plugin=plugin,
    )
