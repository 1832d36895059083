"""A run's config holds every setting it works with, and is still the config that was asked for."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmopt.comparison.grid import parse_arm
from llmopt.comparison.records import arm_name
from llmopt.errors import ConfigError
from llmopt.runs.asked import config_of
from llmopt.runs.compose import compose
from llmopt.runs.config import RunConfig, optimizer_of
from llmopt.runs.same import key
from llmopt.runs.trust import refuse_untrusted
from llmopt.runs.whole import changes, flags, without_defaults
from llmopt.search import OPTIMIZERS
from llmopt.task import Task
from llmopt.vision.boxes import settings_at

PAID = {"llm": "openai:gpt-4.1-mini", "llm_settings": {"temperature": "0.5", "top_p": "none"}}


def kept(config: RunConfig) -> RunConfig:
    """As the folder of its run holds it."""
    return RunConfig.make(tomllib.loads(compose(config).config.to_toml()))


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS.names()) - {"describe"}))
def test_every_setting_is_written_and_means_the_same(name: str) -> None:
    asked = RunConfig(optimizer=name)
    found = kept(asked)
    assert found.settings.keys() == optimizer_of(asked).as_given().keys()
    assert optimizer_of(found).as_given() == optimizer_of(asked).as_given()
    # What compares runs, names arms or writes commands sees what was asked for.
    short = without_defaults(found)
    assert (short.settings, short.head, short.about) == ({}, "", "")
    assert key(found) == key(
        asked.resolved()
        if name == "handcrafted"
        else dataclasses.replace(asked.resolved(), llm=found.llm, precision=found.precision)
    )
    assert arm_name(found) == name
    # A folder of before holds nothing of it: the same run.
    assert changes(found, dataclasses.replace(found, settings={}, head="", about="")) == []
    assert changes(found, dataclasses.replace(found, about="insects")) != []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"optimizer": "chat", "settings": {"k": "3", "pool": "12"}}, "chat k=3"),
        ({"optimizer": "craft", "settings": {"profile": "paper"}}, "craft profile=paper"),
        ({"optimizer": "craft", "head": "ridge"}, "craft head=ridge"),
        ({"optimizer": "carrot", "settings": {"budget": "40"}, "head": "auto"},
         "carrot budget=40 head=auto"),
        ({"optimizer": "auto", "head": "gda"}, "auto head=gda"),
        ({"optimizer": "auto", "settings": {"budget": "none"}}, "auto"),
        ({"optimizer": "not-here", "settings": {"a": 1}}, "not-here a=1"),
    ],
)  # fmt: skip
def test_arms_are_called_by_what_is_unusual(given: dict[str, Any], name: str) -> None:
    config = RunConfig(**given)
    assert arm_name(config) == name
    if "not-here" not in name:
        assert arm_name(kept(config)) == name
        assert optimizer_of(kept(config)).as_given() == optimizer_of(config).as_given()


def test_how_a_language_model_is_asked_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    found = kept(RunConfig(**PAID))
    assert found.llm_settings["temperature"] == 0.5
    assert found.llm_settings["top_p"] == "none"
    assert found.llm_settings["max_tokens"] == 4096
    assert without_defaults(found).llm_settings == {"temperature": 0.5}
    assert kept(found) == found
    assert kept(RunConfig()).llm_settings == {}  # ours takes none


@pytest.mark.parametrize(
    ("address", "given", "short"),
    [
        ("voyage:voyage-multimodal-3.5", {"side": "512", "batch": "none", "at_once": "2"},
         {"at_once": 2}),
        ("chat:openai:gpt-5-mini", {"ranked": "3", "temperature": "0", "top_p": "0.5"},
         {"ranked": 3, "top_p": 0.5}),
        ("hf:openai/clip", {}, {}),
    ],
)  # fmt: skip
def test_how_a_black_box_is_asked_is_written(
    address: str, given: dict[str, Any], short: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "sk-very-secret")
    asked = RunConfig(blackbox=address, blackbox_settings={**given, "key_env": "SECRET_OF_MINE"})
    found = kept(asked)
    kind = settings_at(address)
    assert kind is not None
    assert found.blackbox_settings.keys() == {one.name for one in dataclasses.fields(kind)}
    assert kind.make(found.blackbox_settings) == kind.make(asked.blackbox_settings)
    assert without_defaults(found).blackbox_settings == {**short, "key_env": "SECRET_OF_MINE"}
    assert "very-secret" not in found.to_toml()
    assert kept(found) == found
    assert key(found) == key(compose(asked).config)
    assert (
        changes(found, dataclasses.replace(found, blackbox_settings=asked.blackbox_settings)) == []
    )
    repeated = [word for word in flags(found) if word.startswith(("side=", "timeout=", "cache="))]
    assert not repeated
    # Another box takes nothing of this one's: neither its address nor its price.
    other = config_of(found, {"blackbox": "http://127.0.0.1:9"})
    assert other.blackbox_settings == {}
    other = config_of(found, {"blackbox": address, "blackbox_settings": {"side": 64}})
    assert other.blackbox_settings == {"side": 64}
    assert config_of(found, {"blackbox": address}).blackbox_settings == {
        **short, "key_env": "SECRET_OF_MINE"
    }  # fmt: skip
    with pytest.raises(ConfigError, match="SECRET_OF_MINE holds sent to"):
        refuse_untrusted(
            dataclasses.replace(
                found, blackbox_settings={**found.blackbox_settings, "base_url": "http://elsewhere"}
            ),
            Path("config.toml"),
            (),
        )


def test_another_language_model_has_another_price() -> None:
    found = RunConfig(llm="openai:gpt-x", llm_settings={"price": "1,4", "temperature": "0.5"})
    assert config_of(found, {"llm": "openai:gpt-y"}).llm_settings == {"temperature": "0.5"}
    assert config_of(found, {"seed": 2}).llm_settings == found.llm_settings
    given = {"llm": "openai:gpt-y", "llm_settings": {"price": "2,8"}}
    assert config_of(found, given).llm_settings == {"price": "2,8"}


def test_another_optimizer_or_data_set_brings_its_own_defaults() -> None:
    found = kept(RunConfig(settings={"k": "3"}, seed=4))
    assert config_of(found, {"seed": 5}) == dataclasses.replace(found, seed=5)
    assert config_of(found, {"optimizer": "zeroshot", "settings": {}}).settings == {}
    assert config_of(found, {"dataset": "caltech101"}).about == ""
    released = config_of(found, {"settings": {"profile": "released", "k": 2}})
    assert optimizer_of(released).form == "released"
    arm = parse_arm("random").config(kept(RunConfig()))
    assert (arm.settings, arm.seed) == ({}, 1)


def test_what_a_task_says_of_its_pictures_is_kept() -> None:
    from llmopt.runs.compose import Given

    task = compose(RunConfig()).task
    own = dataclasses.replace(task, about="tiny drawings")
    assert isinstance(own, Task)
    assert compose(RunConfig(dataset="python:x"), Given(task=own)).config.about == "tiny drawings"
