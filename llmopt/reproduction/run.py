"""Run a table's grid, or what of it has not been run yet, and set its figures beside ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt.comparison.execute import Follow, execute, standing
from llmopt.errors import DatasetError, LlmoptError
from llmopt.reproduction.choice import Choice, Item, missing_data
from llmopt.reproduction.needs import cost_of
from llmopt.reproduction.outcome import Place, Reading, Row, Verdict, places, rows
from llmopt.reproduction.spec import Backbone
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import Given, choose_model
from llmopt.runs.remeasure import measured_before, remeasure
from llmopt.search import OPTIMIZERS
from llmopt.spend.events import Watch
from llmopt.sweep.engine import Engine
from llmopt.sweep.status import Status
from llmopt.sweep.work import Amounts
from llmopt.vision.base import BlackBox

SCHEMA = 1


@dataclass(frozen=True)
class Reproduction:
    """A table, or a part of it, as far as it has come.

    Attributes:
        choice: what was asked for.
        rows: figures of ours beside published ones.
        missing: data sets that are not here, and why.
        finished: runs that are complete.
        failed: why runs, or where else they are scored, failed; by what they are.
        status: where the runs stand that can be made here.
        unscored: of what failed, where else finished runs are scored.
        interrupted: the same call goes on from here.
    """

    choice: Choice
    rows: tuple[Row, ...]
    missing: dict[str, str]
    finished: int
    failed: dict[str, LlmoptError]
    status: Status
    unscored: dict[str, LlmoptError]
    interrupted: bool = False

    @property
    def total(self) -> int:
        """Runs that were asked for."""
        return self.choice.runs

    def to_json(self) -> dict[str, Any]:
        """What ``llmopt reproduce run --json`` prints. Accuracies are in per cent."""
        table = self.choice.table
        return {
            "schema": SCHEMA,
            "table": table.name,
            "paper": table.paper,
            "runs": {"finished": self.finished, "total": self.total},
            "interrupted": self.interrupted,
            "status": self.status.to_json(),
            "rows": [row.to_json() for row in self.rows],
            "missing": self.missing,
            "failed": {title: str(error) for title, error in self.failed.items()},
            "tolerance": table.tolerance,
            "tolerance_why": table.tolerance_why,
            "known_reasons_to_differ": list(table.differs)
            + [f"{arm.name}: {why}" for arm in table.arms for why in arm.differs],
        }


def reproduce(
    choice: Choice,
    engine: Engine,
    watch: Watch,
    totals: Amounts | None = None,
    *,
    run: bool = True,
    follow: Follow | None = None,
) -> Reproduction:
    """Finish what of a table can be run here.

    Args:
        choice: the table, or a part of it.
        engine: where the runs are made.
        watch: told how it goes.
        totals: caps over all of them, by name.
        run: False only looks at what is there.
        follow: then, told where it stands until it says that this is enough.

    Raises:
        UserError: nothing of it can be run; before anything is, if an option is wrong.
    """
    missing = missing_data(choice.datasets, choice.root)
    items = {
        id(item.cell): item for item in choice.items if item.cell.config.dataset not in missing
    }
    if run and not items:
        searched = dict.fromkeys(item.cell.config.dataset for item in choice.items)
        raise DatasetError("; ".join(missing[name] for name in searched))
    cells = [item.cell for item in items.values()]
    root = Path(choice.base.runs)
    if run:
        _announce(choice, missing, len(cells), watch)
    if run:
        done, status = execute(cells, root, engine, watch, totals)
    else:
        done, status = standing(cells, root, totals, follow)
    interrupted = run and any(one.interrupted for one in done)
    scorer = _Scorer(choice, missing, watch)
    try:
        for one in done:
            if one.folder is not None and not one.interrupted:
                scorer.read(items[id(one.cell)], one.folder, run=run and not interrupted)
    except KeyboardInterrupt:
        interrupted = True
    failed = {one.title: one.error for one in status.among("failed") if one.error}
    lacking = {**_lacking(choice, missing, failed), **scorer.lacking}
    return Reproduction(
        choice,
        tuple(rows(choice, scorer.readings, lacking)),
        missing,
        finished=sum(one.folder is not None and not one.interrupted for one in done),
        failed=failed | scorer.failed,
        status=status,
        unscored=scorer.failed,
        interrupted=interrupted,
    )


def _announce(choice: Choice, missing: dict[str, str], here: int, watch: Watch) -> None:
    """What will be run, and what it can cost, before any of it is."""
    watch.note(f"{choice.table.name}: {here} of {choice.runs} runs can be made here")
    for why in missing.values():
        watch.warn(f"missing: {why}")
    if any(OPTIMIZERS.get(item.contender.optimizer).needs_chat for item in choice.items):
        cost = cost_of(choice)
        if cost.llm:
            usd = "an unknown amount" if cost.usd is None else f"at most ${cost.usd:,.2f}"
            watch.note(f"{cost.llm_runs} runs ask {cost.llm}, which can cost {usd} in all")


def _lacking(
    choice: Choice, missing: Mapping[str, str], failed: Mapping[str, LlmoptError]
) -> dict[Place, tuple[Verdict, str]]:
    """Why there is nothing where a run could not be made."""
    found: dict[Place, tuple[Verdict, str]] = {}
    for item in choice.items:
        if why := missing.get(item.cell.config.dataset):
            found |= dict.fromkeys(places(item, choice), ("missing", why))
        elif error := failed.get(item.cell.title):
            found |= dict.fromkeys(places(item, choice), ("failed", str(error)))
    return found


class _Scorer:
    """Reads finished runs, and scores them where else the table does, each model opened once."""

    def __init__(self, choice: Choice, missing: dict[str, str], watch: Watch) -> None:
        self._choice, self._missing, self._watch = choice, missing, watch
        self._boxes: dict[tuple[str, str], BlackBox] = {}
        self._models = {one.name: one for one in choice.models}
        self.readings: dict[Place, list[Reading]] = {}
        self.lacking: dict[Place, tuple[Verdict, str]] = {}
        self.failed: dict[str, LlmoptError] = {}

    def read(self, item: Item, folder: Path, *, run: bool) -> None:
        """All figures of a run.

        Args:
            item: its place in the table.
            folder: of the run.
            run: score it where it has not been scored yet.
        """
        result = run_folder.read_result(folder)
        common = {
            "seed": item.cell.config.seed,
            "capped": result["stop_reason"].startswith("budget: "),
            "llm": result["optimizer"]["llm"] or "",
            "folder": folder,
        }
        for place, accuracy, images in self._figures(item, folder, result, run):
            reading = Reading(accuracy=accuracy, images=images, **common)
            self.readings.setdefault(place, []).append(reading)

    def _figures(
        self, item: Item, folder: Path, result: dict[str, Any], run: bool
    ) -> Iterator[tuple[Place, float, int]]:
        own, *others = places(item, self._choice)
        yield own, result["best"]["test_accuracy"], result["task"]["test_images"]
        for place in others:
            if why := self._missing.get(place.on):
                self.lacking[place] = "missing", why
                continue
            changes: dict[str, Any] = {"dataset": place.on} if place.on else {}
            model = self._models.get(place.behind, item.backbone)
            if place.behind:
                changes |= {"model": model.model, "pretrained": model.pretrained}
            changes |= {"data_root": str(self._choice.root)}
            found = measured_before(folder, changes)
            if found is None and run:
                title = f"{item.cell.title}: on {place.scored_on} behind {model.name}"
                self._watch.stage(title)
                try:
                    found = remeasure(folder, changes, self._watch, Given(box=self._open(model)))
                except LlmoptError as error:
                    self.lacking[place] = "failed", str(error)
                    self.failed[title] = error
            if found is not None:
                yield place, found["best_accuracy"], found["test_images"]

    def _open(self, model: Backbone) -> BlackBox:
        name = model.model, model.pretrained
        if name not in self._boxes:
            config = dataclasses.replace(
                self._choice.base, model=model.model, pretrained=model.pretrained
            )
            self._boxes[name] = choose_model(config).open(self._watch)
        return self._boxes[name]
