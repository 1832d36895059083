"""Run folders written by the engine's own code, without a model and without a search."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmopt.metrics import Predicted
from llmopt.predictor import Predictor, TextPredictor
from llmopt.runs import folder as run_folder
from llmopt.runs import result as run_result
from llmopt.runs.config import RunConfig
from llmopt.runs.measure import Evaluation
from llmopt.search import make_optimizer
from llmopt.search.base import Outcome, Stage, TemplateResult
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger
from llmopt.task import FewShot, Task
from llmopt.template import Template
from llmopt.vision.base import Access, BoxInfo

CLASSNAMES = ("cat", "dog", "polar_bear")


class PaperImage:
    """An image in name only."""

    def __init__(self, name: str) -> None:
        self.name = name

    def key(self) -> str:
        return self.name


def paper_run(
    root: Path,
    *,
    templates: Mapping[str, float] | None = None,
    runners_up: Sequence[str] = (),
    classnames: Sequence[str] = CLASSNAMES,
    dataset: str = "shapes-small",
    optimizer: str = "chat",
    settings: Mapping[str, Any] | None = None,
    shots: int = 1,
    seed: int = 1,
    predictor: Predictor | None = None,
    labels: Sequence[int] | None = None,
    before: Sequence[int] | None = None,
    after: Sequence[int] | None = None,
    baselines: Mapping[str, Sequence[int]] | None = None,
    events: Sequence[tuple[str, str, dict[str, Any]]] = (),
    replies: Sequence[tuple[list[list[str]], str]] = (),
    spent: Mapping[str, float] | None = None,
    start: str = "a photo of a {}.",
    fallback: bool = False,
    stages: Sequence[Stage] = (),
) -> Path:
    """A finished run.

    Args:
        root: folder of run folders.
        templates: weight by text, of the classifier found.
        runners_up: more templates in ``prompts.json``.
        predictor: instead of ``templates``.
        labels, before, after: of the test images: true, and as start and best predict them.
        baselines: as published ensembles predict them, by name.
        events: journaled steps, (kind, stream, data).
        replies: journaled calls to the chat model, (messages, reply).
        spent: ledger entries.
        stages: of the search.

    Everything else is what was asked for.
    """
    config = RunConfig(
        dataset=dataset,
        optimizer=optimizer,
        settings=dict(settings or {}),
        shots=shots,
        seed=seed,
        template=start,
        llm="builtin" if optimizer == "chat" else "",
        runs=str(root),
    ).resolved()
    folder = run_folder.create(config)
    journal = Journal(folder / run_folder.JOURNAL)
    journal.event("started", versions=run_result.versions(), weights_sha256="", split_sha256="")
    for kind, stream, data in events:
        journal.event(kind, stream, **data)
    for turn, (messages, reply) in enumerate(replies):
        shared = {"turn": turn, "sample": 0, "attempt": 0, "request": ""}
        journal.pay("llm_intent", f"{turn}", "restart-1", **shared, messages=messages)
        charged = {"llm_calls": 1, "llm_tokens_in": 100, "llm_tokens_out": 20, "llm_usd": 0.0}
        journal.pay("llm_reply", f"{turn}", "restart-1", **shared, text=reply, charged=charged)
    true = np.asarray(labels if labels is not None else np.arange(30) % len(classnames))
    journal.event("test_opened", images=len(true), predictor="")
    journal.close()
    weights = dict(templates or {"a small {}.": 1.0})
    images = tuple(PaperImage(f"train/{i}") for i in range(len(classnames)))
    few = FewShot(images, np.arange(len(classnames)))
    task = Task(
        dataset, tuple(classnames), few, few, shots, seed, Template(start), "0" * 64, "paper"
    )
    found = predictor or TextPredictor(
        tuple(map(Template, weights)), tuple(classnames), tuple(weights.values())
    )
    results = [TemplateResult(text, weight, 0.9, -0.3, 0.8) for text, weight in weights.items()]
    results += [TemplateResult(text, 0.0, 0.8, -0.4, 0.7) for text in runners_up]

    def said(top: Sequence[int] | None, usual: Sequence[int], sure: float) -> Predicted:
        given = np.asarray(usual if top is None else top)
        return Predicted(given, given == true, np.full(len(true), sure, dtype=np.float32))

    evaluation = Evaluation(
        true,
        said(before, np.zeros_like(true), 0.6),
        said(after, true, 0.9),
        len(classnames),
        others={name: said(top, (), 0.7) for name, top in (baselines or {}).items()},
        templates=dict.fromkeys(baselines or {}, 7),
    )
    ledger = Ledger()
    ledger.record(**(spent or {"text_encodings": 300, "llm_calls": len(replies)}))
    outcome = Outcome(
        found,
        fallback=fallback,
        templates=() if predictor else tuple(results),
        summary={
            "proposals": sum(len(d.get("templates", ())) for _, _, d in events),
            **({"stages": [stage.to_json() for stage in stages]} if stages else {}),
        },
    )
    result = run_result.build(
        folder=folder,
        task=task,
        info=BoxInfo("shapes-tiny", "", Access.SOFT, "0" * 64),
        optimizer=make_optimizer(optimizer),
        name=optimizer,
        llm=config.llm or None,
        outcome=outcome,
        train=(0.4, 0.9),
        val=(0.5, 0.8),
        evaluation=evaluation,
        ledger=ledger,
        evaluation_ledger=Ledger(),
        seconds={"total": 12.0, "llm": 1.0, "black_box": 9.0},
    )
    run_result.save(folder, result, outcome, evaluation, classnames)
    return folder


def reconfigure(run: Path, text: str) -> None:
    """Give a run another config, as if it had begun with that."""
    (run / run_folder.CONFIG).write_text(text)
    path = run / run_folder.JOURNAL
    rest = path.read_bytes().split(b"\n", 1)[1]
    path.unlink()
    with Journal(path) as journal:
        config = RunConfig.make(tomllib.loads(text)).plain()
        journal.event(run_folder.CREATED, "run", config=config)
    path.write_bytes(path.read_bytes() + rest)
