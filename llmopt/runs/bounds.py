"""Upper bounds of what a run's black box receives, before anything is sent.

An optimizer bounds what it looks at: images, prompts and soft prompts, each once, and pairs. What
is sent to have them looked at depends on the box. One that gives features gets every image and
every prompt once. One that takes images and prompts together gets a template's K prompts and all
images again with each template, in calls that hold so many images each.

Tries that fail come on top; the caps hold them too.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from llmopt.heads import HEADS
from llmopt.heads.bank import Bank, default_bank
from llmopt.runs.baselines import chosen, size
from llmopt.search.text.racing import few
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.template import Template
from llmopt.vision.answers import WIDEST
from llmopt.vision.base import Access, BlackBox

if TYPE_CHECKING:
    from llmopt.runs.compose import Setup

_LONGEST: Final = Template("x" * 600 + " {}")
"""No search makes longer ones, and no box that counts them takes them."""
_LOOKUPS: Final = 4
"""Texts whose token vectors a search for a soft prompt starts from, at most."""


def together(box: BlackBox | None) -> bool:
    """Whether a box takes images and prompts together; None is a model that runs here."""
    return box is not None and box.info.access < Access.FEATURES


def outside(box: BlackBox | None) -> bool:
    """Whether what a box receives may cost more than time here: it is remote, or a function."""
    return box is not None and (bool(box.address) or together(box))


def billed(sent: Spend, task: Task, box: BlackBox | None) -> Spend:
    """What a box that costs money charges at most for what is sent to it, beside that."""
    if box is None:
        return Spend()
    classes, images = task.classnames, int(sent["image_encodings"])
    calls = int(sent["black_box_calls"])
    prompts = _LONGEST.fill_all(classes)
    if together(box):
        return Spend(**box.dues(images, prompts, calls))
    rounds = ceil(sent["text_encodings"] / len(classes))
    texts = {name: rounds * due for name, due in box.dues(0, prompts, 0).items()}
    return Spend(**box.dues(images, (), calls)) + Spend(**texts)


def received(bounds: Spend, task: Task, box: BlackBox | None) -> Spend:
    """What a search sends at most.

    Args:
        bounds: of what it looks at (:meth:`llmopt.search.base.Optimizer.bounds`).
        task: the few shots.
        box: what it is sent to; None is a model that runs here.
    """
    classes = len(task.classnames)
    rounds = ceil(bounds["text_encodings"] / classes)
    if together(box):
        largest = max(len(task.train), len(task.val))
        first = 0 if box is None or box.holds_images else few(len(task.train))
        sent = _scored(box, largest, classes, rounds, first)
        once = bounds["image_encodings"] if box is not None and box.holds_images else 0
        counted = ("text_encodings", "pairs_scored", "black_box_calls")
        changed = {name: sent[name] for name in counted}
        images = sent["image_encodings"] or once
        sent = Spend(**{**bounds, **changed, "image_encodings": images})
    else:
        sent = bounds + _calls(bounds, rounds, classes, box)
    return sent + billed(sent, task, box)


def start_bounds(task: Task, box: BlackBox | None) -> Spend:
    """Of scoring the start on the training images, without which there is no result."""
    images, classes = len(task.train), len(task.classnames)
    if together(box):
        spent = _scored(box, images, classes, 1)
        least = spent if spent["image_encodings"] else spent + Spend(image_encodings=images)
    else:
        pairs = images * classes
        least = Spend(image_encodings=images, text_encodings=classes, pairs_scored=pairs)
    return least + billed(least, task, box) + probe_bounds(box)


def probe_bounds(box: BlackBox | None) -> Spend:
    """Of finding out how a box is asked, before the run."""
    if box is None or not box.probes:
        return Spend()
    sent = {"image_encodings": box.probes, "black_box_calls": box.probes}
    return Spend(**sent, **box.dues(box.probes, (), box.probes))


def run_bounds(setup: Setup, box: BlackBox | None) -> Spend:
    """Of a whole run but its test: search, head, and the few shots measured at its end."""
    return probe_bounds(box) + _shots_bounds(setup, box)


def _shots_bounds(setup: Setup, box: BlackBox | None) -> Spend:
    task = setup.task
    bounds = setup.optimizer.bounds(task)
    if together(box):
        more = _head_by_scores(setup, box)
        return received(bounds, task, box) + more + billed(more, task, box)
    classes, few = len(task.classnames), len(task.train) + len(task.val)
    contexts = views = 0
    if bounds["soft_prompt_encodings"]:
        contexts = 2  # what was found, on training and on validation images
    bank = _bank(setup, box)
    if setup.heads:
        contexts *= 2
        views = setup.head_views * len(task.train)
        contexts += bool(contexts and bank)  # its text features
    # A box that gives features needs no bank; not opened, it is not known what a box gives.
    prompts = len(bank.templates) * classes + len(bank.phrases) if bank and box is None else 0
    more = Spend(
        image_encodings=max(few - bounds["image_encodings"], 0)
        + (few if bounds["soft_prompt_encodings"] else 0)
        + views,
        text_encodings=max(classes - bounds["text_encodings"], 0) + prompts,
        soft_prompt_encodings=contexts * classes,
        pairs_scored=((2 + contexts) * classes + prompts) * (few + views)
        + (WIDEST * classes if setup.heads else 0),
    )
    return received(bounds + more, task, box)


def stage_bounds(setup: Setup, box: BlackBox | None) -> dict[str, Spend]:
    """Of each stage of a search that has some, and of the head with the last look at the shots."""
    parts = setup.optimizer.parts(setup.task)
    if not parts:
        return {}
    found = {name: received(spent, setup.task, box) for name, spent in parts.items()}
    whole = _shots_bounds(setup, box)
    search = received(setup.optimizer.bounds(setup.task), setup.task, box)
    return {**found, "head": Spend(**{name: whole[name] - search[name] for name in whole})}


def test_bounds(setup: Setup, box: BlackBox | None) -> Spend:
    """Of measuring the start, what was found and published ensembles on the test images, once."""
    sent = _sent_by_test(setup, box)
    return sent + billed(sent, setup.task, box)


def _sent_by_test(setup: Setup, box: BlackBox | None) -> Spend:
    images, classes = len(setup.dataset.split("test")), len(setup.task.classnames)
    # The start's among them, and those of what was best before a language model was asked.
    optimizer, task = setup.optimizer, setup.task
    templates = 1 + optimizer.ensemble(task) + optimizer.compared(task)
    ensembles = chosen(setup.baselines, outside(box), classes)
    rounds, templates = templates + len(ensembles), templates + size(ensembles)
    bank = _bank(setup, box)
    if together(box):
        sent = _scored(box, images, classes, templates) + _bank_scored(bank, box, images, classes)
        if box is not None and box.holds_images:
            sent += Spend(image_encodings=images)
        return sent
    soft = bool(setup.optimizer.bounds(setup.task)["soft_prompt_encodings"])
    looked_at = Spend(
        image_encodings=images,
        text_encodings=templates * classes,
        soft_prompt_encodings=soft * classes,
        pairs_scored=(templates + soft) * classes * images,
    )
    return looked_at + _calls(looked_at, rounds, classes, box)


def _scored(box: BlackBox | None, images: int, prompts: int, rounds: int, first: int = 0) -> Spend:
    """So many prompts on all images, so many times, by a box that takes both together.

    Where some come ``first``, the others come too at most, in calls of their own.
    """
    assert box is not None
    calls = sum(ceil(some / box.images_per_call) for some in (first, images - first)) * rounds
    return Spend(
        image_encodings=0 if box.holds_images else images * rounds,
        text_encodings=calls * prompts,
        pairs_scored=images * prompts * rounds,
        black_box_calls=calls,
    )


def _calls(looked_at: Spend, rounds: int, classes: int, box: BlackBox | None) -> Spend:
    """Calls to a box that gives features: one for each step that brings anything new, at most."""
    images, texts = looked_at["image_encodings"], looked_at["text_encodings"]
    soft = ceil(looked_at["soft_prompt_encodings"] / classes)
    calls = min(images, rounds + soft) + rounds + soft
    if box is not None and box.address:
        calls += ceil(images / box.images_per_call) + ceil(texts / box.prompts_per_call)
        calls += _LOOKUPS if soft else 0
    return Spend(black_box_calls=calls)


def _bank(setup: Setup, box: BlackBox | None) -> Bank | None:
    """Prompts whose scores stand in for features, where a head looks at those."""
    if box is not None and box.info.access < Access.SCORES:
        return None
    heads = [HEADS.get(name) for name in setup.heads]
    if not any(head.looks_at_features for head in heads if head.level > Access.LABELS):
        return None
    return default_bank(setup.task.classnames)


def _bank_scored(bank: Bank | None, box: BlackBox | None, images: int, classes: int) -> Spend:
    if bank is None:
        return Spend()
    phrases = _scored(box, images, len(bank.phrases), 1 if bank.phrases else 0)
    return _scored(box, images, classes, len(bank.templates)) + phrases


def _head_by_scores(setup: Setup, box: BlackBox | None) -> Spend:
    """What fitting a head takes besides: its prompts and the predictor's on every set of images."""
    spent = Spend()
    if not setup.heads:
        return spent
    task, bank = setup.task, _bank(setup, box)
    classes, views = len(task.classnames), setup.head_views * len(task.train)
    for images in (len(task.train) + views, len(task.val), len(task.train) if views else 0):
        if images:
            spent += _scored(box, images, classes, setup.optimizer.ensemble(task))
            spent += _bank_scored(bank, box, images, classes)
    return spent + Spend(image_encodings=views if box is not None and box.holds_images else 0)
