"""One search with everything in it, each part kept where the few shots say that it helps.

1. ``rename``: words for classes whose names say nothing. It is held where a name is a code, or the
   start is at chance; it asks no language model.
2. ``chat``: the start, hand-crafted templates and probes, then the conversation if they leave
   anything to gain.
3. ``by class``: for each class its own template, of those that were scored.
4. ``describe``: what each class looks like, from a file, or by a language model that knows.
5. ``soft``: where it is asked for and the box allows it, a soft prompt that begins as the best
   words (:mod:`llmopt.search.soft.craft`).
6. A head, as ``--head auto`` fits it, unless another is asked for.

Each stage begins where the one before ended and keeps that unless the same images are convincingly
likelier under what it found; so the whole is never worse than the start as far as they tell.

The search plans for a tenth of what CraFT spends at as many shots (Wang et al., ICML 2024). What is
left under a cap is shared out before each stage: later stages that usually gain more per prompt
(:data:`WORTH`) have theirs put aside first. A box that takes images and prompts together, or
answers with labels only, leaves stages out. What each brought, cost, and why it was kept stands in
the result.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from annotated_types import Ge

from llmopt.errors import BudgetExhausted
from llmopt.predictor import Predictor, single
from llmopt.search import make_optimizer
from llmopt.search.base import Optimizer, Outcome, Search, Stage
from llmopt.search.text.by_class import ByClass
from llmopt.search.text.chat import Chat
from llmopt.search.text.describe import Asked, Filed
from llmopt.search.text.rename import Rename
from llmopt.search.text.weighing import Shots, convinces
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.stats import log_likelihoods
from llmopt.task import FloatArray, Labelled, Task
from llmopt.template import Template
from llmopt.vision.base import Access

WORTH: Final[Mapping[str, float]] = {
    "rename": 20.0, "describe": 6.0, "chat": 3.0, "craft": 0.6, "by class": 0.0,
}  # fmt: skip
"""Points that a stage usually gains at 1 shot where it is held: measured here for ``rename``, else
means of CoOp's eleven sets as published for MPVR, GLOV and CraFT. Nothing is put aside for ``by
class``, which lives on what ``chat`` has scored."""

_CONVERSATION = 0.4  # of the templates, if it is held
_PROPOSALS = 16
_TALKS = 2
_WORD = re.compile(r"[^\W\d_]{2,}|[^\W\d_a-zA-Z]")
_SAY_NOTHING = {"category", "class", "cls", "group", "id", "label", "no", "type"}


@dataclass(frozen=True)
class AutoSettings(Settings):
    """Settings of ``auto``.

    Attributes:
        budget: templates at most, probes and the conversation's together; None is 200 at 1 shot,
            400 at 2 to 4, 800 above, a tenth of CraFT's contexts.
        rename: look for words for classes whose names say nothing.
        chat: look for a template.
        by_class: look for a template of its own for each class.
        describe: ask a language model that knows for descriptions of the classes.
        file: that describes them, in place of asking (``--descriptions``).
        soft: contexts of a soft prompt tried after the words; 0 for none.
    """

    budget: Annotated[int, Ge(16)] | None = None
    rename: bool = True
    chat: bool = True
    by_class: bool = True
    describe: bool = True
    file: str = ""
    soft: Annotated[int, Ge(0)] = 0


class Auto(Optimizer[AutoSettings]):
    """Names, templates, descriptions and a head, one after the other."""

    name = "auto"
    access = Access.LABELS
    needs_chat = True
    Settings = AutoSettings
    head = "auto"

    # --- what it can cost --------------------------------------------------------------------

    def stages(self, task: Task) -> Iterator[Optimizer[Any]]:
        """The searches that may be held, in order."""
        s = self.settings
        if s.rename:
            yield Rename()
        if s.chat:
            templates = s.budget or (200 if task.shots == 1 else 400 if task.shots <= 4 else 800)
            turn = _TALKS * _PROPOSALS
            turns = min(10, max(1, int(_CONVERSATION * templates) // turn))
            yield Chat(
                probes=max(1, min(400, templates - turns * turn)),
                restarts=_TALKS,
                iterations=turns,
                proposals=_PROPOSALS,
            )
            if s.by_class:
                yield ByClass()
        if s.file:
            yield Filed(file=s.file)
        elif s.describe:
            yield Asked()
        if s.soft:
            yield make_optimizer("craft", {"budget": s.soft, "head": "none"})

    def parts(self, task: Task) -> dict[str, Spend]:
        """What each stage takes at most."""
        return {stage.name: stage.bounds(task) for stage in self.stages(task)}

    def bounds(self, task: Task) -> Spend:
        """All stages together; each looks at the same images."""
        spent = sum(self.parts(task).values(), Spend())
        return Spend(**{**spent, "image_encodings": len(task.train) + len(task.val)})

    def ensemble(self, task: Task) -> int:
        """As many prompts of a class as any stage ends with."""
        return max((stage.ensemble(task) for stage in self.stages(task)), default=1)

    def compared(self, task: Task) -> int:
        """As the conversation."""
        return max((stage.compared(task) for stage in self.stages(task)), default=0)

    def talk(self, task: Task) -> tuple[int, int]:
        """The longest conversation and the longest turn of any stage."""
        talks = [(0, 0), *(stage.talk(task) for stage in self.stages(task))]
        turns, sizes = zip(*talks, strict=True)
        return max(turns), max(sizes)

    # --- the search --------------------------------------------------------------------------

    def run(self, search: Search) -> Outcome:
        """Stage after stage."""
        task, counts, told = search.task, Counter[str](), list[Stage]()
        found = Outcome(single(task.start, task.classnames), fallback=True)
        reason, front, stages = "iterations", tuple[Template, ...](), list(self.stages(task))
        for number, stage in enumerate(stages):
            if search.ledger.stopped:
                break
            if why := _left_out(stage, search, task):
                told.append(Stage(stage.name, False, f"left out: {why}"))
                continue
            if isinstance(stage, ByClass):
                stage = ByClass(templates=tuple(one.text for one in front))
            elif isinstance(stage, Filed):
                stage = stage.of(search.task.classnames)  # the names they came with
            before = search.ledger.state()
            later = [one for one in stages[number + 1 :] if not _left_out(one, search, task)]
            with search.ledger.within(**_shares(search, stage, later)):
                outcome = stage.run(dataclasses.replace(search, task=task))
            counts.update({n: v for n, v in outcome.summary.items() if isinstance(v, int) and v})
            front = outcome.front or front
            if not reason.startswith("budget"):  # what ended a stage first
                reason = outcome.stop_reason
            tried = _weighed(search, found, outcome, task)
            told.append(
                dataclasses.replace(tried, name=stage.name, spent=search.ledger.since(before))
            )
            if tried.kept:
                task = _after(task, outcome.predictor)
            found = _joined(found, outcome, tried.kept)
            if not search.ledger.stopped:  # it will be held again
                search.event("stage", name=stage.name, kept=tried.kept)
        summary = {**counts, "stages": [one.to_json() for one in told]}
        return dataclasses.replace(found, stop_reason=reason, summary=summary)


# --- which stages are held, and with how much ----------------------------------------------------


def _left_out(stage: Optimizer[Any], search: Search, task: Task) -> str:
    """Why a stage is not held; empty if it is."""
    if search.box.access < stage.access:
        return f"the box offers '{search.box.access}', and it needs '{stage.access}'"
    if stage.needs_knowledge and not (search.chat and search.chat.knows):
        return "the built-in rewriter does not know what things look like"
    if isinstance(stage, Rename) and not _says_nothing(search, task):
        return "the names say something"
    if isinstance(stage, ByClass) and not any(
        _wrong(search, task, images) for images in (task.train, task.val)
    ):
        return "every image is right already"
    return ""


def _says_nothing(search: Search, task: Task) -> bool:
    """Whether a class name looks like a code, or all together say no more than chance."""
    chance = len(task.train) / len(task.classnames)
    right = len(task.train) - _wrong(search, task, task.train)
    return any(map(_is_code, task.classnames)) or bool(right <= chance + 2 * np.sqrt(chance))


def _wrong(search: Search, task: Task, images: Labelled) -> int:
    """How many images the words that are known get wrong; they are scored already."""
    if not len(images):
        return 0
    try:
        scores = single(task.start, task.classnames).scores(search.box, images)
    except BudgetExhausted:
        return 0
    return int((scores.argmax(axis=1) != images.labels).sum())


def _is_code(name: str) -> bool:
    """Whether a class name holds no word, such as ``class_07`` or ``n01440764``."""
    words = [word for word in _WORD.findall(name.lower()) if word not in _SAY_NOTHING]
    return not any(re.search(r"[aeiouy]", word) or not word.isascii() for word in words)


def _shares(
    search: Search, stage: Optimizer[Any], later: Sequence[Optimizer[Any]]
) -> dict[str, float]:
    """What a stage may spend, by cap: all that is left but what better ones after it take."""
    task, ledger = search.task, search.ledger
    bounds = {one: one.bounds(task) for one in (stage, *later)}

    def worth(one: Optimizer[Any]) -> float:
        return WORTH[one.name] / max(1.0, bounds[one].queries)

    better = [bounds[one] for one in later if worth(one) > worth(stage)]
    queries = sum(one.queries for one in better)
    calls = sum(one["llm_calls"] for one in better)
    own = bounds[stage]["llm_calls"]
    shares = {cap: ledger.room(cap) for cap in ("queries", "llm_calls", "llm_tokens", "llm_usd")}
    shares["queries"] -= queries
    shares["llm_calls"] -= calls
    for cap in ("llm_tokens", "llm_usd"):
        shares[cap] *= own / (own + calls) if own else 1.0
    return {cap: max(0.0, share) for cap, share in shares.items() if np.isfinite(share)}


# --- what came of them ---------------------------------------------------------------------------


def _weighed(search: Search, found: Outcome, outcome: Outcome, task: Task) -> Stage:
    """Whether what a stage found replaces what was known, and the evidence.

    A stage compares with its own beginning, the words that were known. Where descriptions were
    known beside them, they are compared here. Nothing of it is paid for again.
    """
    if outcome.fallback:
        early = outcome.stop_reason.startswith("budget")
        why = "nothing was convincingly better on the few shots"
        return Stage("", False, why + "; a cap ended it early" * early)
    shots = Shots.of(search)
    labels = shots.images.labels
    try:
        before, after = (one.predictor.scores(search.box, shots.images) for one in (found, outcome))
    except BudgetExhausted:
        return Stage("", found.predictor.text is not None, "the caps left nothing to compare with")
    gain = log_likelihoods(after, labels) - log_likelihoods(before, labels)
    kept = found.predictor.text is not None or _judged(search, after, before)
    right, was = (float((one.argmax(axis=1) == labels).mean()) for one in (after, before))
    return Stage(
        "",
        kept,
        "convincingly likelier on the few shots" if kept else "not convincingly better in the end",
        float(gain.mean()),
        float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0,
        (was, right),
    )


def _judged(search: Search, after: FloatArray, before: FloatArray) -> bool:
    """Whether the images that nothing was fitted to are convincingly likelier."""
    val, trained = search.task.val, len(search.task.train)
    new, old = after[trained:], before[trained:]
    if len(val) < 2:
        return False
    gained, had = (log_likelihoods(one, val.labels) for one in (new, old))
    return convinces(gained, had, new, old, val.labels)


def _after(task: Task, found: Predictor) -> Task:
    """The task as the next stage begins it: with the template and the names that were found."""
    if (text := found.text) is None:
        return task
    return dataclasses.replace(task, start=text.templates[0], classnames=text.classnames)


def _joined(before: Outcome, after: Outcome, kept: bool) -> Outcome:
    """What is known after a stage: what it found, or what was known, if it kept that."""
    if not kept:
        listed = max(before.templates, after.templates, key=len)
        return dataclasses.replace(before, templates=listed, before=after.before or before.before)
    return dataclasses.replace(
        after,
        why=after.why or before.why,
        source=after.source or before.source,
        before=after.before or before.before,
    )
