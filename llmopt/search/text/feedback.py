"""What a language model is told of its proposals beside their scores, and of what is confused."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image as PillowImage

from llmopt.search.text.archive import Scored
from llmopt.search.text.conversation import Picture
from llmopt.search.text.replies import ParsedReply
from llmopt.task import Task
from llmopt.template import Template, display_name

SEVERAL = 2  # images; one alone says nothing of two classes
REJECTED = 5
SHEET_BYTES = 36_000
_TILE, _ACROSS, _MOST = 128, 3, 6  # pixels, and images of a sheet


def confused(best: Scored, task: Task) -> list[tuple[int, int, list[int]]]:
    """Pairs of classes that the best template confuses: true, predicted and which images."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for index, (true, predicted) in enumerate(
        zip(task.train.labels.tolist(), best.predicted.tolist(), strict=True)
    ):
        if true != predicted:
            pairs.setdefault((true, predicted), []).append(index)
    ranked = sorted(pairs.items(), key=lambda pair: -len(pair[1]))
    return [(true, predicted, where) for (true, predicted), where in ranked]


def confusions(best: Scored, task: Task, limit: int) -> list[str]:
    """The mistakes of the best template that several training images make."""
    names = [display_name(name) for name in task.classnames]
    return [
        f"{names[true]} is taken for {names[predicted]} ({len(where)} images)"
        for true, predicted, where in confused(best, task)
        if len(where) >= SEVERAL
    ][:limit]


def sheets(best: Scored, task: Task, limit: int) -> list[Picture]:
    """A contact sheet of training images for each of the most confused pairs of classes."""
    names = [display_name(name) for name in task.classnames]
    found = []
    for true, predicted, where in confused(best, task)[:limit]:
        images = [task.train.images[i].load() for i in where[:_MOST]]
        many = f"{len(images)} image{'s' * (len(images) > 1)}"
        caption = f"{many} of {names[true]}, taken for {names[predicted]}"
        found.append(Picture(contact_sheet(images), caption))
    return found


def contact_sheet(images: Sequence[PillowImage.Image]) -> bytes:
    """The images side by side as one JPEG of at most :data:`SHEET_BYTES`."""
    across = min(_ACROSS, len(images))
    down = -(-len(images) // across)
    sheet = PillowImage.new("RGB", (across * _TILE, down * _TILE), "white")
    for place, image in enumerate(images):
        small = image.convert("RGB")
        small.thumbnail((_TILE - 4, _TILE - 4))
        sheet.paste(small, (place % across * _TILE + 2, place // across * _TILE + 2))
    while True:
        for quality in (85, 60, 35, 15):
            buffer = io.BytesIO()
            sheet.save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= SHEET_BYTES:
                return buffer.getvalue()
        sheet = sheet.reduce(2)


def rejections(
    parsed: ParsedReply, known: Sequence[Template], dropped: Sequence[Template] = ()
) -> list[str]:
    """What is not among the results of a reply, each reason once."""
    first: dict[str, str] = {}
    count = Counter(rejection.reason for rejection in parsed.rejected)
    for one in parsed.rejected:
        more = count[one.reason] - 1
        also = f" (and {more} more like it)" if more else ""
        first.setdefault(one.reason, f"{one.text}: {one.message}{also}")
    told = list(first.values())[:REJECTED]
    for why, some in {
        "tried before": known,
        "clearly worse than the best on a few images": dropped,
    }.items():
        if some:
            texts = "; ".join(template.text for template in some[:REJECTED])
            rest = len(some) - REJECTED
            told.append(f"{why}: {texts}" + (f" and {rest} more" if rest > 0 else ""))
    return told


def wins_and_losses(results: Sequence[Scored], before: Scored, task: Task) -> list[str]:
    """What the best of a turn's templates gets right that the best before it did not."""
    if not results:
        return []
    best = max(results, key=lambda one: one.rank)
    won, lost = best.correct & ~before.correct, before.correct & ~best.correct
    told = [
        f"{verb} {images} image{'s' * (images > 1)} ({_classes(which, task)})"
        for verb, which in (("wins", won), ("loses", lost))
        if (images := int(which.sum()))
    ]
    what = " and ".join(told) or "is right on the same images"
    return [f'The best of them, "{best.template.text}", {what}.']


def _classes(images: np.ndarray[tuple[int], np.dtype[np.bool_]], task: Task, limit: int = 6) -> str:
    names = list(dict.fromkeys(display_name(task.classnames[k]) for k in task.train.labels[images]))
    return ", ".join(names[:limit]) + (" …" if len(names) > limit else "")
