"""A language model as it is chosen: named, priced, checked, and not yet opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from llmopt.language import wire
from llmopt.language.prices import FREE_PROVIDERS, Price, price_of, require_price
from llmopt.language.providers import default_spec, open_chat, split_spec, stay
from llmopt.language.settings import LlmSettings
from llmopt.remote.retry import AT_ONCE, RetrySettings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

DEFAULT_MAX_USD: Final = 1.0
"""The cap on money where a paid model is used and none was given."""


@dataclass(frozen=True)
class Llm:
    """A language model that a run may ask.

    Attributes:
        spec: ``builtin``, ``replay:FILE``, ``provider:model``, or any name for a given ``model``.
        base_url: of a server that speaks OpenAI's protocol.
        settings: how it is asked.
        model: one that is there already, in place of what ``spec`` names.
        why: it was chosen.
    """

    spec: str
    base_url: str = ""
    settings: LlmSettings = field(default_factory=LlmSettings)
    model: BaseChatModel | None = None
    why: str = "asked for"

    @cached_property
    def price(self) -> Price | None:
        """Of its tokens; None where it is not known."""
        return price_of(self.spec, self.settings.price, self.base_url)

    @property
    def provider(self) -> str:
        """What stands before the colon."""
        return self.spec.split(":")[0]

    @property
    def free(self) -> bool:
        """Whether it is one of ours, which cost nothing."""
        return self.model is None and self.provider in FREE_PROVIDERS

    @property
    def retry(self) -> RetrySettings:
        """The patience to ask with."""
        return AT_ONCE if self.provider == "replay" else self.settings.retry

    def cap_on_usd(self, max_usd: float | None) -> float | None:
        """The cap on money: the given one, or the default where the model is paid for.

        Raises:
            ConfigError: a cap is given, and the price is not known.
        """
        require_price(self.spec, self.price is not None, max_usd)
        if max_usd is None and self.price is not None and not self.free:
            return DEFAULT_MAX_USD
        return max_usd

    def check(self) -> None:
        """Find out whether it can be opened here, before anything takes time. Sends nothing.

        Raises:
            ConfigError: as :meth:`open`.
        """
        if self.model is None and (not self.free or self.provider == "replay"):
            wire.close(self.open(0))

    def open(self, seed: int) -> BaseChatModel:
        """The model, ready to be asked. Sends nothing.

        Raises:
            ConfigError: a package or a key is missing, or a setting is refused.
        """
        if self.model is not None:
            return stay(self.model)
        opened = open_chat(self.spec, base_url=self.base_url, seed=seed, settings=self.settings)
        return stay(opened)


def choose_llm(
    spec: str = "",
    base_url: str = "",
    settings: Mapping[str, Any] | None = None,
    *,
    only_free: bool = False,
) -> Llm:
    """The model that is named, or the one to use where none is. Opens and spends nothing.

    Args:
        spec: as ``--llm`` takes it; empty leaves the choice to the environment.
        base_url: of a server that speaks OpenAI's protocol.
        settings: how it is asked.
        only_free: a key that happens to be set is no reason to spend money.

    Raises:
        ConfigError: an unknown provider or setting.
    """
    why = "asked for"
    if not spec:
        spec, why = default_spec(only_free=only_free)
    split_spec(spec, base_url)
    made = LlmSettings.make(settings or {}, "the settings of the chat model")
    return Llm(spec, base_url, made, why=why)
