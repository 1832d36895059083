"""Data sets by name: ``open_dataset("caltech101", root)``.

=================== ===========================================================================
name                what it is
=================== ===========================================================================
``shapes-small`` …  the generated shapes world
``shapes-codes`` …  harder worlds of the same pictures (:mod:`llmopt.data.worlds`)
``caltech101`` …    a benchmark below the data root (:mod:`llmopt.data.benchmarks.catalog`)
``digits``          scikit-learn's digits (:mod:`llmopt.data.sources.digits`)
``folder:PATH``     one's own images, a folder per class (:mod:`llmopt.data.sources.folder`)
``csv:PATH``        one's own images, listed in a table (:mod:`llmopt.data.sources.table`)
``jsonl:PATH``      the same as JSON lines
``wds:PATH``        webdataset tars (:mod:`llmopt.data.sources.tars`)
``hub:ORG/NAME``    a data set of the Hugging Face hub (:mod:`llmopt.data.sources.hub`)
``KIND:…``          what a package outside adds (entry points ``llmopt.data_sources``)
=================== ===========================================================================

A benchmark's name may be followed by a view: ``:base``, ``:new`` or, for ImageNet-A and -R,
``:1000`` (:mod:`llmopt.data.views`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from llmopt.data.base import Dataset, ListedDataset, Which
from llmopt.data.benchmarks.catalog import CATALOG, Entry
from llmopt.data.benchmarks.handcrafted import templates_for
from llmopt.data.classnames import OWN, with_classnames
from llmopt.data.shapes import TASKS, ShapesDataset
from llmopt.data.views import HALVES, HalfDataset, among_imagenet
from llmopt.data.worlds import WORLDS, open_world
from llmopt.errors import DatasetError, nearest
from llmopt.registry import Registry
from llmopt.task import Labelled
from llmopt.template import Template

__all__ = ["Dataset", "Which", "about_dataset", "dataset_names", "open_dataset"]

SOURCES: Final[Registry[Callable[[str, str], ListedDataset]]] = Registry(
    "data source",
    "data_sources",
    {
        "folder": "llmopt.data.sources.folder:open_folder",
        "csv": "llmopt.data.sources.table:open_table",
        "jsonl": "llmopt.data.sources.table:open_table",
        "wds": "llmopt.data.sources.tars:open_tars",
        "hub": "llmopt.data.sources.hub:open_hub",
    },
    reserved=(*TASKS, *WORLDS, "digits", *CATALOG),
    error=DatasetError,
)
"""What stands before the colon: functions of the whole name and of what follows the colon."""


def dataset_names() -> list[str]:
    """Every name of the registry: the shapes tasks and worlds, the digits, the benchmarks."""
    return [*TASKS, *WORLDS, "digits", *CATALOG]


def about_dataset(name: str) -> str:
    """What the pictures of a data set of the registry are, one line; empty for others."""
    key = name.partition(":")[0]
    if key in TASKS:
        return "drawings of two simple shapes each; the label is the shape of one of them"
    if key in WORLDS:
        return WORLDS[key].about
    if key == "digits":
        return "handwritten digits, scanned"
    return CATALOG[key].about if key in CATALOG else ""


def open_dataset(name: str, root: Path, *, classnames: str = OWN) -> Dataset:
    """The data set called ``name``, listed but with no image opened.

    Args:
        name: see the module's table.
        root: the folder that holds the benchmarks.
        classnames: ``coop`` (the data set's own), ``openai``, or a file of names.

    Raises:
        DatasetError: unknown name, the data set is not complete under ``root``, or the class names
            are for other classes.
        ConfigError: it needs a library that is not installed.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in SOURCES:
        if not rest:
            raise DatasetError(f"dataset '{name}': something must follow the colon")
        return with_classnames(SOURCES.get(kind)(name, rest), classnames)
    if kind in TASKS:
        whole: Dataset = with_classnames(_shapes(kind), classnames)
    elif kind in WORLDS:
        whole = with_classnames(open_world(kind), classnames)
    elif kind == "digits":
        from llmopt.data.sources.digits import open_digits

        whole = with_classnames(open_digits(), classnames)
    elif kind in CATALOG:
        entry = CATALOG[kind]
        listed = with_classnames(open_entry(entry, root), classnames, entry.classes)
        if rest == "1000" and kind in ("imagenet_a", "imagenet_r"):
            return among_imagenet(listed)
        whole = listed
    else:
        known = [*dataset_names(), *(f"{source}:PATH" for source in SOURCES)]
        raise DatasetError(
            f"unknown dataset '{name}'{nearest(name, known)}; see 'llmopt datasets list'"
        )
    if rest in HALVES:
        return HalfDataset(whole, HALVES[rest])
    if colon:
        raise DatasetError(f"dataset '{kind}' has no view ':{rest}'; there are ':base' and ':new'")
    return whole


def find_home(entry: Entry, root: Path) -> tuple[Path, list[str]]:
    """The benchmark's folder below ``root``, and what is missing in it.

    Of several possible folders it is the first one with least missing.
    """
    homes = [root / folder for folder in entry.folders]
    missing = [entry.layout.missing(home) for home in homes]
    best = min(range(len(homes)), key=lambda i: len(missing[i]))
    return homes[best], missing[best]


def open_entry(entry: Entry, root: Path) -> ListedDataset:
    """A benchmark, from below ``root``.

    Raises:
        DatasetError: something it needs is missing; all of it is named.
    """
    home, missing = find_home(entry, root)
    if missing:
        raise DatasetError(
            f"{whats_missing(entry, root)}; run 'llmopt datasets download {entry.key}', "
            "or set --data-root"
        )
    listing = entry.layout.read(home)
    return ListedDataset(
        name=entry.key,
        keys=listing.keys,
        classnames=listing.names,
        parts=listing.parts,
        provenance=listing.provenance,
        handcrafted=templates_for(entry.key),
    )


def whats_missing(entry: Entry, root: Path) -> str:
    """What a benchmark lacks below ``root``, in words."""
    home, missing = find_home(entry, root)
    paths = " and ".join(str(home / path) for path in missing)
    if home.is_dir():
        return f"dataset '{entry.key}' is not complete under {root}; missing {paths}"
    return f"dataset '{entry.key}' not found under {root}; expected {paths}"


def _shapes(name: str) -> ListedDataset:
    world = ShapesDataset(name)
    parts: dict[Which, Labelled] = {}
    for which in ("train", "val", "test"):
        images, labels = world.split(which)
        parts[which] = Labelled(tuple(images), labels)
    return ListedDataset(
        name=name,
        keys=world.classnames,
        classnames=world.classnames,
        parts=parts,
        provenance="generated by llmopt; train, val and test are disjoint by seed",
        handcrafted=(Template(world.template),),
    )
