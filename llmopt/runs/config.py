"""Everything needed to repeat a run, read from flags and files and kept as ``config.toml``.

A field of :class:`RunConfig` is written once: its annotation holds the type, the help, the panel
and the range, and from it come the options of ``run``, ``plan`` and ``compare``, validation and the
JSON schema. Heavy imports wait until they are needed: ``llmopt --help`` reads this file.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_type_hints

from llmopt.errors import ConfigError
from llmopt.settings import Settings
from llmopt.template import PLAIN, Template

if TYPE_CHECKING:
    from llmopt.search.base import Optimizer
    from llmopt.spend.ledger import Caps

PAPER_MODEL = ("RN50-quickgelu", "openai")
"""The backbone the papers use."""

DESCRIBED: Final[Mapping[str, Mapping[str, str]]] = {"auto": {}, "describe": {"profile": "file"}}
"""The optimizers that ``descriptions`` is for, and what else that sets."""

PANELS = TASK, SEARCH, MODEL, LLM, LIMITS, OUTPUT = (
    "Task", "Search", "Black box", "Language model", "Hard caps", "Output",
)  # fmt: skip
"""Panels of help pages, in order."""


@dataclass(frozen=True)
class Option:
    """What a field of :class:`RunConfig` is on the command line.

    It is a group of annotations in the sense of annotated_types, so that pydantic reads its range.

    Attributes:
        help: one sentence.
        panel: of the help page.
        flag: the long option; by default the field's name.
        default: what holds where nothing is given, if that is not the field's default.
        path: a file or folder.
        ge: the least value allowed.
        free: it may change while a run is under way: it does not decide where the search goes, or
            people may choose to go on with another.
    """

    help: str
    panel: str
    flag: str = ""
    default: str = ""
    path: bool = False
    ge: int | None = None
    free: bool = False

    __is_annotated_types_grouped_metadata__ = True

    def __iter__(self) -> Iterator[object]:
        if self.ge is not None:
            from annotated_types import Ge

            yield Ge(self.ge)


Given = Mapping[str, str | int | float | bool | None]
"""Settings by name, as texts or values."""


@dataclass(frozen=True)
class RunConfig(Settings):
    """One run. Field names are the long options with underscores.

    Raises:
        ConfigError: a value is of a wrong type or out of range, or two options exclude each other.
        TemplateError: the template has not exactly one ``{}``.
    """

    dataset: Annotated[
        str, Option("Registry key, folder:PATH, csv:PATH, wds:PATH, hub:ORG/NAME.", TASK)
    ] = "shapes-small"
    classnames: Annotated[
        str, Option("A name set (coop, openai) or a file of class names.", TASK)
    ] = ""
    shots: Annotated[int, Option("Labelled training images a class.", TASK, ge=1)] = 1
    seed: Annotated[int, Option("Few-shot sample and every random choice.", TASK, ge=0)] = 1
    template: Annotated[str, Option("The start, which every result is measured against.", TASK)] = (
        PLAIN
    )
    about: Annotated[
        str, Option("What the pictures show, for the LLM.", TASK, default="the registry's")
    ] = ""
    optimizer: Annotated[str, Option("chat, describe, random, zeroshot, handcrafted …", SEARCH)] = (
        "chat"
    )
    settings: Annotated[
        Given, Option("A setting of the optimizer, KEY=VALUE; repeatable.", SEARCH, "--set")
    ] = field(default_factory=dict)
    model: Annotated[
        str,
        Option(
            "open_clip name, local-dir:PATH, hf-hub:ORG/NAME or shapes-tiny.",
            MODEL,
            default="shapes-tiny for shapes tasks, else RN50-quickgelu openai",
        ),
    ] = ""
    pretrained: Annotated[str, Option("open_clip weight tag, or a file.", MODEL)] = ""
    blackbox: Annotated[
        str, Option("A remote black box instead: a URL, or KIND:ADDRESS.", MODEL)
    ] = ""
    blackbox_settings: Annotated[
        Given, Option("A setting of that box, KEY=VALUE; repeatable.", MODEL, "--blackbox-set")
    ] = field(default_factory=dict)
    device: Annotated[str, Option("cpu, cuda …", MODEL)] = "auto"
    precision: Annotated[
        str,
        Option("full, fp64, fp32, fp16, bf16.", MODEL, default="auto: see llmopt docs devices"),
    ] = "auto"
    decoder: Annotated[str, Option("Of images: pillow, or nvjpeg, the card's own.", MODEL)] = (
        "pillow"
    )
    batch_size: Annotated[
        int | None, Option("Images at a time.", MODEL, default="auto", ge=1, free=True)
    ] = None
    llm: Annotated[
        str,
        Option(
            "builtin, openai:MODEL, provider:MODEL, replay:FILE.",
            LLM,
            default="$LLMOPT_LLM, else openai if a key is set (not for shapes tasks), else builtin",
            free=True,
        ),
    ] = ""
    llm_base_url: Annotated[
        str, Option("An OpenAI-compatible server (Ollama, vLLM …).", LLM, free=True)
    ] = ""
    llm_settings: Annotated[
        Given, Option("A setting of the model, KEY=VALUE (temperature …).", LLM, "--llm-set")
    ] = field(default_factory=dict)
    max_llm_calls: Annotated[
        int | None, Option("Calls to the language model.", LIMITS, ge=0, free=True)
    ] = None
    max_tokens: Annotated[
        int | None, Option("Its tokens, in and out together.", LIMITS, ge=0, free=True)
    ] = None
    max_usd: Annotated[
        float | None, Option("US dollars.", LIMITS, default="1.00 if it is paid", ge=0, free=True)
    ] = None
    max_queries: Annotated[
        int | None, Option("Prompts encoded by the black box.", LIMITS, ge=0, free=True)
    ] = None
    max_seconds: Annotated[
        float | None, Option("Seconds of searching.", LIMITS, ge=0, free=True)
    ] = None
    max_images: Annotated[
        int | None,
        Option("Images encoded by the black box, each time it gets one.", LIMITS, ge=0, free=True),
    ] = None
    max_pairs: Annotated[
        int | None, Option("Pairs of image and prompt.", LIMITS, ge=0, free=True)
    ] = None
    max_box_calls: Annotated[
        int | None,
        Option("Calls to the black box: requests, if it is remote.", LIMITS, ge=0, free=True),
    ] = None
    head: Annotated[
        str,
        Option(
            "Fit a head after the search, if it convinces: auto, bias, ridge, gda, tip, tip-f, "
            "adapter, residual, map (of answers in words), or several with commas.",
            SEARCH,
        ),
    ] = ""
    head_views: Annotated[
        int, Option("Augmented views of each training image for the head.", SEARCH, ge=0)
    ] = 0
    descriptions: Annotated[
        str,
        Option("A file that describes the classes, for auto and describe.", SEARCH, path=True),
    ] = ""
    init_from: Annotated[str, Option("Start at the best template of this run folder.", SEARCH)] = ""
    baselines: Annotated[
        Literal["auto", "none", "subset", "all"],
        Option(
            "Measure CLIP's ensembles of 7 (subset) and 80 templates (all) on the test images too.",
            TASK,
            default="auto: all, but behind a box that is paid for what it receives",
            free=True,
        ),
    ] = "auto"
    skip_unreadable: Annotated[
        bool, Option("Leave damaged images out; they are counted.", TASK, free=True)
    ] = False
    data_root: Annotated[
        str,
        Option("Where data sets lie.", TASK, default="$LLMOPT_DATA or data/", path=True, free=True),
    ] = ""
    runs: Annotated[str, Option("Where run folders go.", OUTPUT, path=True, free=True)] = "runs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_views and not self.head:
            raise ConfigError(f"--head-views {self.head_views} is for a head; give --head too")
        if self.blackbox and (self.model or self.pretrained):
            raise ConfigError("give either --blackbox or --model, not both")
        if self.blackbox_settings and not self.blackbox:
            raise ConfigError("--blackbox-set is for a --blackbox; give that too")
        if self.llm_base_url and not self.llm_base_url.startswith(("http://", "https://")):
            raise ConfigError("--llm-base-url must begin with http:// or https://")
        Template(self.template)
        from llmopt.runs.secrets import refuse_secrets

        refuse_secrets({name: option.flag for name, option in options().items()}, vars(self))

    @classmethod
    def out_of_range(cls, name: str, value: object, wanted: str) -> str:
        """Names the option, as people give it."""
        return f"{options()[name].flag} must be {wanted}, not {value}"

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema of a config file, with the settings of every optimizer."""
        from llmopt.language.settings import LlmSettings
        from llmopt.search import OPTIMIZERS, forms

        schema = super().json_schema()
        schema["properties"]["llm_settings"] |= LlmSettings.json_schema()
        for name, option in options().items():
            schema["properties"][name]["description"] = option.help
        schema["allOf"] = []
        for name in OPTIMIZERS.names():
            try:
                found = forms(name)
            except ConfigError:
                continue  # a plug-in that cannot be used
            given = [kind.Settings.json_schema() for kind in found.values()]
            for one, profile in zip(given, found, strict=True):
                if profile:
                    one["properties"]["profile"] = {"const": profile}
            chosen = {"properties": {"optimizer": {"const": name}}, "required": ["optimizer"]}
            schema["allOf"].append(
                {"if": chosen, "then": {"properties": {"settings": {"anyOf": given}}}}
            )
        return schema

    def resolved(self) -> RunConfig:
        """With the defaults that depend on other options and on the environment filled in."""
        changes: dict[str, Any] = {}
        if not self.model and not self.blackbox:
            if self.dataset.startswith("shapes-"):
                changes["model"] = "shapes-tiny"
            else:
                changes["model"], changes["pretrained"] = PAPER_MODEL
                if self.pretrained:
                    changes["pretrained"] = self.pretrained
        if not self.data_root:
            changes["data_root"] = os.environ.get("LLMOPT_DATA") or "data"
        return dataclasses.replace(self, **changes)

    @property
    def caps(self) -> Caps:
        """The hard caps as the ledger takes them."""
        from llmopt.spend.currency import CAPS
        from llmopt.spend.ledger import Caps

        return Caps(**{name: getattr(self, cap.option) for name, cap in CAPS.items()})

    def plain(self) -> dict[str, Any]:
        """As names and values; options that are not set are left out, settings are "none"."""
        found = {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, "", {})}
        for table in (value for value in found.values() if isinstance(value, dict)):
            table |= {name: "none" for name, value in table.items() if value is None}
        return found

    def to_toml(self) -> str:
        """As a config file."""
        import tomli_w

        return tomli_w.dumps(self.plain())


@functools.cache
def hints() -> dict[str, Any]:
    """The annotation of each field."""
    return get_type_hints(RunConfig, include_extras=True)


@functools.cache
def options() -> dict[str, Option]:
    """The option of each field, with its flag."""
    found = {f.name: hints()[f.name].__metadata__[0] for f in dataclasses.fields(RunConfig)}
    return {
        name: dataclasses.replace(option, flag=option.flag or f"--{name.replace('_', '-')}")
        for name, option in found.items()
    }


def as_flags(name: str, value: object) -> list[str]:
    """A field's value as words of a command line."""
    flag = options()[name].flag
    if isinstance(value, Mapping):
        return [word for key, one in value.items() for word in (flag, f"{key}={one}")]
    return [flag] if isinstance(getattr(RunConfig, name, None), bool) else [flag, str(value)]


def read_config(path: Path) -> dict[str, Any]:
    """The options of a TOML file, checked by :meth:`RunConfig.make` later.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"the config file {path} is not valid TOML: {error}") from error


def parse_assignments(pairs: Sequence[str], flag: str = "--set") -> dict[str, str]:
    """``KEY=VALUE`` texts of ``--set``, or of another option like it.

    Raises:
        ConfigError: one of them has no ``=``.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"{flag} {pair!r} is not of the form KEY=VALUE")
        settings[key.strip().replace("-", "_")] = value.strip()
    return settings


def optimizer_of(config: RunConfig) -> Optimizer[Any]:
    """The optimizer of a config, with its settings.

    Raises:
        ConfigError: as :func:`llmopt.search.make_optimizer`; an option of ``run`` among the
            settings is told how it is given.
    """
    import shlex

    from llmopt.search import make_optimizer, setting_names

    for name, value in config.settings.items():
        if name in options().keys() - {"settings", "llm_settings"} - setting_names(
            config.optimizer
        ):
            raise ConfigError(
                f"unknown name '{name}' in the settings of '{config.optimizer}'; "
                f"it is an option of its own: {shlex.join(as_flags(name, value))}"
            )
    settings = dict(config.settings)
    if config.descriptions:
        if config.optimizer not in DESCRIBED:
            raise ConfigError(
                f"--descriptions {config.descriptions} is for --optimizer "
                f"{' and '.join(DESCRIBED)}, not '{config.optimizer}'"
            )
        settings |= {**DESCRIBED[config.optimizer], "file": config.descriptions}
    return make_optimizer(config.optimizer, settings, config.head)
