"""Class descriptions: what each class looks like, beside the template.

A language model writes captions of each class, or a file holds them (CuPL: Pratt et al., ICCV 2023;
DCLIP: Menon and Vondrick, ICLR 2023; MPVR: Mirza et al., ECCV 2024; ProAPO: Qu et al., CVPR 2025).
A class is then the weighted mean of its template and its descriptions; how much they count, and for
which classes, the few shots decide (:mod:`llmopt.search.text.weighing`). They replace the template
only where that convinces.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from annotated_types import Ge, Le

from llmopt.data.descriptions import Descriptions, read_descriptions
from llmopt.errors import BudgetExhausted, ConfigError
from llmopt.predictor import single
from llmopt.resources import read_prompt
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.text.describing import LONGEST, contrast, describe
from llmopt.search.text.selection import second_look
from llmopt.search.text.weighing import Chosen, Shots
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.spend.events import Progress
from llmopt.stats import log_likelihoods
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox


@dataclass(frozen=True)
class DescribeSettings(Settings):
    """Settings of every form of ``describe``.

    Attributes:
        most: descriptions of a class that are used.
    """

    most: Annotated[int, Ge(1), Le(1000)] = 60


@dataclass(frozen=True)
class AskedSettings(DescribeSettings):
    """Settings of ``describe`` where a language model is asked.

    Attributes:
        captions: of each class.
        batch: classes a call.
        contrast: pairs of classes that stay confused, for which captions are asked for once more.
    """

    captions: Annotated[int, Ge(1), Le(100)] = 12
    batch: Annotated[int, Ge(1), Le(50)] = 8
    contrast: Annotated[int, Ge(0), Le(50)] = 4


@dataclass(frozen=True)
class FiledSettings(DescribeSettings):
    """Settings of ``describe`` where a file holds the descriptions.

    Attributes:
        file: in one of the shapes of :mod:`llmopt.data.descriptions`.
    """

    file: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.file:
            raise ConfigError("profile 'file' of 'describe' needs a file: --descriptions FILE")


D = TypeVar("D", bound=DescribeSettings)


class Describing(Optimizer[D]):
    """Class descriptions, weighed on the shots; a form says where they come from."""

    name = "describe"
    FORMS: ClassVar = {
        "asked": "llmopt.search.text.describe:Asked",
        "file": "llmopt.search.text.describe:Filed",
    }
    access = Access.SCORES

    @abstractmethod
    def written(self, search: Search, counts: Counter[str]) -> list[list[str]]:
        """K lists of whole prompts that describe the classes.

        Raises:
            BudgetExhausted: what was written so far is lost to this run.
        """

    def again(
        self, search: Search, shots: Shots, chosen: Chosen, counts: Counter[str]
    ) -> dict[int, list[str]]:
        """More of them by label, once it is known what is confused."""
        return {}

    @abstractmethod
    def per_class(self, task: Task) -> int:
        """Prompts of a class, its template apart, at most."""

    def bounds(self, task: Task) -> Spend:
        """The template and every description, on training and validation images."""
        images, classes = len(task.train) + len(task.val), len(task.classnames)
        prompts = classes * (1 + self.per_class(task))
        return Spend(
            image_encodings=images,
            text_encodings=prompts + second_look(task, 1 + self.per_class(task)),
            pairs_scored=prompts * images,
        )

    def ensemble(self, task: Task) -> int:
        """The template and its descriptions."""
        return 1 + self.per_class(task)

    def run(self, search: Search) -> Outcome:
        """Write, weigh, and go back where that is better."""
        task, counts, reason = search.task, Counter[str](), "iterations"
        shots = Shots.of(search)
        start = single(task.start, task.classnames)
        try:
            before = chosen = shots.plain(search)
        except BudgetExhausted as spent:
            return Outcome(start, spent.stop_reason, True)
        try:
            prompts = self.fitting(search, self.written(search, counts), counts)
            chosen = shots.weigh(search, prompts, before)
            self.report(search, chosen, shots)
            more = self.again(search, shots, chosen, counts)
            if any(more.values()):
                prompts = [[*own, *more.get(k, [])] for k, own in enumerate(prompts)]
                chosen = shots.weigh(search, self.fitting(search, prompts, counts), before)
                self.report(search, chosen, shots)
        except BudgetExhausted as spent:
            reason = spent.stop_reason
        counts["classes_described"] = chosen.described
        result = (shots.result(task, before.logits),)
        if chosen is before:
            return Outcome(start, reason, True, result, dict(counts))
        accuracies = shots.accuracies(chosen.logits)
        return Outcome(
            chosen.predictor(task), reason, False, result, dict(counts), accuracies=accuracies
        )

    def fitting(
        self, search: Search, prompts: list[list[str]], counts: Counter[str]
    ) -> list[list[str]]:
        """Those that the model has room for, as many as are used; the rest is counted."""
        fit = [[one for one in own if search.box.fits(one)] for own in prompts]
        used = [own[: self.settings.most] for own in fit]
        whole, fitting, scored = (sum(map(len, lists)) for lists in (prompts, fit, used))
        counts |= {"too_long": whole - fitting, "not_used": fitting - scored, "scored": scored}
        return used

    def report(self, search: Search, chosen: Chosen, shots: Shots) -> None:
        """Tell where it stands."""
        train, val = shots.accuracies(chosen.logits)
        score = float(log_likelihoods(chosen.logits, shots.images.labels).mean())
        said = f"{search.task.start.text} ({chosen.described} classes described)"
        search.on_progress(Progress(1, 1, said, train, val, score))


class Asked(Describing[AskedSettings]):
    """A language model describes the classes."""

    form = "asked"
    Settings = AskedSettings
    needs_chat = True
    needs_knowledge = True

    def bounds(self, task: Task) -> Spend:
        """Each class asked for twice, and the confused pairs once."""
        s = self.settings
        calls = 2 * -(-len(task.classnames) // s.batch) + bool(s.contrast)
        return super().bounds(task) + Spend(llm_calls=calls)

    def per_class(self, task: Task) -> int:
        """Captions, and those of its confusions."""
        s = self.settings
        return min(s.most, s.captions + (s.captions if s.contrast else 0))

    def talk(self, task: Task) -> tuple[int, int]:
        """One turn at a time."""
        wording = len(read_prompt("describe/first.txt")) + len(read_prompt("describe/contrast.txt"))
        return 1, wording + 12 * sum(len(name.encode()) + 4 for name in task.classnames) + LONGEST

    def written(self, search: Search, counts: Counter[str]) -> list[list[str]]:
        """What the model says of each class."""
        s, names = self.settings, search.task.classnames
        found = describe(search, range(len(names)), s.captions, s.batch, counts)
        return [found.get(k, []) for k in range(len(names))]

    def again(
        self, search: Search, shots: Shots, chosen: Chosen, counts: Counter[str]
    ) -> dict[int, list[str]]:
        """What tells the classes apart that are confused most."""
        pairs = shots.confused(chosen.logits, self.settings.contrast)
        return contrast(search, pairs, self.settings.captions, counts) if pairs else {}


class Filed(Describing[FiledSettings]):
    """A file describes the classes."""

    form = "file"
    Settings = FiledSettings
    names: tuple[str, ...] = ()

    def of(self, names: Sequence[str]) -> Filed:
        """The same for classes that the file knows by other names than a task has for them.

        Args:
            names: K, in label order.
        """
        filed = Filed(self.settings)
        filed.names = tuple(names)
        return filed

    def per_class(self, task: Task) -> int:
        """As many as the file has of any class."""
        return min(self.settings.most, max(map(len, self._read(task).texts)))

    def check(self, box: BlackBox, task: Task) -> None:
        """Read the file, too."""
        super().check(box, task)
        self._read(task)

    def written(self, search: Search, counts: Counter[str]) -> list[list[str]]:
        """What stands in it."""
        task = search.task
        read = self._read(task)
        prompts = read.prompts(task.start, task.classnames)
        counts["proposals"] = sum(map(len, prompts))
        counts["not_described"] = sum(not own for own in prompts)
        counts["of_other_classes"] = read.others
        search.event("descriptions", shape=read.shape, phrases=read.phrases, counts=dict(counts))
        return prompts

    def _read(self, task: Task) -> Descriptions:
        names = self.names or task.classnames
        return read_descriptions(Path(self.settings.file), names, task.classnames)
