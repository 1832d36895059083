"""Other people's figures beside one's own, each with what was done differently.

``published.csv`` holds figures read in papers, logs and tables, with their source. A figure stands
beside a run only with the differences of protocol that are known, because most of them are larger
than the differences between methods.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from llmopt.comparison.table import Row

DATASETS: Final = {
    "imagenet": "ImageNet",
    "caltech101": "Caltech101",
    "oxford_pets": "OxfordPets",
    "stanford_cars": "StanfordCars",
    "oxford_flowers": "Flowers102",
    "food101": "Food101",
    "fgvc_aircraft": "FGVCAircraft",
    "sun397": "SUN397",
    "dtd": "DTD",
    "eurosat": "EuroSAT",
    "ucf101": "UCF101",
    "svhn": "SVHN",
    "resisc45": "RESISC45",
    "imagenetv2": "ImageNetV2",
    "imagenet_sketch": "ImageNet-Sketch",
    "imagenet_a": "ImageNet-A",
    "imagenet_r": "ImageNet-R",
}
"""Our name and theirs, of data sets with the same test images."""

# What the authors did and we do not, by the beginning of the method's name.
_PROTOCOL: Final = {
    "CraFT": "looked at the test split every generation; augmented images not counted as queries",
    "BBT-on-CLIP": "looked at the test split every generation",
    "GDA head": "strength chosen on the whole validation split; image features, not scores",
    "Tip-Adapter": "image features, not scores; strengths searched for each data set",
    "Tip-X": "image features, not scores",
    "CLIP-Adapter": "image features, not scores",
    "CALIP": "image features, not scores",
    "CoOp": "white-box: gradients through the model",
    "Linear probe": "image features, not scores",
    "Chat-LLM": "a re-run by other authors; every candidate scored on the test split",
    "Zero-shot CLIP (template ensemble": "an ensemble of hand-written templates",
    "Zero-shot CLIP (dataset-specific": "an ensemble of hand-written templates",
    "BlackVIP": "a prompt on the image, not on the text",
    "BAR": "a prompt on the image, not on the text",
    "AReS": "a local surrogate model",
}
_PLUS_SHOTS: Final = ("0", "")


@cache
def figures() -> tuple[dict[str, str], ...]:
    """All rows of ``published.csv``."""
    path = Path(__file__).with_name("published.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def beside(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Published figures on the rows' data sets at their shots, or without any, best first.

    Returns:
        ``method``, ``backbone``, ``dataset`` (ours), ``shots``, ``accuracy`` in per cent,
        ``queries``, ``source``, and ``differences`` from the rows' protocol.
    """
    found = []
    for dataset, shots, model in dict.fromkeys((r.dataset, r.shots, r.model) for r in rows):
        seeds = max(len(r.seeds) for r in rows if (r.dataset, r.shots) == (dataset, shots))
        for figure in figures():
            said = re.match(r"\d*", figure["shots"])
            if figure["dataset"] != DATASETS.get(dataset) or not figure["accuracy"]:
                continue
            if said is None or said.group() not in (str(shots), *_PLUS_SHOTS):
                continue
            found.append(
                {
                    "method": figure["method"],
                    "backbone": figure["backbone"],
                    "dataset": dataset,
                    "shots": figure["shots"],
                    "accuracy": float(figure["accuracy"]),
                    "queries": figure["queries"],
                    "source": figure["source"],
                    "differences": _differences(figure, model, seeds),
                }
            )
    return sorted(found, key=lambda f: (f["dataset"], f["backbone"], -f["accuracy"]))


def _differences(figure: dict[str, str], model: str, seeds: int) -> list[str]:
    differences = []
    if _plain(figure["backbone"]) not in _plain(model):
        differences.append(f"backbone {figure['backbone']}, not {model}")
    if figure["seeds"] and figure["seeds"] != str(seeds):
        differences.append(f"seeds: {figure['seeds']}, here {seeds}")
    for beginning, difference in _PROTOCOL.items():
        if figure["method"].startswith(beginning):
            differences.append(difference)
            break
    if figure["queries"] == "not stated":
        differences.append("queries not stated")
    if note := re.search(r"\[\*?(.+)\]|\((reproduction|example output|.* taken from .*)\)",
                         figure["source"]):  # fmt: skip
        differences.append(f"figure {(note.group(1) or note.group(2)).strip()}")
    return differences


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("quickgelu", ""))
