"""Somebody else's run folder or config: what it may have sent, and what was edited in it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from command_line import refused
from fuzz import fuzz
from hypothesis import strategies as st
from paper_runs import paper_run

from llmopt import api
from llmopt.errors import ConfigError, LlmoptError, RunFolderError
from llmopt.runs.config import RunConfig
from llmopt.runs.folder import create, read_run_config
from llmopt.runs.load import summarize
from llmopt.runs.trust import refuse_untrusted

EVIL = "https://evil.example/v1"
TOKEN = "LLMOPT_BLACKBOX_TOKEN"


def config(**options: Any) -> RunConfig:
    return RunConfig(**{"llm": "openai:gpt-5-mini", **options})


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        ({"llm_settings": {"key_env": "AWS_SECRET"}, "llm_base_url": EVIL}, "AWS_SECRET"),
        ({"llm_settings": {"key_env": "AWS_SECRET"}}, "AWS_SECRET"),
        ({"llm_settings": {"headers": "X: $AWS_SECRET"}, "llm_base_url": EVIL}, "AWS_SECRET"),
        ({"llm_settings": {"headers": "A: b; X: $HOME"}}, "HOME"),
        ({"llm_base_url": EVIL}, "OPENAI_API_KEY"),
        ({"llm_base_url": EVIL, "llm_settings": {"key_env": "OPENAI_API_KEY"}}, "OPENAI_API_KEY"),
        ({"llm_base_url": EVIL, "llm": "anthropic:claude"}, "ANTHROPIC_API_KEY"),
        ({"llm_base_url": EVIL, "llm": ""}, "OPENAI_API_KEY"),
        ({"llm_base_url": "http://localhost.evil.example", "llm": "x"}, "OPENAI_API_KEY"),
        ({"llm_base_url": "http://localhost:1/v1", "llm_settings": {"key_env": "AWS"}}, "AWS"),
        ({"llm": "builtin", "blackbox": "https://evil.example"}, TOKEN),
        ({"llm": "builtin", "blackbox": "llmopt:http://evil.example:80"}, TOKEN),
    ],
)
def test_secrets_of_this_machine_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], variable: str
) -> None:
    for name in ("OPENAI_API_KEY", "AWS_SECRET", TOKEN):
        monkeypatch.setenv(name, "a-secret-value")
    asked = config(**options)
    with pytest.raises(ConfigError, match=f"variable {variable} holds sent to .*--trust-config"):
        refuse_untrusted(asked, Path("config.toml"))
    refuse_untrusted(asked, Path("config.toml"), [variable, "OPENAI_API_KEY"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"llm_settings": {"key_env": "OPENAI_KEY_OF_WORK"}},
        {"llm_base_url": "http://localhost:11434/v1", "llm": "llama3.2"},
        {"llm": "anthropic:claude"},
        {"llm": "builtin", "llm_settings": {"key_env": "AWS"}, "llm_base_url": EVIL},
        {"llm": "python:Chat"},
        {"llm": "builtin", "blackbox": "http://127.0.0.1:8000"},
        {"llm": "builtin", "blackbox": "open_clip:shapes-tiny"},
    ],
)
def test_own_keys_at_own_addresses_are_not(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    for name in ("OPENAI_API_KEY", "AWS", TOKEN):
        monkeypatch.setenv(name, "a-secret-value")
    refuse_untrusted(config(**options), Path("config.toml"))


def test_a_server_without_a_key_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refuse_untrusted(config(llm_base_url=EVIL), Path("config.toml"))


def test_every_road_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET", "a-secret-value")
    monkeypatch.setenv(TOKEN, "a-secret-value")
    asked = config(llm_base_url=EVIL, llm_settings={"key_env": "AWS_SECRET"}, runs=str(tmp_path))
    folder = create(asked)
    assert "AWS_SECRET holds sent to https://evil.example/v1" in refused("resume", folder, "-q")
    with pytest.raises(ConfigError, match="trust_config=True"):
        api.resume(folder, progress=False)
    file = tmp_path / "theirs.toml"
    file.write_text(asked.to_toml())
    for command in ("run", "plan"):
        assert "theirs.toml has what" in refused(command, "--config", file)
    # Past the question, the run ends for another reason: no such data set.
    rest = ("run", "--config", file, "--dataset", "folder:nowhere")
    for given in (["--trust-config"], ["--llm-set", "key_env=AWS_SECRET"]):
        assert "there is no folder nowhere" in refused(*rest, *given)
    remote = paper_run(tmp_path)
    path = remote / "config.toml"
    (remote / "journal.jsonl").unlink()
    path.write_text(path.read_text().replace('model = "shapes-tiny"', f'blackbox = "{EVIL}"'))
    for command in (["evaluate", remote, "-q"], ["export", remote, "-f", "safetensors"]):
        assert f"{TOKEN} holds sent to evil.example" in refused(*command)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("seed = 1", "seed = 2", "seed: 1, now 2"),
        ("shots = 1", "shots = 4", "shots: 1, now 4"),
        ("a photo of a {}.", "a {}.", r"template: 'a photo of a \{\}\.', now 'a \{\}\.'"),
        ("shapes-small", "shapes-red", "dataset: 'shapes-small', now 'shapes-red'"),
        ("zeroshot", "random", "optimizer: 'zeroshot', now 'random'"),
        ('precision = "auto"', 'precision = "fp16"', "precision: 'auto', now 'fp16'"),
        ('device = "auto"', 'device = "auto"\nhead = "bias"', "head: None, now 'bias'"),
    ],
)
def test_what_decides_a_search_may_not_change(
    tmp_path: Path, before: str, after: str, says: str
) -> None:
    folder = create(RunConfig(optimizer="zeroshot", runs=str(tmp_path)))
    path = folder / "config.toml"
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(RunFolderError, match=rf"was changed since its run began \({says}\); put b"):
        read_run_config(folder)
    assert summarize(folder).status == "damaged"


def test_caps_and_places_may(tmp_path: Path) -> None:
    folder = create(RunConfig(optimizer="zeroshot", runs=str(tmp_path), max_queries=5))
    path = folder / "config.toml"
    text = path.read_text().replace("max_queries = 5", "max_queries = 50\nmax_usd = 2.0")
    path.write_text(text + 'data_root = "elsewhere"\n[llm_settings]\nattempts = 2\n')
    assert read_run_config(folder).max_queries == 50


def test_an_emptied_config_is_refused(tmp_path: Path) -> None:
    folder = create(RunConfig(optimizer="zeroshot", runs=str(tmp_path)))
    for nothing in ("", "\n", "# all gone\n"):
        (folder / "config.toml").write_text(nothing)
        assert "config.toml is empty" in refused("resume", folder, "-q")


@pytest.mark.parametrize("text", ["a = " + "[" * 10_000, "a = " + "9" * 5_000, "\udcff", "a = 1"])
def test_configs_that_are_none(tmp_path: Path, text: str) -> None:
    folder = create(RunConfig(optimizer="zeroshot", runs=str(tmp_path)))
    (folder / "config.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "config.toml" in refused("resume", folder, "-q")


_VALUE = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.text(max_size=8), st.lists(st.integers())
)


@fuzz(
    values=st.dictionaries(
        st.sampled_from([*RunConfig.__dataclass_fields__, "other"]), _VALUE, max_size=5
    ),
    at=st.integers(0, 10**6),
    byte=st.integers(0, 255),
)
def test_no_config_is_more_than_refused(values: dict[str, Any], at: int, byte: int) -> None:
    import tomli_w

    with tempfile.TemporaryDirectory() as root:
        folder = create(RunConfig(optimizer="zeroshot", runs=root))
        raw = bytearray(tomli_w.dumps(values).encode("utf-8", "replace"))
        if raw and at % 2:
            raw[at % len(raw)] = byte
        (folder / "config.toml").write_bytes(raw)
        with pytest.raises(LlmoptError):
            read_run_config(folder)
