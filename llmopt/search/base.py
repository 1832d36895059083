"""What an optimizer is given and what it leaves behind."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from llmopt.errors import ConfigError
from llmopt.predictor import Predictor
from llmopt.spend.currency import Spend
from llmopt.spend.events import Progress
from llmopt.task import Task
from llmopt.template import Template
from llmopt.vision.base import Access

if TYPE_CHECKING:
    from llmopt.language.metered import MeteredChat
    from llmopt.spend.checkpoint import Checkpoints
    from llmopt.spend.journal import Journal
    from llmopt.spend.ledger import Ledger
    from llmopt.vision.base import BlackBox
    from llmopt.vision.metered import MeteredBox


LANGUAGE_MODEL: Final = "the language model"
"""A template's source: it was asked for."""
NOTHING_LEFT: Final = "nothing left to gain"
"""Why a search stops: every image is right, and sure."""


@dataclass
class Search:
    """Everything an optimizer may touch.

    Attributes:
        task: class names and few shots; no handle on test images.
        box: the metered black box.
        chat: the metered chat model, or None.
        seed: root of all randomness.
        journal: where :meth:`event` writes.
        ledger: for reading only; optimizers never count.
        checkpoints: where long searches keep their state.
        on_progress: told where the search stands.
    """

    task: Task
    box: MeteredBox
    chat: MeteredChat | None
    seed: int
    journal: Journal
    ledger: Ledger
    checkpoints: Checkpoints
    on_progress: Callable[[Progress], None] = field(default=lambda progress: None)

    def rng(self, *path: str | int) -> np.random.Generator:
        """An independent generator for each path below the run's seed."""
        spawn = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=tuple(spawn)))

    def event(self, kind: str, stream: str = "main", **data: Any) -> bool:
        """Journal a step; false if this run wrote it already, before it was resumed."""
        return self.journal.event(kind, stream, **data)

    def save(self, tensors: Mapping[str, npt.NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Keep the whole state of a long search, so that a resumed run goes on from here.

        Args:
            tensors: arrays by name.
            state: anything JSON can hold (generator states included).
        """
        self.checkpoints.save(tensors, json.dumps(dict(state)))

    def restore(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None:
        """The state kept last, ledger and journal set back to that point; None at the start."""
        kept = self.checkpoints.restore()
        return None if kept is None else (kept[0], json.loads(kept[1]))


@dataclass(frozen=True)
class TemplateResult:
    """A template as it stands in results.

    Attributes:
        text: the template.
        weight: its share in the predictor; 0 for a runner-up.
        train_accuracy, val_accuracy: fractions; None where there were no such images.
        train_logprob: mean log-likelihood of the true class on the training images, nats.
    """

    text: str
    weight: float
    train_accuracy: float
    train_logprob: float
    val_accuracy: float | None


@dataclass(frozen=True)
class Outcome:
    """What a search ends with.

    Attributes:
        predictor: images in, class scores out.
        stop_reason: ``iterations``, ``budget: llm_calls``, ``interrupted`` …
        fallback: nothing was convincingly better than the start, so the start was kept.
        templates: text prompts worth knowing, the predictor's own first.
        summary: counts worth showing (proposals scored, duplicates, malformed …).
        accuracies: of the predictor on training and validation images, where the search knows them;
            the second is None without validation images.
        tried: anything but the start was scored; the engine sees to it.
        why: this predictor and no other, as a sentence for people.
        source: where its template comes from, such as ``the language model``; empty if it is plain.
        before: what would have been chosen had no language model been asked; None where none was.
        front: templates that together do best if each image may choose its own, the best first; for
            a search that goes on from here.
    """

    predictor: Predictor
    stop_reason: str = "iterations"
    fallback: bool = False
    templates: tuple[TemplateResult, ...] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    accuracies: tuple[float, float | None] | None = None
    tried: bool = True
    why: str = ""
    source: str = ""
    before: Predictor | None = None
    front: tuple[Template, ...] = ()

    def after(self, stage: Stage) -> Mapping[str, Any]:
        """The summary of a search in stages with one more; of another, as it is."""
        if "stages" not in self.summary:
            return self.summary
        return {**self.summary, "stages": [*self.summary["stages"], stage.to_json()]}


@dataclass(frozen=True)
class Stage:
    """What a stage of a search in several stages came to.

    Attributes:
        name: of the stage.
        kept: what it found was taken.
        why: it was kept, or not, or left out.
        gain, se: in log-likelihood of the few shots over what was known before, nats an image, and
            its standard error; None where nothing was found, or that is not known.
        accuracies: on the few shots, before and after; fractions; None likewise.
        spent: what it cost, by currency.
    """

    name: str
    kept: bool
    why: str
    gain: float | None = None
    se: float | None = None
    accuracies: tuple[float, float] | None = None
    spent: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a result's summary holds it."""
        return {
            "name": self.name,
            "kept": self.kept,
            "why": self.why,
            "gain_nats": self.gain if self.gain is None else round(self.gain, 6),
            "se": self.se if self.se is None else round(self.se, 6),
            "accuracy": None if self.accuracies is None else list(self.accuracies),
            "spent": dict(self.spent),
        }


S = TypeVar("S")


class Optimizer(ABC, Generic[S]):
    """One algorithm with its settings.

    A method that has several forms, such as ours and the published one, has a class for each; they
    share a ``name``, and ``--set profile=FORM`` chooses among them.

    Args:
        settings: an instance of :attr:`Settings`; None takes the defaults.
        given: single settings by name, in place of ``settings``; texts are converted.

    Class attributes:
        name: what users type.
        form: the profile's name; empty where the method has one form only.
        FORMS: profile to ``module:class``, the default first; empty likewise. The same in every
            form.
        access: the least a black box must offer.
        needs_chat: whether it talks to a language model.
        needs_knowledge: whether it asks what only a real one knows, and the built-in rewriter does
            not.
        Settings: a frozen dataclass; its fields are what ``--set KEY=VALUE`` takes.
        HEADLESS: settings that turn its own head off, if it has one.
        full_precision: whether its steps are too small for a model that computes in half precision.
        starts_at_template: whether a soft prompt begins as the words of the task's start template.
        head: the head that follows it where ``--head`` names none, such as ``auto``.
    """

    name: ClassVar[str]
    form: ClassVar[str] = ""
    FORMS: ClassVar[Mapping[str, str]] = {}
    access: ClassVar[Access] = Access.LABELS
    needs_chat: ClassVar[bool] = False
    needs_knowledge: ClassVar[bool] = False
    Settings: ClassVar[type[Any]]
    HEADLESS: ClassVar[Mapping[str, Any]] = {}
    full_precision: ClassVar[bool] = False
    starts_at_template: ClassVar[bool] = False
    head: ClassVar[str] = ""

    def __init__(self, settings: S | None = None, **given: Any) -> None:
        if settings is not None and given:
            raise TypeError(f"{type(self).__name__} takes settings, or single ones, not both")
        self.settings: S = self.make_settings(given) if settings is None else settings

    @classmethod
    def make_settings(cls, given: Mapping[str, Any]) -> Any:
        """Settings from names and values, which may be texts.

        Raises:
            ConfigError: an unknown name (the nearest is suggested), the name of a setting that only
                other forms have (they are named), another form's profile, or a wrong value.
        """
        own, given = {f.name for f in fields(cls.Settings)}, dict(given)
        if cls.FORMS and (form := given.pop("profile", cls.form)) != cls.form:
            raise ConfigError(
                f"{cls.__name__} is the profile '{cls.form}' of '{cls.name}'; for '{form}' use "
                f"llmopt.search.make_optimizer('{cls.name}', {{'profile': '{form}'}})"
            )
        for name in given:
            works_in = [] if name in own else cls._forms_with(name)
            if works_in:
                raise ConfigError(
                    f"setting {name}={given[name]} does nothing in the profile '{cls.form}' of "
                    f"'{cls.name}'; it works in: {', '.join(works_in)} (--set profile=NAME)"
                )
        return cls.Settings.make(given, f"the settings of '{cls.name}'")

    @classmethod
    def _forms_with(cls, setting: str) -> list[str]:
        return [
            form
            for form, where in cls.FORMS.items()
            if setting in {f.name for f in fields(resolve_name(where).Settings)}
        ]

    def as_given(self) -> dict[str, Any]:
        """The settings as ``--set`` takes them, the profile among them, for configs and results."""
        profile = {"profile": self.form} if self.form else {}
        settings: Any = self.settings
        return {**profile, **asdict(settings)}

    @abstractmethod
    def bounds(self, task: Task) -> Spend:
        """Upper bounds of what it looks at and asks, before anything is spent.

        Each image and each prompt counts once, as a box that gives features gets them; what another
        box gets is worked out from that (:mod:`llmopt.runs.bounds`).
        """

    def parts(self, task: Task) -> Mapping[str, Spend]:
        """The bounds of each of its stages by name; empty for a search that has none."""
        return {}

    def ensemble(self, task: Task) -> int:
        """Text templates in the predictor it ends with, at most."""
        return 1

    def compared(self, task: Task) -> int:
        """Text templates in another predictor that is measured beside it, at most; 0 for none."""
        return 0

    def remarks(self, task: Task) -> tuple[str, ...]:
        """What people should know of a search on this task, before anything is spent."""
        return ()

    def check(self, box: BlackBox, task: Task) -> None:
        """Refuse what the model has no room for, before anything is spent.

        Raises:
            UserError: it names what is too long, or the precision that is too low.
        """
        if self.full_precision and box.half:
            raise ConfigError(
                f"profile '{self.form}' of '{self.name}' takes differences that drown in half "
                f"precision, in which {box.info.name} computes; use --precision full",
                docs="devices",
            )
        box.check(task.start, task.classnames)

    def talk(self, task: Task) -> tuple[int, int]:
        """Turns of a conversation, and bytes of the longest turn; (0, 0) without a chat model."""
        return 0, 0

    @abstractmethod
    def run(self, search: Search) -> Outcome:
        """Search until done, or until a cap or Ctrl-C ends it, and return the best so far."""
