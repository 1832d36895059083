"""Finished runs as a comparison sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmopt.errors import RunFolderError
from llmopt.metrics import Predicted
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.runs.measure import predictions
from llmopt.runs.whole import without_defaults
from llmopt.spend.files import Damaged, read_arrays
from llmopt.stats import BoolArray

IntVector = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Record:
    """One run with what it predicted on its test images.

    Attributes:
        folder: of the run.
        arm: what it is called in the comparison.
        config, result: as they are in the folder.
        labels: (N,) true classes.
        before, after: what start and best say of the images.
        baselines: what published ensembles say of them, by name, where they were measured.
        earlier: the run whose best template this one started from, if it is still there. What it
            spent was spent for this one too, and its start is this one's.
    """

    folder: Path
    arm: str
    config: RunConfig
    result: dict[str, Any]
    labels: IntVector
    before: Predicted
    after: Predicted
    baselines: Mapping[str, Predicted] = field(default_factory=dict)
    earlier: Record | None = None

    @property
    def group(self) -> tuple[str, int, str]:
        """Data set, shots and model: what must be equal for a comparison to be fair."""
        model = f"{self.result['model']['name']} {self.result['model']['pretrained'] or ''}"
        return self.config.dataset, self.config.shots, model.strip()

    @property
    def seed(self) -> int:
        """Of the few-shot sample."""
        return self.config.seed

    @property
    def hits(self) -> BoolArray:
        """(N,) which images the found predictor gets right."""
        return np.asarray(self.after.top == self.labels)

    @property
    def start(self) -> Predicted:
        """What the very first start says of the images."""
        return self.before if self.earlier is None else self.earlier.start

    @property
    def start_hits(self) -> BoolArray:
        """(N,) which images the very first start gets right."""
        return np.asarray(self.start.top == self.labels)

    @property
    def ledger(self) -> dict[str, float | None]:
        """What was spent, earlier runs included; None where a price is not known."""
        own: dict[str, float | None] = dict(self.result["ledger"])
        if self.earlier is None:
            return own
        total: dict[str, float | None] = {}
        for name, spent in self.earlier.ledger.items():
            more = own.get(name, 0)
            total[name] = None if spent is None or more is None else spent + more
        return total

    @property
    def seconds(self) -> float:
        """What it took, earlier runs included."""
        earlier = 0.0 if self.earlier is None else self.earlier.seconds
        return earlier + float(self.result["seconds"]["total"])


def read_record(folder: Path, arm: str | None = None) -> Record:
    """A finished run, called ``arm``; by default as a comparison called it.

    Raises:
        RunFolderError: it is not finished, was not measured on test images, or is damaged.
    """
    config, result = run_folder.read_run(folder)
    path = folder / run_folder.PREDICTIONS
    if not path.is_file():
        why, way_out = "it was interrupted", f"go on with 'llmopt resume {folder}'"
        if result["status"] == "complete":
            why, way_out = "its data set has none", "give it some and run again"
        raise RunFolderError(f"run {folder} was not measured on test images ({why}); {way_out}")
    try:
        labels, found = predictions(read_arrays(path).arrays, result["task"]["classes"])
    except (Damaged, KeyError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); delete {run_folder.RESULT} there and run "
            f"'llmopt resume {folder}', which measures again and pays for no reply twice"
        ) from error
    sides = found.pop("baseline"), found.pop("best")
    record = Record(
        folder,
        arm or run_folder.called(folder) or arm_name(config),
        config,
        result,
        labels,
        *sides,
        found,
    )
    return dataclasses.replace(record, earlier=_earlier(record))


def read_records(folders: Sequence[Path]) -> tuple[list[Record], dict[Path, RunFolderError]]:
    """Finished runs under names that tell them apart, and why the other folders are none.

    What two runs of one arm on one sample were asked differently, such as a cap or the language
    model, becomes part of the arm's names.
    """
    records: list[Record] = []
    left_out: dict[Path, RunFolderError] = {}
    for folder in folders:
        try:
            records.append(read_record(folder))
        except RunFolderError as error:
            left_out[folder] = error
    first: dict[Any, dict[str, str]] = {}
    varies: dict[Any, set[str]] = {}
    for record in records:
        asked = _asked(record)
        other = first.setdefault((record.group, record.arm, record.seed), asked)
        differing = {name for name, value in asked.items() if other[name] != value}
        varies.setdefault((record.group, record.arm), set()).update(differing)
    named = [
        dataclasses.replace(
            record,
            arm=" ".join(
                [record.arm]
                + [
                    f"{name}={value}" if value else f"no {name}"
                    for name, value in _asked(record).items()
                    if name in varies[record.group, record.arm]
                ]
            ),
        )
        for record in records
    ]
    return named, left_out


def _asked(record: Record) -> dict[str, str]:
    """What makes a difference beside an arm's name."""
    config = without_defaults(run_folder.as_asked(record.folder, record.config))
    caps = [f.name for f in dataclasses.fields(config) if f.name.startswith("max_")]
    found = {name: getattr(config, name) for name in ("llm", *caps)}
    found["template"] = "" if config.init_from else config.template  # or as another run found it
    for name in ("llm_settings", "blackbox_settings"):
        found[name] = " ".join(f"{k}={v}" for k, v in getattr(config, name).items())
    return {name: "" if value is None else str(value) for name, value in found.items()}


def _earlier(record: Record) -> Record | None:
    if not record.config.init_from or _lost_start(record):
        return None
    earlier = read_record(Path(record.config.init_from))
    return earlier if np.array_equal(earlier.labels, record.labels) else None


def _lost_start(record: Record) -> bool:
    """Whether the run it started from is gone."""
    folder = record.config.init_from
    return bool(folder) and not (Path(folder) / run_folder.RESULT).is_file()


def arm_name(config: RunConfig) -> str:
    """What a run is called where nobody named it: its optimizer and what differs from default."""
    config = without_defaults(config)
    parts = [config.optimizer]
    parts += [f"{key}={value}" for key, value in sorted(config.settings.items())]
    if config.head:
        parts.append(f"head={config.head}")
    if config.head_views:
        parts.append(f"views={config.head_views}")
    if config.init_from:
        parts.append("after text")
    return " ".join(parts)


def fair(records: list[Record]) -> tuple[list[Record], list[str]]:
    """Records that can be compared, one a cell, and notes on what is left out.

    Of two runs of one arm with one seed, the later is taken; a run whose test images differ from
    those of its group's first is left out. So is what was spent in an earlier run that is gone or
    has other test images.
    """
    cells: dict[Any, Record] = {}
    notes: list[str] = []
    for record in records:
        key = (record.group, record.arm, record.seed)
        if key in cells:
            notes.append(f"{cells[key].folder} is left out: {record.folder} repeats it")
        cells[key] = record
    firsts: dict[Any, Record] = {}
    kept: list[Record] = []
    for record in cells.values():
        first = firsts.setdefault(record.group, record)
        if np.array_equal(first.labels, record.labels):
            kept.append(record)
        else:
            notes.append(f"{record.folder} is left out: its test images differ from {first.folder}")
    for begun in kept:
        one: Record | None = begun
        while one is not None:
            if one.config.init_from and one.earlier is None:
                why = "is not there any more" if _lost_start(one) else "has other test images"
                notes.append(
                    f"{one.folder} started from {one.config.init_from}, which {why}: what that "
                    "spent is not counted here"
                )
            one = one.earlier
    return kept, list(dict.fromkeys(notes))
