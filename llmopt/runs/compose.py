"""From options to everything a run needs: the one place that resolves names and reads data.

A :class:`~llmopt.runs.config.RunConfig` says what is wanted in names; objects made in Python may
stand in for some of them (:class:`Given`). :func:`compose` turns both into a :class:`Setup`, and
what comes after it never looks at the config again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmopt.data.base import Dataset, ListedDataset, Which
from llmopt.data.registry import about_dataset, open_dataset
from llmopt.data.soundness import Findings, examine
from llmopt.data.tasks import fewer, make_task, open_test
from llmopt.errors import AccessError, ConfigError
from llmopt.heads.predictor import head_names, heads_for
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig, optimizer_of
from llmopt.runs.model import FoundOut, ModelChoice
from llmopt.runs.whole import whole
from llmopt.search import OPTIMIZERS, make_optimizer
from llmopt.search.base import Optimizer
from llmopt.spend.events import Watch
from llmopt.spend.files import default_cache_dir
from llmopt.spend.ledger import Caps
from llmopt.task import Labelled, Task, TestSet
from llmopt.template import PLAIN, Template, clean
from llmopt.vision.base import BlackBox
from llmopt.vision.boxes import LOCAL, split_tag
from llmopt.vision.feature_cache import FeatureCache
from llmopt.vision.precision import settle

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from llmopt.language.llm import Llm

OBJECT: Final = "python:"
"""What the name of an object begins with in a config; it has to be given again to go on."""


LONGEST_ABOUT: Final = 2_000
"""Characters of what a language model is told of the pictures."""


@dataclass(frozen=True)
class Given:
    """Objects in place of names.

    Attributes:
        task: in place of ``dataset``.
        optimizer: in place of ``optimizer`` and ``settings``.
        box: in place of ``model``, or the config's own model where it is open already.
        llm: in place of ``llm``.
    """

    task: Task | None = None
    optimizer: Optimizer[Any] | None = None
    box: BlackBox | None = None
    llm: BaseChatModel | None = None

    def named_in(self, config: RunConfig) -> RunConfig:
        """The config with a name for each object."""
        changes: dict[str, Any] = {}
        if self.task is not None:
            changes["dataset"] = f"{OBJECT}{self.task.dataset}"
        if self.box is not None:
            changes["model"] = f"{OBJECT}{self.box.info.name}"
        if self.llm is not None:
            changes["llm"] = f"{OBJECT}{type(self.llm).__name__}"
        if self.optimizer is not None:
            changes |= _named(self.optimizer)
        return dataclasses.replace(config, **changes)


@dataclass(frozen=True)
class Setup:
    """A run that can start: everything is found and fits together, nothing is spent.

    Attributes:
        config: with every default filled in, as the run folder keeps it.
        task: class names and few shots.
        dataset: whose test images, if it has any, measure the run.
        optimizer: the search.
        model: the black box, not open yet.
        llm: the language model, not open yet; None if the search asks none.
        heads: tried after the search.
        head_views: augmented views of each training image for them.
        caps: what may not be passed.
        skip_unreadable: leave damaged test images out.
        precision_why: what decided the precision, where nobody asked for one.
        baselines: ensembles that are measured on the test images too, as the option names them.
        asked: options as they were before values of theirs were found out of the black box.
        found_out: what that found, and took.
    """

    config: RunConfig
    task: Task
    dataset: Dataset
    optimizer: Optimizer[Any]
    model: ModelChoice
    llm: Llm | None
    heads: tuple[str, ...]
    head_views: int
    caps: Caps
    skip_unreadable: bool = False
    precision_why: str = ""
    baselines: str = "auto"
    asked: Mapping[str, Any] = field(default_factory=dict)
    found_out: FoundOut = field(default_factory=FoundOut)

    @property
    def name(self) -> str:
        """What the optimizer was asked for as, which may be an alias."""
        return self.config.optimizer.removeprefix(OBJECT)

    def open_box(self, watch: Watch) -> BlackBox:
        """The black box, if it offers what the optimizer and a head need.

        Raises:
            AccessError: it offers less; the message names the optimizers that would work.
        """
        box = self.model.open(watch)
        if box.info.access < self.optimizer.access:
            fitting = [
                n for n, kind in OPTIMIZERS.usable().items() if kind.access <= box.info.access
            ]
            raise AccessError(
                f"optimizer '{self.optimizer.name}' needs access level '{self.optimizer.access}', "
                f"but {box.info.name} offers '{box.info.access}'; with it you can use: "
                f"{', '.join(fitting)}"
            )
        heads_for(self.heads, box.info)
        return box

    def settled(self, watch: Watch) -> Setup:
        """With the black box open, in the precision that ``auto`` comes to after a closer look.

        For the beginning of a run. Where that is another than the rule's, the config keeps it: who
        goes on with the run, or takes up what it found, computes in the precision it began with.
        """
        config, model, why, asked = self.config, self.model, "", self.asked
        box, about = self.open_box(watch), self.found_out
        if model.address and not about.settings:
            about = model.found_out(box, self.task, self.caps, watch)
            if found := about.settings:
                model = model.knowing(found)
                box, settings = model.open(watch), config.blackbox_settings
                asked = {"blackbox_settings": settings}
                config = dataclasses.replace(config, blackbox_settings={**settings, **found})
        if self.model.undecided and box.info.precision == "fp32":
            watch.stage("looking whether bf16 predicts as fp32")
            other = dataclasses.replace(self.model, precision="bf16")
            features = FeatureCache(default_cache_dir(), watch.images, watch.warn)
            box, why = settle(box, lambda: other.open(watch), self.task, features)
            watch.note(f"precision {why}")
            if box.info.precision == other.precision:
                config = dataclasses.replace(config, precision=other.precision)
        model = dataclasses.replace(model, box=box)
        return dataclasses.replace(
            self, config=config, model=model, precision_why=why, asked=asked, found_out=about
        )

    @cached_property
    def findings(self) -> Findings:
        """What is odd about the task or about this search on it, before anything is spent.

        Raises:
            DatasetError: images of it cannot be used.
        """
        found = examine(
            self.dataset, self.task.train, self.task.val, skip_unreadable=self.skip_unreadable
        )
        notes = (*found.notes, *self.optimizer.remarks(self.task))
        return dataclasses.replace(found, notes=notes)

    def open_test(self) -> tuple[TestSet | None, int]:
        """The test images, and how many were left out; for the end of a run, once."""
        if not len(self.dataset.split("test")):
            return None, 0
        test = open_test(self.dataset, skip_unreadable=self.skip_unreadable)
        return test, len(self.dataset.split("test")) - len(test)


def compose(config: RunConfig, given: Given | None = None) -> Setup:
    """Everything a run needs. Opens no model and spends nothing.

    Args:
        config: what is wanted.
        given: objects in place of some of its names.

    Raises:
        UserError: something is unknown, missing or does not fit.
    """
    given = given or Given()
    _all_given(
        {
            "task": (config.dataset, given.task),
            "optimizer": (config.optimizer, given.optimizer),
            "model": (config.model, given.box),
            "llm": (config.llm, given.llm),
        }
    )
    config = config.resolved()
    optimizer = given.optimizer or optimizer_of(config)
    head = config.head or optimizer.head
    heads = head_names(head) if head else ()
    if optimizer.full_precision and config.precision == "auto":
        config = dataclasses.replace(config, precision="full")
    llm = None
    if optimizer.needs_chat:
        llm = _llm(config, given.llm)
        if optimizer.needs_knowledge and llm.spec == "builtin":
            raise ConfigError(
                f"'{optimizer.name}' asks what classes look like, which the built-in rewriter does "
                "not know: choose a language model with --llm, or give --descriptions FILE",
                docs="descriptions",
            )
        config = dataclasses.replace(config, llm=llm.spec)
    model = choose_model(config, given.box)
    paid = [one for one in (llm, model) if one is not None]
    # A cap holds what has a price; what has none refuses it where nothing else could keep it.
    priced = [one for one in paid if one.cap_on_usd(None) is not None]
    caps = [one.cap_on_usd(config.max_usd) for one in priced or paid]
    max_usd = next((cap for cap in caps if cap is not None), None)
    config = dataclasses.replace(config, max_usd=max_usd)
    if config.init_from:
        config = _from_found(config)
    start = Template(config.template)
    if given.task is not None:
        dataset: Dataset = _dataset_of(given.task)
        task = dataclasses.replace(
            fewer(given.task, config.shots, config.seed), seed=config.seed, start=start, test=None
        )
    else:
        dataset = choose_dataset(config)
        task = make_task(
            dataset, config.shots, config.seed, start, skip_unreadable=config.skip_unreadable
        )
    task = dataclasses.replace(task, about=_about(config, task))
    config = whole(config, optimizer, None if llm is None or llm.free else llm.settings, task.about)
    return Setup(
        config,
        task,
        dataset,
        optimizer,
        model,
        llm,
        heads,
        config.head_views,
        config.caps,
        config.skip_unreadable,
        baselines=config.baselines,
    )


def _about(config: RunConfig, task: Task) -> str:
    """What is told of the pictures.

    Raises:
        ConfigError: it is far too long, as it is sent with every question.
    """
    about = clean(config.about) or task.about or about_dataset(config.dataset)
    if len(about) > LONGEST_ABOUT:
        raise ConfigError(
            f"about has {len(about):,} characters, and is sent with every question; say what the "
            f"pictures are in {LONGEST_ABOUT:,}"
        )
    return about


def choose_model(config: RunConfig, box: BlackBox | None = None) -> ModelChoice:
    """The black box of a config; ``box`` if that is open already."""
    _all_given({"model": (config.model, box)})
    config = config.resolved()
    model, pretrained, address = config.model, config.pretrained, config.blackbox
    if address.startswith(LOCAL) and address != LOCAL:
        model, pretrained = split_tag(address.removeprefix(LOCAL))
        address = ""
    return ModelChoice(
        model,
        pretrained,
        address,
        config.blackbox_settings,
        config.device,
        config.precision,
        config.decoder,
        config.batch_size,
        box,
    )


def choose_dataset(config: RunConfig, task: Task | None = None) -> Dataset:
    """The data set of a config, under the class names it asks for; that of ``task``, if given.

    Raises:
        ConfigError: the task has no test images, or is missing.
        DatasetError: there is no such data set, or it is not complete.
    """
    if task is not None:
        if task.test is None:
            raise ConfigError(f"task '{task.dataset}' has no test images; give it some with test=")
        return _dataset_of(task)
    _all_given({"task": (config.dataset, None)})
    names = {"classnames": config.classnames} if config.classnames else {}
    return open_dataset(config.dataset, Path(config.resolved().data_root), **names)


def _all_given(wanted: Mapping[str, tuple[str, object]]) -> None:
    """Refuse names of objects that are not here.

    Args:
        wanted: by argument, the name in the config and the object, or None.

    Raises:
        ConfigError: all that are missing are named.
    """
    missing = {
        argument: name
        for argument, (name, there) in wanted.items()
        if name.startswith(OBJECT) and there is None
    }
    if missing:
        listed = ", ".join(f"{argument}= ({name})" for argument, name in missing.items())
        raise ConfigError(
            f"this run was made in Python with objects that have no name; give them again: {listed}"
        )


def _llm(config: RunConfig, model: BaseChatModel | None) -> Llm:
    from llmopt.language.llm import Llm, choose_llm
    from llmopt.language.settings import LlmSettings

    if model is None:
        # The drawn tasks are there to try the tool, which must not cost anything by accident.
        drawn = config.dataset.startswith("shapes-")
        return choose_llm(config.llm, config.llm_base_url, config.llm_settings, only_free=drawn)
    settings = LlmSettings.make(config.llm_settings, "the settings of the chat model")
    return Llm(config.llm, settings=settings, model=model)


def _named(optimizer: Optimizer[Any]) -> dict[str, Any]:
    """An optimizer as options of a config, if it is one of the registry."""
    name, settings = optimizer.name, optimizer.as_given()
    if name in OPTIMIZERS:
        same = make_optimizer(name, settings)
        if type(same) is type(optimizer) and same.settings == optimizer.settings:
            return {"optimizer": name, "settings": settings}
    return {"optimizer": f"{OBJECT}{name}"}


def _dataset_of(task: Task) -> Dataset:
    """A task's own test images, if it has any, as the data set that measures it."""
    parts: Mapping[Which, Labelled] = {"test": task.test} if task.test is not None else {}
    names = task.classnames
    return ListedDataset(task.dataset, names, names, parts, task.provenance, task.handcrafted)


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
