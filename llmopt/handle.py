"""A run as an object: what it found, what it spent, and what can be made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt._optional import require
from llmopt.errors import LlmoptError
from llmopt.figures import interval, percent, points
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import Given
from llmopt.runs.load import load_predictor, read_found
from llmopt.search.base import TemplateResult
from llmopt.spend.events import Watch

if TYPE_CHECKING:
    from llmopt.classifier import PromptClassifier
    from llmopt.predictor import Predictor
    from llmopt.vision.base import BlackBox


@dataclass(frozen=True)
class Gain:
    """What was found against the start, on the same test images.

    Attributes:
        test_accuracy: difference of accuracies, a fraction.
        ci95: its 95 % interval.
        p_value: paired, two-sided.
    """

    test_accuracy: float
    ci95: tuple[float, float]
    p_value: float


class Run:
    """A finished or interrupted run.

    Args:
        folder: of the run.
        box: the black box it ran behind, where that has no name.
    """

    def __init__(self, folder: str | Path, box: BlackBox | None = None) -> None:
        self.folder = Path(folder)
        self._box = box

    def __fspath__(self) -> str:
        return str(self.folder)

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of ``result.json``.

        Raises:
            RunFolderError: there is none yet, or it is damaged.
        """
        return run_folder.read_result(self.folder)

    @property
    def status(self) -> str:
        """``complete`` or ``interrupted``."""
        return str(self.result["status"])

    @property
    def best(self) -> str:
        """What was found: the best template, or a soft prompt in a few words."""
        found = self.result["best"]["templates"]
        return str(found[0]["text"]) if found else self.predictor.describe()

    @cached_property
    def templates(self) -> tuple[TemplateResult, ...]:
        """Templates worth knowing with their scores, best first; those in use have a weight."""
        return tuple(TemplateResult(**one) for one in read_found(self.folder)["templates"])

    @property
    def test_accuracy(self) -> float | None:
        """Of what was found, a fraction; None where there were no test images."""
        accuracy: float | None = self.result["best"]["test_accuracy"]
        return accuracy

    @property
    def gain(self) -> Gain | None:
        """Over the start on the test images; None where there were none."""
        told = self.result["gain"]
        if told["test_accuracy"] is None:
            return None
        low, high = told["ci95"]
        return Gain(told["test_accuracy"], (low, high), told["p_value"])

    @property
    def ledger(self) -> Mapping[str, float | None]:
        """What the search spent, by currency; None where a price is not known."""
        ledger: dict[str, float | None] = self.result["ledger"]
        return ledger

    @cached_property
    def predictor(self) -> Predictor:
        """Prompts and head: images in, class scores out."""
        return load_predictor(self.folder)

    def classifier(self, **options: Any) -> PromptClassifier:
        """What was found, with its model, as a classifier of images.

        Args:
            options: ``device``, ``precision``, ``decoder``, ``batch_size``.
        """
        from llmopt.classifier import PromptClassifier, load

        if self._box is not None:
            names = read_found(self.folder)["classnames"]
            return PromptClassifier.of(self.predictor, self._box, names)
        return load(self.folder, **options)

    def evaluate(self, **changes: Any) -> dict[str, Any]:
        """Measure it again on test images; ``changes`` as :func:`llmopt.evaluate` takes them."""
        from llmopt.runs.remeasure import remeasure

        return remeasure(self.folder, changes, Watch(), Given(box=self._box))

    def export(
        self,
        format: str = "txt",
        out: str | Path | None = None,
        *,
        top: int | None = None,
        key: str | None = None,
    ) -> str | list[Path]:
        """Its prompts in the format of another tool.

        Args:
            format: as ``llmopt export --format`` takes it.
            out: a file, or a folder for several.
            top: this many templates: runners-up are added.
            key: name of the data set in the files, where a format has one.

        Returns:
            The paths written; without ``out`` the text.

        Raises:
            ConfigError: an unknown format, or one that is not a single text and has no ``out``.
        """
        from llmopt.export.formats import export, save

        exported = export(self.folder, format, top, key)
        return exported.single_text(format) if out is None else save(exported, Path(out))

    def report(self, out: str | Path | None = None) -> Path:
        """One self-contained HTML page; by default ``report.html`` in the run folder."""
        from llmopt.report.page import build, save

        path = Path(out) if out is not None else self.folder / "report.html"
        save(build([self.folder]), path)
        return path

    def to_frame(self) -> Any:
        """The templates as a pandas table, best first.

        Raises:
            ConfigError: pandas is not installed.
        """
        pandas = require("pandas", "pandas", "to_frame()")
        return pandas.DataFrame([vars(one) for one in self.templates])

    def __repr__(self) -> str:
        try:
            said = f", {self.status}, {percent(self.test_accuracy)} on test"
        except LlmoptError:
            said = ""
        return f"Run({str(self.folder)!r}{said})"

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        start, best, gain = (self.result[part] for part in ("baseline", "best", "gain"))
        rows = [
            (name, row["train_accuracy"], row["val_accuracy"], row["test_accuracy"], shown)
            for name, row, shown in (("start", start, start["template"]), ("best", best, self.best))
        ]
        body = "".join(
            f"<tr><th>{name}</th>"
            + "".join(f"<td>{percent(accuracy)}</td>" for accuracy in accuracies)
            + f"<td>{escape(text)}</td></tr>"
            for name, *accuracies, text in rows
        )
        said = f"{points(gain['test_accuracy'])} points {interval(gain['ci95'], signed=True)}"
        return (
            "<table><tr><th></th><th>train</th><th>val</th><th>test</th><th>prompt</th></tr>"
            f"{body}</table><p>gain on test: {escape(said)} · {escape(str(self.folder))}</p>"
        )
