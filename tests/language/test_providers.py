"""From --llm to a chat model, and the errors on the way."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings
from typing import Any

import httpx
import pytest
from scripted import Scripted

from llmopt.errors import ConfigError
from llmopt.language import remedies, wire
from llmopt.language.llm import Llm, choose_llm
from llmopt.language.providers import DEFAULT_OPENAI, default_spec, open_chat, split_spec
from llmopt.language.settings import LlmSettings

LOCAL = "http://127.0.0.1:9/v1"


def test_importing_the_room_is_cheap() -> None:
    language = ["cache", "llm", "metered", "prices", "providers", "reasoning", "settings", "wire"]
    remote = ["failures", "limits", "line", "retry", "scrub"]
    modules = [f"llmopt.language.{m}" for m in language] + [f"llmopt.remote.{m}" for m in remote]
    code = (
        f"import sys; [__import__(m) for m in {modules}]; "
        "heavy = {'langchain_core', 'langchain_openai', 'openai', 'torch', 'httpx'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_default_spec() -> None:
    assert default_spec({}) == ("builtin", "no other was named")
    key = {"OPENAI_API_KEY": "x"}
    assert default_spec(key) == (f"openai:{DEFAULT_OPENAI}", "OPENAI_API_KEY is set")
    assert default_spec(key, only_free=True)[0] == "builtin"
    named = key | {"LLMOPT_LLM": " ollama:llama3 "}
    assert default_spec(named, only_free=True) == ("ollama:llama3", "LLMOPT_LLM names it")


@pytest.mark.parametrize(
    ("spec", "base_url", "parts"),
    [
        ("builtin", "", ("builtin", "")),
        ("openai:gpt-4o", "", ("openai", "gpt-4o")),
        ("openai:llama3:8b", LOCAL, ("openai", "llama3:8b")),
        ("ollama:llama3:8b", "", ("ollama", "llama3:8b")),
        ("replay:some/run:1", "", ("replay", "some/run:1")),
        ("llama3:8b", LOCAL, ("openai", "llama3:8b")),
        ("qwen", LOCAL, ("openai", "qwen")),
    ],
)
def test_split_spec(spec: str, base_url: str, parts: tuple[str, str]) -> None:
    assert split_spec(spec, base_url) == parts


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("buildin", "did you mean 'builtin'"),
        ("gpt-4o", "openai:gpt-4o"),
        ("openai:", "names no model"),
        ("opanai:gpt-4o", "did you mean 'openai'"),
        ("", "names no provider"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_chat(spec)


def test_builtin_takes_the_seed() -> None:
    model = open_chat("builtin", seed=7)
    assert model._llm_type == "llmopt-builtin"
    assert wire.parameters(model)["seed"] == 7


def sent(model: Any) -> dict[str, Any]:
    payload: dict[str, Any] = model._get_request_payload("hi")
    return {name: value for name, value in payload.items() if name not in ("messages", "stream")}


def closed(model: Any) -> Any:
    model.root_client.close()
    return model


def test_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-of-the-provider")
    settings = LlmSettings(temperature=0.3, seed=5, max_tokens=99, top_p=0.9, timeout=7)
    model = closed(open_chat("openai:gpt-4.1-mini", settings=settings))
    assert sent(model) == {
        "model": "gpt-4.1-mini",
        "temperature": 0.3,
        "seed": 5,
        "top_p": 0.9,
        "max_completion_tokens": 99,
    }
    assert model.max_retries == 0
    assert model.root_client.max_retries == 0
    assert model.root_client.timeout == 7
    assert wire.secrets_of(model) == {"sk-test-of-the-provider"}
    assert "sk-test" not in repr(model)


def test_temperature_is_left_out_where_it_is_known_to_be_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-of-the-provider")
    model = closed(open_chat(f"openai:{DEFAULT_OPENAI}"))
    if not model.profile:
        pytest.skip("this langchain-openai knows nothing of the model")
    assert "temperature" not in sent(model)


def test_a_compatible_server_needs_no_key_and_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-of-the-provider")
    model = closed(open_chat("qwen3:8b", base_url=LOCAL))
    assert wire.secrets_of(model) == {"unused"}
    # Not every such server knows the newer name of the limit.
    assert sent(model) == {"model": "qwen3:8b", "temperature": 1.0, "max_tokens": 4096}
    assert wire.base_url(model) == LOCAL
    elsewhere = closed(open_chat("openai:m", base_url="https://llm.example.org/v1"))
    assert wire.secrets_of(elsewhere) == {"sk-test-of-the-provider"}
    monkeypatch.delenv("OPENAI_API_KEY")
    keyless = closed(open_chat("openai:m", base_url="https://llm.example.org/v1"))
    assert wire.secrets_of(keyless) == {"unused"}


def test_key_env(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LlmSettings(key_env="MY_SERVER_KEY")
    with pytest.raises(ConfigError, match="MY_SERVER_KEY"):
        open_chat("openai:m", base_url=LOCAL, settings=settings)
    monkeypatch.setenv("MY_SERVER_KEY", "my-own-server-key")
    model = closed(open_chat("openai:m", base_url=LOCAL, settings=settings))
    assert wire.secrets_of(model) == {"my-own-server-key"}


def test_openai_without_a_key() -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY is not set.*--llm builtin"):
        open_chat("openai:gpt-4o")


def test_structured_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY", "a-gateway-secret-0815")
    settings = LlmSettings(structured=True, headers="X-Title: llmopt; X-Api-Key: $GATEWAY")
    model = closed(open_chat("openai:m", base_url=LOCAL, settings=settings))
    assert model.default_headers == {"X-Title": "llmopt", "X-Api-Key": "a-gateway-secret-0815"}
    assert sent(model)["extra_body"]["response_format"]["type"] == "json_schema"
    assert "a-gateway-secret-0815" in wire.secrets_of(model)
    drops = remedies.changes(model)
    assert set(drops) == {
        "temperature", "response_format", "max_tokens", "max_completion_tokens"
    }  # fmt: skip
    without = model.model_copy(update=drops["response_format"])
    assert "extra_body" not in sent(without)


# ---------------------------------------------------------------- LangChain's own resolver


def resolver(monkeypatch: pytest.MonkeyPatch, init: Any) -> None:
    """A stand-in for the langchain package, which need not be installed."""
    package = types.ModuleType("langchain")
    module = types.ModuleType("langchain.chat_models")
    module.init_chat_model = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain", package)
    monkeypatch.setitem(sys.modules, "langchain.chat_models", module)


@pytest.mark.parametrize("name", ["root_client", "client", "_client"])
@pytest.mark.parametrize("inner", ["", "_client", "_api_client", "_httpx_client"])
def test_other_providers_follow_no_redirects(name: str, inner: str) -> None:
    with httpx.Client(follow_redirects=True) as http:
        client = types.SimpleNamespace(**{inner: http}) if inner else http
        given: Any = types.SimpleNamespace(**{name: client})
        assert Llm("python:Mine", model=given).open(seed=1) is given
        assert http.follow_redirects is False


def test_other_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def init(model: str, **options: Any) -> Scripted:
        asked.update(options, model=model)
        return Scripted(temperature=options.get("temperature"))

    resolver(monkeypatch, init)
    open_chat("anthropic:claude-x", settings=LlmSettings(max_tokens=9))
    assert asked == {
        "model": "claude-x",
        "model_provider": "anthropic",
        "temperature": 1.0,
        "max_tokens": 9,
        "timeout": 120.0,
        "max_retries": 0,
    }
    asked.clear()
    open_chat("ollama:llama3:8b", base_url="http://localhost:11434")
    assert asked == {
        "model": "llama3:8b",
        "model_provider": "ollama",
        "temperature": 1.0,
        "num_predict": 4096,
        "base_url": "http://localhost:11434",
        "client_kwargs": {"timeout": 120.0},
    }


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(ConfigError, match="pip install langchain langchain-anthropic"):
        open_chat("anthropic:claude-x")

    def init(model: str, **options: Any) -> Scripted:
        raise ImportError("no module named langchain_groq")

    resolver(monkeypatch, init)
    with pytest.raises(ConfigError, match="pip install langchain-groq"):
        open_chat("groq:llama")


def test_a_setting_the_provider_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(model: str, **options: Any) -> Scripted:
        warnings.warn("WARNING! seed is not default parameter.", UserWarning, stacklevel=2)
        return Scripted()

    resolver(monkeypatch, init)
    with pytest.raises(ConfigError, match="'anthropic' takes no 'seed'"):
        open_chat("anthropic:claude-x", settings=LlmSettings(seed=1))


def test_what_a_provider_refuses_is_told_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(model: str, **options: Any) -> Scripted:
        raise ValueError("bad key sk-abcdefghijk12345\nin the field api_key")

    resolver(monkeypatch, init)
    with pytest.raises(ConfigError, match="cannot set up --llm 'xai:grok'") as caught:
        open_chat("xai:grok")
    assert "abcdefghijk" not in str(caught.value)


# -------------------------------------------------------------------------------- settings


def test_settings_from_text() -> None:
    settings = LlmSettings.make(
        {"temperature": "none", "max_tokens": "100", "structured": "yes", "price": "1,2"}
    )
    assert settings.temperature is None
    assert settings.max_tokens == 100
    assert settings.structured is True
    assert settings.retry.attempts == settings.attempts


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"temperature": 3}, "temperature=3 of the chat model must be from 0 to 2"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"attempts": "many"}, "attempts"),
        ({"requests_per_minute": -1}, "requests_per_minute"),
        ({"first_pause": -1}, "first_pause"),
        ({"headers": "no colon"}, "Name: value"),
        ({"headers": "X-Api-Key: literally-written-out"}, r"X-Api-Key: \$VARIABLE"),
    ],
)
def test_bad_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        LlmSettings.make(values)
    assert "literally" not in str(caught.value)


# --------------------------------------------------------------------------------- chosen


def test_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_llm().spec == "builtin"
    assert choose_llm().cap_on_usd(None) is None
    paid = choose_llm("openai:gpt-4o")
    assert paid.cap_on_usd(None) == 1.0
    assert paid.cap_on_usd(5.0) == 5.0
    # Without a price there is no cap by default, and none to be kept.
    unknown = choose_llm("openai:new-model")
    assert unknown.cap_on_usd(None) is None
    with pytest.raises(ConfigError, match="--max-usd"):
        unknown.cap_on_usd(1.0)
    assert choose_llm("openai:new-model", settings={"price": "1,2"}).cap_on_usd(1.0) == 1.0
    assert choose_llm("qwen", LOCAL).cap_on_usd(None) is None
    monkeypatch.setenv("LLMOPT_LLM", "openai:gpt-4o")
    assert choose_llm().spec == "openai:gpt-4o"
    with pytest.raises(ConfigError):
        choose_llm("nonsense")
