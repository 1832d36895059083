"""The front door: what the command line does, for Python.

Every function takes the options of the command of its name, as keywords, and objects wherever an
option takes a name::

    found = llmopt.run(dataset="caltech101", shots=1, optimizer="chat", llm="openai:gpt-5.1")
    found = llmopt.run(task=Task.from_images(images, labels, names), model=my_box)

See :class:`~llmopt.runs.config.RunConfig` for the options.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt.errors import ConfigError
from llmopt.handle import Run
from llmopt.runs import engine
from llmopt.runs import folder as run_folder
from llmopt.runs.asked import asked, config_of, texts
from llmopt.runs.compose import Given, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.plan import Plan, make_plan
from llmopt.runs.speed import measured
from llmopt.runs.trust import refuse_untrusted
from llmopt.search.base import Optimizer
from llmopt.spend.events import Event, Watch, Watches
from llmopt.spend.ledger import Caps
from llmopt.task import Task
from llmopt.vision.base import BlackBox

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from llmopt.comparison.execute import Follow
    from llmopt.comparison.table import Comparison
    from llmopt.reproduction.run import Reproduction
    from llmopt.sweep.engine import Engine
    from llmopt.sweep.engines import Jobs

Callback = Watch | Callable[[Event], None]


def run(
    config: RunConfig | None = None,
    *,
    task: Task | None = None,
    optimizer: str | Optimizer[Any] | None = None,
    model: str | BlackBox | None = None,
    llm: str | BaseChatModel | None = None,
    caps: Caps | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    track: str | None = None,
    **options: Any,
) -> Run:
    """Search for better prompts on one task, then measure them once on its test images.

    Args:
        config: options already put together; what is given beside it wins.
        task: images and class names, in place of ``dataset``; ``shots`` takes a sample of it.
        optimizer: its name, or one with its settings, such as ``Craft(budget=500)``.
        model: an open_clip name, or any black box.
        llm: ``provider:model``, or any LangChain chat model.
        caps: what may not be passed; or ``max_usd`` and the others as options.
        callbacks: functions that are told each event (see :mod:`llmopt.spend.events`), or watches.
        progress: show where the run stands; None is on a terminal and in a notebook.
        track: ``mlflow``, ``wandb`` or ``tensorboard`` is told as well.
        options: the other fields of :class:`~llmopt.runs.config.RunConfig`, such as ``dataset``,
            ``shots``, ``seed``, ``settings``, ``max_queries``, ``runs``.

    Raises:
        LlmoptError: :class:`~llmopt.errors.UserError` for what the caller can correct,
            :class:`~llmopt.errors.ServiceError` where the run can be resumed.
    """
    given, named = asked(config, task, optimizer, model, llm, caps, options)
    setup = compose(named, given)
    with _watching(callbacks, progress, track, setup.config) as watch:
        result = engine.start(setup, watch)
        watch.finished(result)
    return Run(result["run"], given.box)


def resume(
    run: str | Path | Run,
    *,
    task: Task | None = None,
    optimizer: Optimizer[Any] | None = None,
    model: BlackBox | None = None,
    llm: str | BaseChatModel | None = None,
    skip_unreadable: bool = False,
    trust_config: bool = False,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    track: str | None = None,
    **changes: Any,
) -> Run:
    """Go on where a run stopped, paying for nothing twice; a finished one is given as it is.

    Args:
        run: the run folder.
        task, optimizer, model, llm: the objects the run was started with, where it was; ``llm`` may
            be another model too.
        skip_unreadable: leave damaged test images out; the few shots stay what they were.
        trust_config: send secrets of this machine where the run folder says; else it may name no
            environment variable but a provider's own, and no other address for that.
        callbacks, progress, track: as in :func:`run`.
        changes: other values of ``llm_base_url`` and of the caps, which the run keeps.

    Raises:
        RunFolderError: there is no such run, or it is damaged.
        ConfigError: an object that the run was started with is missing; all that are are named.
    """
    folder = Path(run)
    config = run_folder.read_run_config(folder)
    if isinstance(llm, str):
        changes["llm"], llm = llm, None
    config = run_folder.changed(config, changes)
    given = Given(task, optimizer, model, llm)
    with _watching(callbacks, progress, track, config) as watch:
        if run_folder.is_complete(folder):
            watch.note(f"{folder} is complete; nothing to do")
            for name in run_folder.lost(folder):
                watch.note(
                    f"{name} is missing there; {run_folder.written_again(folder)}, but measures "
                    "once more where a model's answers are not kept"
                )
            if changes:
                watch.note(
                    "its test images were measured, so other caps or another model need a run of "
                    f"their own: llmopt run --config {folder / run_folder.CONFIG} …"
                )
            return Run(folder, model)
        if not trust_config:
            refuse_untrusted(config, folder / run_folder.CONFIG)
        setup = compose(config, given)
        if skip_unreadable:
            setup = dataclasses.replace(setup, skip_unreadable=True)
        if changes:
            run_folder.keep_changes(folder, setup.config)
        watch.finished(engine.resume(folder, setup, watch))
    return Run(folder, model)


def plan(
    config: RunConfig | None = None,
    *,
    task: Task | None = None,
    optimizer: str | Optimizer[Any] | None = None,
    model: str | BlackBox | None = None,
    llm: str | BaseChatModel | None = None,
    caps: Caps | None = None,
    **options: Any,
) -> Plan:
    """The most :func:`run` can spend with the same arguments. Opens no model and spends nothing.

    Raises:
        UserError: as the run itself would.
    """
    given, named = asked(config, task, optimizer, model, llm, caps, options)
    setup = compose(named, given)
    found = make_plan(setup).timed(measured(setup.config))
    try:
        if setup.llm is not None:
            setup.llm.check()
    except ConfigError as error:
        told = f"warning: 'llmopt run' would be refused: {error}"
        found = dataclasses.replace(found, notes=(*found.notes, told))
    return found


def compare(
    optimizers: Sequence[str] = ("zeroshot", "chat"),
    *,
    datasets: Sequence[str] = (),
    shots: Sequence[int] = (1,),
    seeds: Sequence[int] = (1, 2, 3),
    equal: str | None = None,
    published: bool = False,
    engine: str | Engine = "local",
    jobs: Jobs = 1,
    max_total: Mapping[str, float | str] | None = None,
    status: bool = False,
    follow: Follow | None = None,
    metric: str = "top1",
    config: RunConfig | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    **options: Any,
) -> Comparison:
    """Run optimizers × data sets × shots × seeds, or reuse equal runs, as one table.

    Args:
        optimizers: each ``[NAME=]OPTIMIZER[,KEY=VALUE…]``.
        datasets: names; by default that of ``options``.
        shots, seeds: sides of the grid.
        equal: hold all arms to one cap of this currency.
        published: set published figures beside.
        engine: ``local``, ``ray`` or ``slurm``, or an engine, such as ``SlurmEngine(jobs=8)``.
        jobs: runs at a time; ``auto`` as many as share this machine well.
        max_total: caps over the whole grid, such as ``{"usd": 5}``; names as in ``max_usd``.
        status: show what is there, and run nothing; ``status`` of the result tells of each cell.
        follow: with ``status``, told that again and again until it returns true.
        metric: that they are compared in: ``top1``, ``top5``, ``mean_per_class_recall``,
            ``macro_f1`` or ``ece``.
        config, options: what all runs share, as in :func:`run`.
        callbacks, progress: as in :func:`run`; told of every run that is held in this process.

    Raises:
        LlmoptError: nothing could be run. What failed beside what did not is in ``failed``.
    """
    from llmopt.comparison.run import compare_runs
    from llmopt.sweep.engines import Workers, choose_engine
    from llmopt.sweep.purse import total_caps

    base = config_of(config, options)
    with _watching(callbacks, progress) as watch:
        sides = optimizers, datasets or [base.dataset], shots, seeds
        workers, totals = choose_engine(engine, Workers(jobs)), total_caps(max_total or {})
        return compare_runs(
            base, *sides, equal, published, workers, watch, metric, totals,
            run=not status, follow=follow,
        )  # fmt: skip


def reproduce(
    table: str,
    *,
    only: Mapping[str, Any] | None = None,
    status: bool = False,
    engine: str | Engine = "local",
    jobs: Jobs = 1,
    max_total: Mapping[str, float | str] | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    **options: Any,
) -> Reproduction:
    """Run what of a paper's table has not been run, and set our figures beside the published ones.

    Args:
        table: its name, as ``llmopt reproduce list`` shows them.
        only: a part of it: a value, or several, for ``dataset``, ``shots``, ``seed``, ``model`` or
            ``arm``.
        status: show where it stands, and run nothing.
        engine, jobs, max_total: as in :func:`compare`.
        callbacks, progress: as in :func:`run`; told of every run that is held in this process.
        options: of a run, in place of the table's: ``model``, ``llm``, caps, ``runs``,
            ``data_root`` …

    Raises:
        UserError: nothing of it can be run, or there is no such table or part of one. What failed
            beside what did not is in ``failed``.
    """
    from llmopt.reproduction.choice import Choice
    from llmopt.reproduction.run import reproduce as reproduced
    from llmopt.reproduction.spec import read_table
    from llmopt.sweep.engines import Workers, choose_engine
    from llmopt.sweep.purse import total_caps

    part = {
        side: list(wanted) if isinstance(wanted, (list, tuple, range)) else [wanted]
        for side, wanted in (only or {}).items()
    }
    choice = Choice(read_table(table), part, texts(options))
    with _watching(callbacks, progress) as watch:
        workers, totals = choose_engine(engine, Workers(jobs)), total_caps(max_total or {})
        return reproduced(choice, workers, watch, totals, run=not status)


def evaluate(
    run: str | Path | Run,
    *,
    task: Task | None = None,
    model: str | BlackBox | None = None,
    trust_config: bool = False,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Score a finished run's start and best on test images again.

    Args:
        run: the run folder.
        task: whose test images are taken, in place of ``dataset``.
        model: an open_clip name, or any black box; by default the run's own.
        trust_config: as in :func:`resume`.
        callbacks, progress: as in :func:`run`.
        changes: other options than the run's: ``dataset``, ``classnames``, ``data_root``,
            ``skip_unreadable``, ``pretrained``, ``device``, ``precision``.

    Returns:
        Accuracies with intervals and the paired gain, as ``llmopt evaluate --json`` prints them.
    """
    from llmopt.runs.remeasure import remeasure

    given = Given(task=task, box=None if isinstance(model, str) else model)
    if isinstance(model, str):
        changes["model"] = model
    with _watching(callbacks, progress) as watch:
        return remeasure(Path(run), texts(changes), watch, given, trust_config=trust_config)


@contextlib.contextmanager
def _watching(
    callbacks: Iterable[Callback],
    progress: bool | None,
    track: str | None = None,
    config: RunConfig | None = None,
) -> Iterator[Watch]:
    """Everything that wants to hear of a run."""
    from llmopt.live import interactive, watching

    hearers = list(callbacks)
    shown = interactive() if progress is None else progress
    with watching() if shown else contextlib.nullcontext(Watch()) as screen:
        hearers.insert(0, screen)
        if track is not None and config is not None:
            from llmopt.track.services import track as tracked

            hearers.append(tracked(track, config.resolved(), Watches(hearers).warn))
        yield Watches(hearers)
