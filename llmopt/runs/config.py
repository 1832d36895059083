"""Everything needed to repeat a run, read from flags and files and kept as ``config.toml``."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from llmopt.errors import ConfigError
from llmopt.search import make_optimizer, setting_names
from llmopt.settings import typed_values
from llmopt.spend.ledger import Caps
from llmopt.template import PLAIN, Template

if TYPE_CHECKING:
    from llmopt.search.base import Optimizer

PAPER_MODEL = ("RN50-quickgelu", "openai")
"""The backbone the papers use."""


@dataclass(frozen=True)
class RunConfig:
    """One run. Field names are the long options with underscores.

    Attributes:
        dataset, classnames: what to learn from, and a file of class names or a name set.
        shots, seed: of the few-shot sample; the seed also of every random choice.
        template: the start; every result is measured against it.
        optimizer, settings: the search, and its ``--set KEY=VALUE``.
        model, pretrained, device, precision, batch_size: the black box, if it is open_clip.
        blackbox: its URL, if it is remote.
        llm, llm_base_url, llm_settings: the chat model.
        max_llm_calls, max_tokens, max_usd, max_queries, max_seconds: hard caps.
        head, head_views: heads tried after the search, and augmented views of each training image
            for them.
        init_from: a run folder whose best template is the start of this search.
        skip_unreadable: leave damaged images out instead of refusing them; they are counted.
        data_root, runs: where data sets lie and run folders go.
    """

    dataset: str = "shapes-small"
    classnames: str = ""
    shots: int = 1
    seed: int = 1
    template: str = PLAIN
    optimizer: str = "chat"
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    model: str = ""
    pretrained: str = ""
    blackbox: str = ""
    device: str = "auto"
    precision: str = "auto"
    batch_size: int | None = None
    llm: str = ""
    llm_base_url: str = ""
    llm_settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    max_llm_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_queries: int | None = None
    max_seconds: float | None = None
    head: str = ""
    head_views: int = 0
    init_from: str = ""
    skip_unreadable: bool = False
    data_root: str = ""
    runs: str = "runs"

    def __post_init__(self) -> None:
        if self.shots < 1:
            raise ConfigError(f"shots must be 1 or more, not {self.shots}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {self.seed}")
        if self.head_views < 0:
            raise ConfigError(f"head views must be 0 or more, not {self.head_views}")
        if self.head_views and not self.head:
            raise ConfigError(f"--head-views {self.head_views} is for a head; give --head too")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch size must be 1 or more, not {self.batch_size}")
        for name in ("max_llm_calls", "max_tokens", "max_usd", "max_queries", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be 0 or more, not {value}")
        if self.blackbox and (self.model or self.pretrained):
            raise ConfigError("give either --blackbox or --model, not both")
        Template(self.template)

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
        return Caps(
            llm_calls=self.max_llm_calls,
            llm_tokens=self.max_tokens,
            llm_usd=self.max_usd,
            queries=self.max_queries,
            seconds=self.max_seconds,
        )

    def to_toml(self) -> str:
        """As a config file; options that are not set are left out."""
        plain = {k: v for k, v in dataclasses.asdict(self).items() if v not in (None, "", {})}
        return tomli_w.dumps(plain)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "the config") -> RunConfig:
        """From names and values, such as a parsed file.

        Raises:
            ConfigError: an unknown name (the nearest one is suggested) or a value of a wrong type.
        """
        return cls(**typed_values(cls, values, where))


def read_config(path: Path) -> dict[str, Any]:
    """The options of a TOML file, checked by :meth:`RunConfig.from_mapping` later.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {path} is not valid TOML: {error}") from error


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """``KEY=VALUE`` texts of ``--set``.

    Raises:
        ConfigError: one of them has no ``=``.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {pair!r} is not of the form KEY=VALUE")
        settings[key.strip().replace("-", "_")] = value.strip()
    return settings


def optimizer_of(config: RunConfig) -> Optimizer[Any]:
    """The optimizer of a config, with its settings.

    Raises:
        ConfigError: as :func:`llmopt.search.make_optimizer`; an option of ``run`` among the
            settings is told how it is given.
    """
    options = {f.name for f in dataclasses.fields(RunConfig)} - {"settings", "llm_settings"}
    for name, value in config.settings.items():
        if name in options - setting_names(config.optimizer):
            flag = f"--{name.replace('_', '-')}"
            if name != "skip_unreadable":
                flag += f" {shlex.quote(str(value))}"
            raise ConfigError(
                f"unknown name '{name}' in the settings of '{config.optimizer}'; "
                f"it is an option of its own: {flag}"
            )
    return make_optimizer(config.optimizer, config.settings, config.head)
