"""What a data set is to the rest of the tool, and the plain implementation most sources share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal, Protocol, get_args

import numpy as np

from llmopt.task import Labelled, checked_names
from llmopt.template import Template

Which = Literal["train", "val", "test"]

SPLITS: Final[tuple[Which, ...]] = get_args(Which)

NOTHING: Final = Labelled((), np.empty(0, dtype=np.int64))
"""A split without images."""


class Dataset(Protocol):
    """Labelled images in three splits. Any of them may be empty."""

    @property
    def name(self) -> str:
        """Registry key, or the text it was opened by, such as ``folder:PATH``."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """K different words that tell the classes apart whatever they are called."""
        ...

    @property
    def classnames(self) -> tuple[str, ...]:
        """K names, in label order; two classes may share one (ImageNet's missile)."""
        ...

    @property
    def handcrafted(self) -> tuple[Template, ...]:
        """The templates people wrote for it: CoOp's, where it has some."""
        ...

    @property
    def provenance(self) -> str:
        """Where the split comes from: ``CoOp split``, ``official`` or ``ours``, with details."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about its source but may be meant, a sentence each."""
        ...

    @property
    def skipped(self) -> Mapping[str, int]:
        """How many things its source holds that are not used, by reason."""
        ...

    @property
    def split_sha256(self) -> str:
        """Identity of the split: which image, with which label, in which part."""
        ...

    def split(self, which: Which) -> Labelled:
        """The images of one part, in the order of the split's own list. Opens no image."""
        ...


@dataclass(frozen=True)
class ListedDataset:
    """A data set whose images have been listed.

    Attributes:
        name: registry key, or the text it was opened by.
        keys: K different words that tell the classes apart whatever they are called: folder names,
            WordNet ids, the names in CoOp's split files.
        classnames: K names, in label order.
        parts: the splits; an absent one is empty.
        provenance: where the split comes from, one line.
        handcrafted: CoOp's templates, or the plain one.
        notes: what is unusual about its source but may be meant.
        skipped: how many things its source holds that are not used, by reason.

    Raises:
        DatasetError: a class name cannot stand in a prompt.
    """

    name: str
    keys: tuple[str, ...]
    classnames: tuple[str, ...]
    parts: Mapping[Which, Labelled]
    provenance: str
    handcrafted: tuple[Template, ...]
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_names(self.classnames, f"dataset {self.name!r}")

    def split(self, which: Which) -> Labelled:
        """The images of one part."""
        return self.parts.get(which, NOTHING)

    @cached_property
    def split_sha256(self) -> str:
        """SHA-256 of ``part<TAB>image name<TAB>label`` lines, in the order of the lists."""
        sha = hashlib.sha256()
        for which in SPLITS:
            for image, label in self.split(which):
                line = f"{which}\t{image.name}\t{label}\n"
                sha.update(line.encode(errors="surrogateescape"))  # any bytes can be a file name
        return sha.hexdigest()

    def renamed(self, classnames: tuple[str, ...], note: str = "") -> ListedDataset:
        """The same images under other class names, given in label order."""
        provenance = f"{self.provenance}; {note}" if note else self.provenance
        return replace(self, classnames=classnames, provenance=provenance)
