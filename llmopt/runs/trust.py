"""What a config from a file may have sent to others: secrets of this machine are asked for again.

A run folder or a config file may be somebody else's. It may name environment variables, and the
addresses that what they hold is sent to.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmopt.errors import ConfigError
from llmopt.runs.config import RunConfig
from llmopt.vision.boxes import is_paid

if TYPE_CHECKING:
    from llmopt.language.settings import LlmSettings

_OURS = ("builtin", "python", "replay")
"""Providers that send nothing, and models that somebody made in Python."""


def refuse_untrusted(
    config: RunConfig, where: Path, named: Collection[str] | None = None, *, chat: bool = True
) -> None:
    """Refuse a config that would send secrets nobody here has named.

    Fine is a provider's own key at the provider's own address.

    Args:
        config: what stands in the file.
        where: the file.
        named: variables that were named by hand; None where none can be.
        chat: a language model will be opened, not the black box alone.

    Raises:
        ConfigError: it names the variable, the address and the ways out.
    """
    for variable, address, setting in [*_to_box(config), *(_to_llm(config) if chat else ())]:
        if variable not in (named or ()):
            can_name = setting and named is not None
            by_hand = f", or name it yourself: {setting}" if can_name else ""
            raise ConfigError(
                f"{where} has what the environment variable {variable} holds sent to {address}; "
                f"if you mean that, say --trust-config (Python: trust_config=True){by_hand}",
                docs="trust",
            )


def _to_llm(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """What goes to the language model: variable, address, and the setting that names it."""
    from llmopt.language.providers import default_spec
    from llmopt.language.settings import LlmSettings

    settings = LlmSettings.make(config.llm_settings, "the settings of the chat model")
    spec = config.llm or default_spec()[0]
    for variable, address, setting in _to_chat(spec, config.llm_base_url, settings):
        yield variable, address, f"--llm-set {setting}"


def _to_chat(spec: str, base_url: str, settings: LlmSettings) -> Iterator[tuple[str, str, str]]:
    from llmopt.language.providers import LOCAL_HOSTS, split_spec

    if spec.partition(":")[0] in _OURS:
        return
    provider, _ = split_spec(spec, base_url)
    own = provider.partition("_")[0].upper()
    named = {name: f"'headers=…${name}'" for name in settings.header_variables()}
    usual = settings.key_env
    if base_url and not usual and provider != "openai":
        usual = f"{own}_API_KEY"  # LangChain's classes send it wherever they are told
    elif base_url and not usual:
        local = urlsplit(base_url).hostname in LOCAL_HOSTS
        usual = "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY") and not local else ""
    if usual:
        named[usual] = f"key_env={usual}"
    for name, setting in named.items():
        if base_url or not name.upper().startswith(own):
            yield name, base_url or provider, setting


def _to_box(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """The same of what goes to a remote black box."""
    from llmopt.language.providers import LOCAL_HOSTS
    from llmopt.vision.wire import TOKEN_VARIABLE

    kind, _, rest = config.blackbox.partition(":")
    if kind == "chat":
        from llmopt.vision.services.chat import ChatBoxSettings

        settings = ChatBoxSettings.make(config.blackbox_settings, "the settings of the black box")
        for variable, where, setting in _to_chat(rest, settings.base_url, settings):
            yield variable, where, f"--blackbox-set {setting}"
        return
    if is_paid(config.blackbox):
        from llmopt.vision.services.web import ServiceSettings, services

        asked = ServiceSettings.make(config.blackbox_settings, "the settings of the black box")
        if asked.key_env and (asked.base_url or asked.key_env not in services()[kind].key):
            yield asked.key_env, asked.base_url or kind, f"--blackbox-set key_env={asked.key_env}"
        return
    address = urlsplit(config.blackbox.removeprefix("llmopt:"))
    remote = address.scheme in ("http", "https") and address.hostname not in LOCAL_HOSTS
    if remote and os.environ.get(TOKEN_VARIABLE):
        yield TOKEN_VARIABLE, str(address.hostname), ""
