"""A run in four steps: search, fit a head, measure once on the test images, write.

Everything it needs comes as a :class:`~llmopt.runs.compose.Setup`; everything it spends passes the
metered box and the metered chat model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt.data.soundness import Findings
from llmopt.errors import CAP_BROKEN, BudgetExhausted, BudgetTooSmall, CapBroken
from llmopt.heads.predictor import with_head
from llmopt.predictor import Predictor, single
from llmopt.runs import folder as run_folder
from llmopt.runs import result as run_result
from llmopt.runs.baselines import chosen, ensembles
from llmopt.runs.bounds import outside
from llmopt.runs.compose import Setup
from llmopt.runs.identity import note_identity
from llmopt.runs.interrupt import graceful_interrupt
from llmopt.runs.measure import Evaluation, measure
from llmopt.runs.model import SEARCH
from llmopt.runs.plan import make_plan
from llmopt.search.base import Outcome, Search, Stage, TemplateResult
from llmopt.search.text.archive import Scored
from llmopt.spend.checkpoint import Checkpoints
from llmopt.spend.currency import amount
from llmopt.spend.events import Watch
from llmopt.spend.files import default_cache_dir
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Ledger
from llmopt.task import FloatArray, Labelled, Task
from llmopt.vision.base import BlackBox
from llmopt.vision.feature_cache import FeatureCache
from llmopt.vision.kept import OnTheWay, kept_by_run
from llmopt.vision.metered import MeteredBox

if TYPE_CHECKING:
    from llmopt.language.llm import Llm
    from llmopt.language.metered import MeteredChat


def start(setup: Setup, watch: Watch | None = None) -> dict[str, Any]:
    """Run in a new folder; the content of its ``result.json``.

    Args:
        setup: what to run.
        watch: told where the run stands.

    Raises:
        LlmoptError: with ``exit_code`` telling whose fault it is.
    """
    watch = watch or Watch()
    if setup.llm is not None:
        setup.llm.check()
    found = setup.findings
    setup = setup.settled(watch)
    box = setup.open_box(watch)
    setup.optimizer.check(box, setup.task)
    folder = run_folder.create(setup.config, setup.asked)
    if answers := setup.found_out.answers:
        (folder / run_folder.ANSWERS).mkdir()
        for name, content in answers.items():
            (folder / run_folder.ANSWERS / name).write_bytes(content)
    return _run(folder, setup, found, box, watch)


def resume(folder: Path, setup: Setup, watch: Watch | None = None) -> dict[str, Any]:
    """Go on where a run stopped; ``setup`` is composed of the config in its folder."""
    watch = watch or Watch()
    run_folder.check_journal(folder)
    return _run(folder, setup, setup.findings, setup.open_box(watch), watch)


@dataclass(frozen=True)
class _Sitting:
    """A run while it is held: its folder is locked, its journal open.

    Attributes:
        found: what is odd about its data.
        open_box, box: the black box, and what counts and caps its use in the search.
        features: of images, shared between runs.
        baseline: the start, as a predictor.
    """

    folder: Path
    setup: Setup
    found: Findings
    open_box: BlackBox
    box: MeteredBox
    features: FeatureCache
    chat: MeteredChat | None
    journal: Journal
    ledger: Ledger
    watch: Watch
    baseline: Predictor


@dataclass(frozen=True)
class _Measured:
    """Accuracies of the start and of what was found.

    Attributes:
        train, val: of both; None without such images.
        before: of what was best before a language model was asked, on both kinds of images.
        test: on the test images; None if they were not opened.
        ledger: what that took.
        left_out: test images that could not be read.
    """

    train: tuple[float | None, float | None]
    val: tuple[float | None, float | None]
    before: tuple[float | None, float | None]
    test: Evaluation | None
    ledger: Ledger
    left_out: int


def _run(
    folder: Path, setup: Setup, found: Findings, box: BlackBox, watch: Watch
) -> dict[str, Any]:
    with _sitting(folder, setup, found, box, watch) as sitting:
        outcome = _search(sitting)
        outcome = _fit_head(sitting, outcome)
        measured = _measure(sitting, outcome)
        return _write(sitting, outcome, measured)


@contextlib.contextmanager
def _sitting(
    folder: Path, setup: Setup, found: Findings, box: BlackBox, watch: Watch
) -> Iterator[_Sitting]:
    """The run, ready to spend."""
    task = setup.task
    with (
        run_folder.locked(folder),
        Journal(folder / run_folder.JOURNAL) as journal,
        contextlib.ExitStack() as open_until_end,
    ):
        spent = note_identity(folder, journal, box, task, watch, setup.found_out.spent)
        (folder / run_folder.RESULT).unlink(missing_ok=True)  # an earlier sitting's best so far
        ledger = Ledger(setup.caps, journal.clock)
        ledger.charge(labelled_images=task.labelled_images)
        ledger.record(**spent)
        features = FeatureCache(default_cache_dir(), watch.images, watch.warn)
        metered = _metered(folder, box, SEARCH, ledger, features)
        chat = None
        if setup.llm is not None:
            from llmopt.language.metered import open_metered

            if not setup.llm.free:
                watch.note(_said_before_paid(setup, setup.llm, box))
            chat = open_metered(setup.llm, task.seed, ledger, journal, watch)
            open_until_end.enter_context(chat)
        for text in found.warnings:
            watch.warn(text)
        for text in found.notes:
            watch.note(text)
        watch.started(folder, ledger)
        if outside(box):
            watch.note(make_plan(setup, box).received)
        start = single(task.start, task.classnames)
        yield _Sitting(
            folder, setup, found, box, metered, features, chat, journal, ledger, watch, start
        )


def _metered(
    folder: Path, box: BlackBox, part: str, ledger: Ledger, features: FeatureCache
) -> MeteredBox:
    """The box; answers of one that is paid for what it receives are kept until the run ends."""
    kept = way = None
    if outside(box):
        answers = folder / run_folder.ANSWERS
        kept, way = kept_by_run(answers, box, part), OnTheWay(answers, part, ledger)
    return MeteredBox(box, ledger, features, kept, way, folder.name)


def _said_before_paid(setup: Setup, llm: Llm, box: BlackBox) -> str:
    """Which language model will be paid, why it was chosen, and the most it can cost."""
    bounds = {row.name: row.most for row in make_plan(setup, box).rows}
    cap = setup.caps.llm_usd
    return (
        f"language model {llm.spec} ({llm.why}): at most {amount('llm_calls', bounds['llm_calls'])}"
        f" calls and {amount('llm_usd', bounds['llm_usd'], 'an unknown price')}"
        + ("; no cap on money" if cap is None else f", with a cap of {amount('llm_usd', cap)}")
    )


# --- 1: search -----------------------------------------------------------------------------------


def _search(run: _Sitting) -> Outcome:
    """What the optimizer finds, or its best so far where a cap or Ctrl-C ends it."""
    task = run.setup.task
    start = _score_start(run.box, task, run.baseline)
    right = float((start.argmax(axis=1) == task.train.labels).mean())
    progress = run.watch.progress  # all that the search may reach of this sitting
    search = Search(
        task=task,
        box=run.box,
        chat=run.chat,
        seed=task.seed,
        journal=run.journal,
        ledger=run.ledger,
        checkpoints=Checkpoints(
            run.folder / run_folder.CHECKPOINT,
            run.ledger,
            run.journal,
            {"optimizer": run.setup.name, "dataset": task.dataset, "seed": str(task.seed)},
            run.watch.warn,
        ),
        on_progress=lambda told: progress(dataclasses.replace(told, start_accuracy=right)),
    )
    before = _encoded(run.ledger)
    with graceful_interrupt(run.ledger, run.watch):
        try:
            outcome = run.setup.optimizer.run(search)
        except BudgetExhausted as spent:  # before it had anything
            outcome = Outcome(run.baseline, spent.stop_reason, fallback=True)
    if outcome.fallback and not outcome.templates:
        found = _start_result(run.box, task, start)
        outcome = dataclasses.replace(outcome, templates=(found,))
    if run.ledger.stopped:  # wherever in the search it was, there is more to do
        outcome = dataclasses.replace(outcome, stop_reason="interrupted")
    elif run.chat is not None:
        run.chat.check_answered()
        if run.chat.cap_broken:  # whatever a part of the search ended with
            outcome = dataclasses.replace(outcome, stop_reason=CAP_BROKEN)
    if outcome.why:
        run.watch.note(f"chosen: {outcome.predictor.describe()} ({outcome.why})")
    tried = _encoded(run.ledger) > before
    return dataclasses.replace(outcome, tried=tried, fallback=outcome.fallback or not tried)


def _encoded(ledger: Ledger) -> float:
    return ledger["text_encodings"] + ledger["soft_prompt_encodings"]


def _score_start(box: MeteredBox, task: Task, baseline: Predictor) -> FloatArray:
    """The first spend of every run; a budget that does not pay for it pays for nothing."""
    try:
        return baseline.scores(box, task.train)
    except CapBroken:
        raise
    except BudgetExhausted as error:
        raise BudgetTooSmall(
            f"{error}, which does not even pay for scoring the start template "
            f"({len(task.classnames)} prompts on {len(task.train)} images); raise the cap, see "
            "'llmopt plan'"
        ) from error


def _start_result(box: MeteredBox, task: Task, scores: FloatArray) -> TemplateResult:
    """The start as a result, from its scores of the training images."""
    scored = Scored.of(task.start, scores, task.train)
    val = _accuracy(box, task.val, single(task.start, task.classnames))
    return TemplateResult(task.start.text, 1.0, scored.accuracy, scored.logprob, val)


# --- 2: fit a head -------------------------------------------------------------------------------


def _fit_head(run: _Sitting, outcome: Outcome) -> Outcome:
    """What was found with a head on it, if one is convincing on images left out of its fit."""
    setup, task = run.setup, run.setup.task
    if not setup.heads or outcome.stop_reason == "interrupted":
        return outcome
    run.watch.stage("fitting heads")
    before = run.ledger.state()
    try:
        predictor, selection = with_head(
            outcome.predictor, setup.heads, run.box, task, task.seed, views=setup.head_views
        )
    except BudgetExhausted as error:
        run.watch.note(f"no head was fitted: {error}")
        return outcome
    run.journal.event("head", reason=selection.reason)
    run.watch.note(selection.reason)
    spent = run.ledger.since(before)
    stage = Stage("head", not selection.fallback, selection.reason, spent=spent)
    return dataclasses.replace(
        outcome,
        predictor=predictor,
        fallback=outcome.fallback and selection.fallback,
        accuracies=selection.accuracies,
        summary=outcome.after(stage),
    )


# --- 3: measure ----------------------------------------------------------------------------------


def _measure(run: _Sitting, outcome: Outcome) -> _Measured:
    """Start and best on the few shots; on the test images too, once, where the search has ended."""
    task, found = run.setup.task, outcome.predictor
    if run.journal.diverged:
        run.watch.warn("this sitting took other steps than the one before; see the journal")

    def both(predictor: Predictor) -> tuple[float | None, float | None]:
        return _accuracy(run.box, task.train, predictor), _accuracy(run.box, task.val, predictor)

    started, ended = both(run.baseline), outcome.accuracies or both(found)
    before = both(outcome.before) if outcome.before else (None, None)
    test, spent, skipped = None, Ledger(), 0
    if outcome.stop_reason != "interrupted":
        if len(run.setup.dataset.split("test")):
            run.watch.stage("measuring on the test images")
        images, skipped = run.setup.open_test()
        if skipped:
            run.watch.warn(f"{skipped} test images could not be read and were left out")
        if images is not None:
            run.journal.event("test_opened", images=len(images), predictor=found.describe())
            metered = _metered(run.folder, run.open_box, "test", spent, run.features)
            names = chosen(run.setup.baselines, outside(run.open_box), len(task.classnames))
            others = ensembles(names, metered, task.classnames)
            test = measure(
                metered, images, found, run.baseline, len(task.classnames), outcome.before, others
            )
    train, val = zip(started, ended, strict=True)
    return _Measured(train, val, before, test, spent, skipped)


def _accuracy(box: MeteredBox, images: Labelled, predictor: Predictor) -> float | None:
    """Share of images it classifies right; None without images, or if the caps do not pay."""
    if not len(images):
        return None
    try:
        predicted = predictor.scores(box, images).argmax(axis=1)
    except BudgetExhausted:
        return None
    return float((predicted == images.labels).mean())


# --- 4: write ------------------------------------------------------------------------------------


def _write(run: _Sitting, outcome: Outcome, measured: _Measured) -> dict[str, Any]:
    """The result, and all files of the run folder."""
    folder, test = run.folder, measured.test
    result = run_result.build(
        folder=folder,
        task=run.setup.task,
        info=run.open_box.info,
        optimizer=run.setup.optimizer,
        name=run.setup.name,
        llm=run.setup.llm.spec if run.setup.llm else None,
        remarks=run.chat.remarks if run.chat else (),
        outcome=outcome,
        train=measured.train,
        val=measured.val,
        before=measured.before,
        evaluation=test,
        found=run.found,
        left_out=measured.left_out,
        ledger=run.ledger,
        evaluation_ledger=measured.ledger,
        seconds={
            "total": run.journal.clock(),
            "llm": run.chat.seconds if run.chat else 0.0,
            "black_box": run.box.seconds,
        },
        llm_repeats=run.setup.llm is None or run.setup.llm.free,
        precision_why=run.setup.precision_why,
    )
    run_result.save(folder, result, outcome, test, run.setup.task.classnames)
    if outcome.stop_reason != "interrupted":  # nothing will be asked again
        shutil.rmtree(folder / run_folder.ANSWERS, ignore_errors=True)
    return result
