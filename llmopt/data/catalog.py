"""The benchmark data sets: one entry each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmopt.data.layouts import Layout, SplitFile


@dataclass(frozen=True)
class Entry:
    """What is known of a benchmark data set.

    Attributes:
        key: its name on the command line.
        folders: where it may lie below the data root; the first is CoOp's place.
        layout: how to read it.
    """

    key: str
    folders: tuple[str, ...]
    layout: Layout


CATALOG: Final[dict[str, Entry]] = {
    entry.key: entry
    for entry in (
        Entry(
            key="caltech101",
            folders=("caltech-101", "caltech101"),
            layout=SplitFile("split_zhou_Caltech101.json", images="101_ObjectCategories"),
        ),
    )
}
