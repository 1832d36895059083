"""From ``--llm`` to a LangChain chat model.

``builtin`` and ``replay:FILE`` are ours, ``openai:MODEL`` and every compatible server come from
``langchain-openai``, and any other ``provider:MODEL`` from LangChain's own resolver where that is
installed, or from a plug-in. Retries of the clients are switched off:
:mod:`llmopt.remote.retry` does them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from llmopt.errors import ConfigError, nearest
from llmopt.language.settings import LlmSettings
from llmopt.registry import Registry
from llmopt.remote.scrub import Scrubber

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

DEFAULT_OPENAI = "gpt-6-luna"
# What the resolver calls them, and the package that has each.
PACKAGES = {
    "anthropic": "langchain-anthropic",
    "azure_ai": "langchain-azure-ai",
    "azure_openai": "langchain-openai",
    "bedrock": "langchain-aws",
    "bedrock_converse": "langchain-aws",
    "cohere": "langchain-cohere",
    "deepseek": "langchain-deepseek",
    "fireworks": "langchain-fireworks",
    "google_genai": "langchain-google-genai",
    "google_vertexai": "langchain-google-vertexai",
    "groq": "langchain-groq",
    "huggingface": "langchain-huggingface",
    "ibm": "langchain-ibm",
    "litellm": "langchain-litellm",
    "mistralai": "langchain-mistralai",
    "nvidia": "langchain-nvidia-ai-endpoints",
    "ollama": "langchain-ollama",
    "openrouter": "langchain-openrouter",
    "perplexity": "langchain-perplexity",
    "together": "langchain-together",
    "upstage": "langchain-upstage",
    "xai": "langchain-xai",
}
PROVIDERS: Final[Registry[Callable[..., BaseChatModel]]] = Registry(
    "provider",
    "chat_providers",
    {
        "openai": "llmopt.language.providers:open_openai",
        "builtin": "llmopt.language.builtin:open_builtin",
        "replay": "llmopt.language.replay:open_replay",
    },
    reserved=PACKAGES,
)
"""What opens ``provider:MODEL`` where LangChain's resolver does not: functions
``open(model, *, base_url, seed, settings)`` that send nothing and return a chat model, with
``settings`` an :class:`~llmopt.language.settings.LlmSettings`."""

_INNER_CLIENTS = ("_client", "_api_client", "_httpx_client")
_DEPTH = 3
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "host.docker.internal")
# The shape of a structured reply; what does not keep to it is still read line by line.
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "templates",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"templates": {"type": "array", "items": {"type": "string"}}},
            "required": ["templates"],
            "additionalProperties": False,
        },
    },
}


def default_spec(
    environ: Mapping[str, str] | None = None, *, only_free: bool = False
) -> tuple[str, str]:
    """What is asked where no model is named, and why.

    ``$LLMOPT_LLM``, else OpenAI if there is a key and ``only_free`` does not forbid it, else the
    built-in rewriter.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get("LLMOPT_LLM", "").strip():
        return chosen, "LLMOPT_LLM names it"
    if environ.get("OPENAI_API_KEY") and not only_free:
        return f"openai:{DEFAULT_OPENAI}", "OPENAI_API_KEY is set"
    return "builtin", "no other was named"


def split_spec(spec: str, base_url: str = "") -> tuple[str, str]:
    """Provider and model of a spec.

    Raises:
        ConfigError: it is neither known nor of the form ``provider:model``.
    """
    provider, colon, model = spec.partition(":")
    if spec == "builtin":
        return "builtin", ""
    if model and (provider in PACKAGES or provider in PROVIDERS):
        return provider, model
    if base_url:
        return "openai", spec  # a server's own name for a model, which may hold a colon
    if not colon:
        raise ConfigError(
            f"--llm '{spec}' names no provider{nearest(spec, ['builtin'])}; write 'builtin', "
            f"'provider:model' such as 'openai:{spec or DEFAULT_OPENAI}', or add --llm-base-url"
        )
    if not model:
        raise ConfigError(f"--llm '{spec}' names no model; write it as '{provider}:MODEL'")
    known = [*PROVIDERS, *PACKAGES]
    raise ConfigError(
        f"unknown provider '{provider}' in --llm '{spec}'{nearest(provider, known)} "
        f"(there are: {', '.join(known)})"
    )


def open_chat(
    spec: str,
    *,
    base_url: str = "",
    seed: int = 0,
    settings: LlmSettings | None = None,
) -> BaseChatModel:
    """The chat model a spec names. Sends nothing.

    Args:
        spec: ``builtin``, ``replay:FILE`` or ``provider:model``.
        base_url: of a server that speaks OpenAI's protocol; no key is needed there.
        seed: of the built-in rewriter.
        settings: how it is asked.

    Raises:
        ConfigError: unknown, a package is missing, a key is missing, or a setting is refused.
    """
    settings = settings or LlmSettings()
    provider, model = split_spec(spec, base_url)
    if provider in PACKAGES:
        return _resolved(provider, model, base_url, settings)
    return PROVIDERS.get(provider)(model, base_url=base_url, seed=seed, settings=settings)


def open_openai(
    model: str, *, base_url: str, settings: LlmSettings, **others: Any
) -> BaseChatModel:
    """A model of OpenAI's, or of a server that speaks its protocol."""
    try:
        from langchain_openai import ChatOpenAI
        from langchain_openai.chat_models.base import BaseChatOpenAI

        from llmopt.language.reading import bounded_client
    except ImportError as error:
        raise _missing("openai", "langchain-openai") from error
    key = _key(settings, base_url)
    options: dict[str, Any] = {
        "model": model,
        "api_key": key,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": settings.seed,
        "max_tokens": settings.max_tokens,
        "reasoning_effort": settings.reasoning_effort or None,
        "timeout": settings.timeout,
        "max_retries": 0,
        "default_headers": settings.header_values() or None,
        "extra_body": {"response_format": _SCHEMA} if settings.structured else None,
        "include_response_headers": True,
        # A client of its own, so that it can be closed with the run.
        "http_client": bounded_client(f"openai:{model}", timeout=settings.timeout),
    }
    options = {name: value for name, value in options.items() if value is not None}
    if base_url:
        # Compatible servers know the limit by its first name, max_tokens.
        return BaseChatOpenAI(base_url=base_url, **options)
    chat = ChatOpenAI(**options)
    return _without_refused(chat)


def stay(chat: BaseChatModel) -> BaseChatModel:
    """The model, whose HTTP client follows no redirects, under whatever names classes keep it."""
    for name in ("root_client", "client", "_client"):
        client: Any = getattr(chat, name, None)
        for _ in range(_DEPTH):
            if isinstance(getattr(client, "follow_redirects", None), bool):
                client.follow_redirects = False
            inside = (getattr(client, name, None) for name in _INNER_CLIENTS)
            client = next((one for one in inside if one is not None), None)
    return chat


def _without_refused(chat: BaseChatModel) -> BaseChatModel:
    """The model without a temperature where it is known to refuse one."""
    if (getattr(chat, "profile", None) or {}).get("temperature") is False:
        return chat.model_copy(update={"temperature": None})
    return chat


def _key(settings: LlmSettings, base_url: str) -> str:
    """The key to send; a server of one's own gets none unless one is named for it."""
    if settings.key_env:
        key = os.environ.get(settings.key_env, "")
        if not key:
            raise ConfigError(f"the environment variable {settings.key_env} of key_env is not set")
        return key
    if base_url and urlsplit(base_url).hostname in LOCAL_HOSTS:
        return "unused"
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key and not base_url:
        raise ConfigError(
            "OPENAI_API_KEY is not set; set it, give --llm-base-url for a server of your own, or "
            "use --llm builtin",
            docs="your-photos",
        )
    return key or "unused"


def _resolved(provider: str, model: str, base_url: str, settings: LlmSettings) -> BaseChatModel:
    package = PACKAGES[provider]
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise _missing(provider, f"langchain {package}") from error
    options = _common_options(provider, base_url, settings)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            chat: BaseChatModel = init_chat_model(model, model_provider=provider, **options)
    except ImportError as error:
        raise _missing(provider, package) from error
    except Exception as error:
        reason = " ".join(Scrubber()(str(error)).split())[:300]
        raise ConfigError(f"cannot set up --llm '{provider}:{model}': {reason}") from None
    for warning in said:
        # LangChain passes on what it does not know, and the service would refuse every call.
        if match := re.search(r"(\w+) is not default parameter", str(warning.message)):
            raise ConfigError(f"'{provider}' takes no '{match[1]}'; leave that setting out")
    return _without_refused(chat)


def _common_options(provider: str, base_url: str, settings: LlmSettings) -> dict[str, Any]:
    """The settings under the names a provider's LangChain class gives them."""
    options: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": settings.seed,
        "max_tokens": settings.max_tokens,
        "timeout": settings.timeout,
        "max_retries": 0,
        "base_url": base_url or None,
        "default_headers": settings.header_values() or None,
        "api_key": _key(settings, "") if settings.key_env else None,
    }
    if provider == "ollama":
        options["num_predict"] = options.pop("max_tokens")
        headers = options.pop("default_headers")
        options["client_kwargs"] = {"timeout": options.pop("timeout")} | (
            {"headers": headers} if headers else {}
        )
        del options["max_retries"]
    return {name: value for name, value in options.items() if value is not None}


def _missing(provider: str, packages: str) -> ConfigError:
    return ConfigError(f"--llm {provider}:… needs a package: pip install {packages}")
