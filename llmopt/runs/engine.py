"""A run from config to result: prepare, search, choose, measure once, write."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.numpy import save_file

from llmopt.data.registry import Dataset, open_dataset
from llmopt.data.tasks import make_task, open_test
from llmopt.errors import (
    AccessError,
    BudgetExhausted,
    BudgetTooSmall,
    ConfigError,
    RunFolderError,
)
from llmopt.heads.predictor import head_names, with_head
from llmopt.predictor import Predictor, single
from llmopt.runs import folder as run_folder
from llmopt.runs import result as run_result
from llmopt.runs.config import RunConfig, optimizer_of
from llmopt.runs.folder import locked
from llmopt.runs.measure import Evaluation, evaluate
from llmopt.search import OPTIMIZERS
from llmopt.search.base import Optimizer, Outcome, Search, TemplateResult
from llmopt.search.text.archive import evaluate as score_of
from llmopt.spend.checkpoint import Checkpoints
from llmopt.spend.events import Watch
from llmopt.spend.files import replace_atomically, write_text
from llmopt.spend.journal import Journal, read_journal
from llmopt.spend.ledger import Ledger
from llmopt.task import FloatArray, Labelled, Task
from llmopt.template import PLAIN, Template
from llmopt.vision.base import BlackBox
from llmopt.vision.boxes import open_black_box
from llmopt.vision.metered import MeteredBox

if TYPE_CHECKING:
    from llmopt.language.llm import Llm
    from llmopt.language.metered import MeteredChat
    from llmopt.vision.feature_cache import FeatureCache


@dataclass(frozen=True)
class Prepared:
    """A run that can start: everything is found and fits together, nothing is spent."""

    config: RunConfig
    optimizer: Optimizer[Any]
    dataset: Dataset
    task: Task


def prepare(config: RunConfig) -> Prepared:
    """Check a config and find its data set. Opens no model and spends nothing.

    Raises:
        UserError: something is unknown, missing or does not fit.
    """
    config = config.resolved()
    if config.head:
        head_names(config.head)
    optimizer = optimizer_of(config)
    if optimizer.needs_chat:
        llm = chosen_llm(config)
        config = dataclasses.replace(config, llm=llm.spec, max_usd=llm.cap_on_usd(config.max_usd))
    if config.init_from:
        config = _from_found(config)
    names = {"classnames": config.classnames} if config.classnames else {}
    dataset = open_dataset(config.dataset, Path(config.data_root), **names)
    task = make_task(
        dataset,
        config.shots,
        config.seed,
        Template(config.template),
        skip_unreadable=config.skip_unreadable,
    )
    return Prepared(config, optimizer, dataset, task)


def chosen_llm(config: RunConfig) -> Llm:
    """The language model of a config."""
    from llmopt.language.llm import choose_llm

    return choose_llm(config.llm, config.llm_base_url, config.llm_settings)


def start(
    config: RunConfig, watch: Watch | None = None, box: BlackBox | None = None
) -> dict[str, Any]:
    """Run a config in a new folder; the content of its ``result.json``.

    Args:
        config: what to run.
        watch: told where the run stands.
        box: the black box, if it is open already; it must be the config's own.

    Raises:
        LlmoptError: with ``exit_code`` telling whose fault it is.
    """
    watch = watch or Watch()
    prepared = prepare(config)
    box = box or open_box(prepared.config, watch)
    check_access(box, type(prepared.optimizer))
    prepared.optimizer.check(box, prepared.task)
    folder = run_folder.create(prepared.config)
    return _live(folder, prepared, box, watch)


def resume(
    folder: Path, watch: Watch | None = None, *, skip_unreadable: bool = False
) -> dict[str, Any]:
    """Go on where a run stopped. A finished run just gives its result again.

    Args:
        folder: of the run.
        watch: told where the run stands.
        skip_unreadable: leave damaged test images out; the few shots stay what they were.
    """
    watch = watch or Watch()
    config = run_folder.read_run_config(folder)
    path = folder / run_folder.RESULT
    if path.is_file() and (result := run_folder.read_result(folder))["status"] == "complete":
        watch.note(f"{folder} is complete; nothing to do")
        return result
    prepared = prepare(config)
    if skip_unreadable:
        config = dataclasses.replace(prepared.config, skip_unreadable=True)
        prepared = dataclasses.replace(prepared, config=config)
    box = open_box(prepared.config, watch)
    check_access(box, type(prepared.optimizer))
    return _live(folder, prepared, box, watch)


def _from_found(config: RunConfig) -> RunConfig:
    """The config with the best template of the finished run that the search is to begin at."""
    folder = Path(config.init_from).absolute()
    config = dataclasses.replace(config, init_from=str(folder))
    if not folder.is_dir() and config.template != PLAIN:
        return config  # taken when the run began; the other one is not needed any more
    templates = run_folder.read_result(folder)["best"]["templates"]
    if not templates:
        raise ConfigError(f"--init-from {folder}: that run found no text template to start from")
    found = str(max(templates, key=lambda t: t["weight"])["text"])
    if config.template not in (PLAIN, found):
        raise ConfigError(
            f"give either --init-from {folder}, which found {found!r}, "
            f"or --template {config.template!r}"
        )
    return dataclasses.replace(config, template=found)


def open_box(config: RunConfig, watch: Watch) -> BlackBox:
    """The black box of a config."""
    if config.blackbox:
        return open_black_box(config.blackbox)
    from llmopt.vision.openclip import OpenClipBlackBox

    watch.stage(f"loading {config.model} {config.pretrained}".strip())
    return OpenClipBlackBox(
        config.model,
        config.pretrained,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
    )


def check_access(box: BlackBox, optimizer: type[Optimizer[Any]]) -> None:
    """Refuse an optimizer that needs more than the box offers.

    Raises:
        AccessError: it names the level, the offer, and the optimizers that would work.
    """
    if box.info.access >= optimizer.access:
        return
    fitting = [n for n, kind in OPTIMIZERS.usable().items() if kind.access <= box.info.access]
    raise AccessError(
        f"optimizer '{optimizer.name}' needs access level '{optimizer.access}', but "
        f"{box.info.name} offers '{box.info.access}'; with it you can use: {', '.join(fitting)}"
    )


def _live(folder: Path, prepared: Prepared, box: BlackBox, watch: Watch) -> dict[str, Any]:
    with (
        locked(folder),
        Journal(folder / run_folder.JOURNAL) as journal,
        contextlib.ExitStack() as open_until_end,
    ):
        return _search_and_measure(folder, prepared, box, journal, watch, open_until_end)


def _search_and_measure(
    folder: Path,
    prepared: Prepared,
    box: BlackBox,
    journal: Journal,
    watch: Watch,
    open_until_end: contextlib.ExitStack,
) -> dict[str, Any]:
    config, task = prepared.config, prepared.task
    _note_identity(folder, journal, box, task, watch)
    (folder / run_folder.RESULT).unlink(missing_ok=True)  # an earlier sitting's best so far
    ledger = Ledger(config.caps, journal.clock)
    ledger.charge(labelled_images=task.labelled_images)
    cache = _feature_cache(watch)
    metered = MeteredBox(box, ledger, cache)
    chat = _open_chat(prepared, ledger, journal, watch)
    if chat is not None:
        open_until_end.enter_context(chat)
    search = Search(
        task=task,
        box=metered,
        chat=chat,
        seed=config.seed,
        journal=journal,
        ledger=ledger,
        checkpoints=Checkpoints(folder / run_folder.CHECKPOINT, ledger, journal),
        on_progress=watch.progress,
    )
    watch.started(folder, ledger)
    baseline = single(task.start, task.classnames)
    start = _score_start(metered, task, baseline)
    with _graceful_interrupt(ledger, watch):
        outcome = prepared.optimizer.run(search)
    if outcome.fallback and not outcome.templates:
        outcome = dataclasses.replace(outcome, templates=(_start_result(metered, task, start),))
    if ledger.stopped:  # wherever in the search it was, there is more to do
        outcome = dataclasses.replace(outcome, stop_reason="interrupted")
    if config.head and outcome.stop_reason != "interrupted":
        outcome = _with_head(config, outcome, metered, task, journal, watch)
    if journal.diverged:
        watch.warn("this sitting took other steps than the one before; see the journal")

    started = [_accuracy(metered, images, baseline) for images in (task.train, task.val)]
    ended = outcome.accuracies or [
        _accuracy(metered, images, outcome.predictor) for images in (task.train, task.val)
    ]
    spent = Ledger()
    evaluation = None
    test_images = 0
    if outcome.stop_reason != "interrupted":
        watch.stage("measuring on the test images")
        test = open_test(prepared.dataset, skip_unreadable=config.skip_unreadable)
        if skipped := len(prepared.dataset.split("test")) - len(test):
            watch.warn(f"{skipped} test images could not be read and were left out")
        test_images = len(test)
        journal.event("test_opened", images=test_images, predictor=outcome.predictor.describe())
        evaluation = evaluate(
            MeteredBox(box, spent, cache), test, outcome.predictor, baseline, len(task.classnames)
        )
    result = run_result.build(
        folder=folder,
        config=config,
        task=task,
        info=box.info,
        optimizer=prepared.optimizer,
        outcome=outcome,
        train=(started[0], ended[0]),
        val=(started[1], ended[1]),
        evaluation=evaluation,
        test_images=test_images,
        ledger=ledger,
        evaluation_ledger=spent,
        seconds={
            "total": journal.clock(),
            "llm": chat.seconds if chat else 0.0,
            "black_box": metered.seconds,
        },
    )
    _write(folder, result, outcome, evaluation, task.classnames)
    return result


def _with_head(
    config: RunConfig,
    outcome: Outcome,
    box: MeteredBox,
    task: Task,
    journal: Journal,
    watch: Watch,
) -> Outcome:
    """What was found with a head on it, if one is convincing on images left out of its fit."""
    watch.stage("fitting heads")
    try:
        predictor, selection = with_head(
            outcome.predictor,
            head_names(config.head),
            box,
            task,
            config.seed,
            views=config.head_views,
        )
    except BudgetExhausted as spent:
        watch.note(f"no head was fitted: {spent}")
        return outcome
    journal.event("head", reason=selection.reason)
    watch.note(selection.reason)
    fallback = outcome.fallback and selection.fallback
    return dataclasses.replace(
        outcome, predictor=predictor, fallback=fallback, accuracies=selection.accuracies
    )


def _start_result(box: MeteredBox, task: Task, scores: FloatArray) -> TemplateResult:
    """The start as a result, from its scores of the training images."""
    scored = score_of(task.start, scores, task.train)
    val = _accuracy(box, task.val, single(task.start, task.classnames))
    return TemplateResult(task.start.text, 1.0, scored.accuracy, scored.logprob, val)


def _score_start(box: MeteredBox, task: Task, baseline: Predictor) -> FloatArray:
    """The first spend of every run; a budget that does not pay for it pays for nothing."""
    try:
        return baseline.scores(box, task.train)
    except BudgetExhausted as error:
        raise BudgetTooSmall(
            f"{error}, which does not even pay for scoring the start template "
            f"({len(task.classnames)} prompts); raise the cap, see 'llmopt plan'"
        ) from error


def _accuracy(box: MeteredBox, images: Labelled, predictor: Predictor) -> float | None:
    """Share of images it classifies right; None without images, or if the caps do not pay."""
    if not len(images):
        return None
    try:
        predicted = predictor.scores(box, images).argmax(axis=1)
    except BudgetExhausted:
        return None
    return float((predicted == images.labels).mean())


def _note_identity(folder: Path, journal: Journal, box: BlackBox, task: Task, watch: Watch) -> None:
    """Journal what the run stands on; on resume, say what has changed since."""
    identity: dict[str, Any] = {
        "versions": run_result.versions(),
        "weights_sha256": box.info.weights_sha256,
        "split_sha256": task.split_sha256,
    }
    if not journal.resumed:
        journal.event("started", **identity)
        return
    first = next(iter(read_journal(folder / run_folder.JOURNAL)), None)
    if first is None or first["kind"] != "started":
        raise RunFolderError(f"the journal of {folder} does not begin with a start; it is damaged")
    before = first["data"]
    journal.event("started", **before)
    changed = [
        f"{name} {before['versions'].get(name)} -> {version}"
        for name, version in identity["versions"].items()
        if before["versions"].get(name) != version
    ]
    if before["weights_sha256"] != identity["weights_sha256"]:
        changed.append("the model's weights")
    if before["split_sha256"] != identity["split_sha256"]:
        changed.append("the data split")
    if changed:
        watch.warn(
            f"since this run began, these have changed: {', '.join(changed)}; "
            "its result may differ from an undisturbed one"
        )


def _feature_cache(watch: Watch) -> FeatureCache:
    from llmopt.spend.files import default_cache_dir
    from llmopt.vision.feature_cache import FeatureCache

    return FeatureCache(default_cache_dir(), watch.images)


def _open_chat(
    prepared: Prepared, ledger: Ledger, journal: Journal, watch: Watch
) -> MeteredChat | None:
    if not prepared.optimizer.needs_chat:
        return None
    from llmopt.language.metered import open_metered

    config = prepared.config
    return open_metered(chosen_llm(config), config.seed, ledger, journal, watch)


@contextlib.contextmanager
def _graceful_interrupt(ledger: Ledger, watch: Watch) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the search with its best so far; the second the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(signum: int, frame: Any) -> None:
        ledger.stop()
        restore()
        watch.note("interrupted: finishing with the best so far (again to stop at once)")

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def _write(
    folder: Path,
    result: dict[str, Any],
    outcome: Outcome,
    evaluation: Evaluation | None,
    classnames: Sequence[str],
) -> None:
    ranked = [
        {
            "text": t.text,
            "weight": t.weight,
            "train_accuracy": t.train_accuracy,
            "train_logprob": t.train_logprob,
            "val_accuracy": t.val_accuracy,
        }
        for t in outcome.templates
    ]
    found = {"schema": 1, "templates": ranked, "classnames": list(classnames)}
    write_text(folder / run_folder.PROMPTS, _json(found))
    tensors, config = outcome.predictor.state()
    with replace_atomically(folder / run_folder.PREDICTOR) as path:
        save_file(tensors, path, {"predictor": json.dumps(config)})
    if evaluation is not None:
        with replace_atomically(folder / run_folder.PREDICTIONS) as path:
            save_file(
                {
                    "labels": evaluation.labels,
                    "baseline": evaluation.baseline,
                    "best": evaluation.best,
                },
                path,
            )
    write_text(folder / run_folder.RESULT, _json(result))


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
