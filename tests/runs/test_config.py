from __future__ import annotations

import dataclasses
import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import ConfigError, TemplateError
from llmopt.language.settings import LlmSettings
from llmopt.runs.config import (
    PAPER_MODEL,
    RunConfig,
    optimizer_of,
    parse_assignments,
    read_config,
)
from llmopt.search import OPTIMIZERS, forms, make_optimizer
from llmopt.spend.ledger import Caps

printable = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
caps = st.none() | st.integers(0, 10**12)
money = st.none() | st.floats(0, 1e9, allow_nan=False)
values = st.one_of(st.integers(-(10**9), 10**9), st.booleans(), printable, st.floats(-1e6, 1e6))

configs = st.builds(
    RunConfig,
    dataset=printable,
    shots=st.integers(1, 10**6),
    seed=st.integers(0, 2**60),
    template=printable.map(lambda t: t.replace("{", "").replace("}", "") + "{}"),
    settings=st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), values, max_size=4),
    llm_settings=st.dictionaries(printable.filter(bool), printable, max_size=2),
    model=printable,
    batch_size=st.none() | st.integers(1, 4096),
    llm=printable,
    max_llm_calls=caps,
    max_tokens=caps,
    max_usd=money,
    max_queries=caps,
    max_seconds=money,
    data_root=printable,
    runs=printable,
)


@given(configs)
def test_a_config_comes_back_from_its_file(config: RunConfig) -> None:
    again = RunConfig.make(tomllib.loads(config.to_toml()))
    # What is empty is left out of the file, and means the default.
    changes = {
        f.name: f.default
        for f in dataclasses.fields(RunConfig)
        if getattr(config, f.name) == "" and isinstance(f.default, str)
    }
    assert again == dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def test_the_default_file_repeats_the_defaults() -> None:
    assert RunConfig.make(tomllib.loads(RunConfig().to_toml())) == RunConfig()
    assert RunConfig.make({}) == RunConfig()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"shot": 1}, ["unknown name 'shot'", "did you mean 'shots'?"]),
        ({"max_usdd": 1}, ["did you mean 'max_usd'?"]),
        ({"zzzzzz": 1}, ["unknown name 'zzzzzz'", "there are: dataset"]),
        ({"shots": "many"}, ["'shots'", "a whole number", "'many'"]),
        ({"shots": 1.5}, ["'shots'", "1.5"]),
        ({"shots": True}, ["'shots'", "True"]),
        ({"shots": 0}, ["shots must be 1 or more, not 0"]),
        ({"shots": -3}, ["shots must be 1 or more"]),
        ({"seed": -1}, ["seed must be 0 or more"]),
        ({"batch_size": 0}, ["--batch-size must be 1 or more"]),
        ({"max_usd": "inf"}, ["'max_usd'", "a number"]),
        ({"max_usd": float("nan")}, ["'max_usd'"]),
        ({"max_queries": -1}, ["--max-queries must be 0 or more"]),
        ({"dataset": 5}, ["'dataset'", "a text"]),
        ({"settings": "k=3"}, ["'settings'"]),
        ({"blackbox": "http://x", "model": "RN50"}, ["--blackbox or --model, not both"]),
    ],
)
def test_wrong_options_are_refused_with_name_and_value(
    wrong: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        RunConfig.make(wrong, "my.toml")
    for part in says:
        assert part in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_template_without_a_slot_is_refused_at_once() -> None:
    with pytest.raises(TemplateError, match="has no"):
        RunConfig(template="a photo")


def test_texts_become_what_an_option_is() -> None:
    config = RunConfig.make(
        {"shots": "4", "max_usd": "0.5", "max_queries": "none", "batch_size": 8.0}
    )
    assert (config.shots, config.max_usd, config.max_queries) == (4, 0.5, None)
    assert config.batch_size == 8
    assert isinstance(config.batch_size, int)


def test_caps_are_those_of_the_ledger() -> None:
    config = RunConfig(max_llm_calls=1, max_tokens=2, max_usd=3.0, max_queries=4, max_seconds=5.0)
    assert config.caps == Caps(1, 2, 3.0, 4, 5.0)


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ({}, ("shapes-tiny", "")),
        ({"dataset": "shapes-red"}, ("shapes-tiny", "")),
        ({"dataset": "caltech101"}, PAPER_MODEL),
        ({"dataset": "folder:x"}, PAPER_MODEL),
        ({"dataset": "caltech101", "pretrained": "yfcc15m"}, (PAPER_MODEL[0], "yfcc15m")),
        ({"dataset": "caltech101", "model": "shapes-tiny"}, ("shapes-tiny", "")),
        ({"dataset": "shapes-red", "model": "RN50", "pretrained": "x"}, ("RN50", "x")),
        ({"dataset": "caltech101", "blackbox": "http://x"}, ("", "")),
    ],
)
def test_the_model_follows_the_data_set(given: dict[str, str], model: tuple[str, str]) -> None:
    resolved = RunConfig(**given).resolved()  # type: ignore[arg-type]
    assert (resolved.model, resolved.pretrained) == model
    assert resolved.resolved() == resolved


def test_the_data_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMOPT_DATA", raising=False)
    assert RunConfig().resolved().data_root == "data"
    monkeypatch.setenv("LLMOPT_DATA", "/mnt/data")
    assert RunConfig().resolved().data_root == "/mnt/data"
    assert RunConfig(data_root="mine").resolved().data_root == "mine"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path)
    for content in (b"shots = \n", b"\xff\xfe\x00", b"[settings", b"shots = 1\nshots = 2\n"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
            read_config(tmp_path / "bad.toml")
    (tmp_path / "good.toml").write_text("shots = 4\n[settings]\nk = 3\n")
    assert read_config(tmp_path / "good.toml") == {"shots": 4, "settings": {"k": 3}}


def test_assignments() -> None:
    assert parse_assignments(["k=3", " top-p = 0.5 ", "header=a=b", "empty="]) == {
        "k": "3",
        "top_p": "0.5",
        "header": "a=b",
        "empty": "",
    }
    for wrong in ("k", "=3", " =3"):
        with pytest.raises(ConfigError, match="KEY=VALUE"):
            parse_assignments([wrong])


def test_settings_are_typed_from_text() -> None:
    settings = make_optimizer(
        "chat", {"k": "4", "polish": "no", "scores": "Yes", "fitness": "accuracy"}
    ).settings
    assert (settings.k, settings.polish, settings.scores, settings.fitness) == (
        4,
        False,
        True,
        "accuracy",
    )
    for wrong in ({"k": "four"}, {"polish": "maybe"}, {"k": "4.5"}):
        with pytest.raises(ConfigError, match="in the settings of 'chat' must be"):
            make_optimizer("chat", wrong)


def test_unknown_settings_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown name 'restart' .* did you mean 'restarts'\?"):
        make_optimizer("chat", {"restart": 3})
    with pytest.raises(ConfigError, match="there are: evaluations, fitness, finalists"):
        make_optimizer("random", {"xyzzy": 3})
    with pytest.raises(ConfigError, match="there are none"):
        make_optimizer("zeroshot", {"k": 3})


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"head": "gda"}, "--head gda"),
        ({"shots": 4}, "--shots 4"),
        ({"max_llm_calls": "5"}, "--max-llm-calls 5"),
        ({"template": "a {}"}, "--template 'a {}'"),
        ({"skip_unreadable": "yes"}, "--skip-unreadable"),
    ],
)
def test_options_given_as_settings_are_told_how_to_be_given(
    given: dict[str, Any], flag: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        optimizer_of(RunConfig(settings=given))
    assert f"unknown name '{next(iter(given))}' in the settings of 'chat'" in str(refused.value)
    assert str(refused.value).endswith(f"; it is an option of its own: {flag}")
    assert make_optimizer("craft", {"head": "none"}).settings.head == "none"


@pytest.mark.parametrize(
    ("name", "given", "works_in"),
    [
        ("craft", {"row": "dtd"}, "released, paper"),
        ("craft", {"lr": "0.01"}, "released, paper"),
        ("craft", {"profile": "released", "views": "2"}, "llmopt"),
        ("craft", {"profile": "paper", "weight": 0.5}, "llmopt"),
        ("craft", {"profile": "released", "restarts": 4}, "llmopt"),
        ("cbbt", {"batch": 8}, "released"),
        ("cbbt", {"profile": "released", "budget": 500}, "llmopt"),
        ("zip", {"tokens": 4}, "released"),
        ("zip", {"profile": "released", "standard_errors": 2.0}, "llmopt"),
        ("bbt", {"profile": "released", "views": 1}, "llmopt"),
        ("bptvlm", {"tokens": 4}, "released"),
        ("coop", {"words": "a photo of a"}, "released"),
        ("coop", {"profile": "released", "views": 1}, "llmopt"),
        ("chat", {"profile": "released", "images": 2}, "conversation"),
        ("chat", {"pool_file": "pool.txt"}, "released, paper"),
    ],
)
def test_settings_that_do_nothing_in_the_profile_are_refused(
    name: str, given: dict[str, Any], works_in: str
) -> None:
    setting = list(given)[-1]
    profile = make_optimizer(name, {k: v for k, v in given.items() if k == "profile"}).as_given()[
        "profile"
    ]
    with pytest.raises(ConfigError, match=rf"setting {setting}=.* does nothing") as refused:
        make_optimizer(name, given)
    assert f"the profile '{profile}' of '{name}'; it works in: {works_in} (" in str(refused.value)
    assert refused.value.exit_code == 2
    there = make_optimizer(name, {**given, "profile": works_in.split(", ")[0]}).settings
    assert str(getattr(there, setting)).lower() in (str(given[setting]).lower(), "false")


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_profile_survives_a_config_file(name: str) -> None:
    plain = make_optimizer(name)
    for profile in [p for p in forms(name) if p]:
        needed = {"file": "descriptions.json"} if profile == "file" else {}
        whole = make_optimizer(name, {"profile": profile, **needed})
        assert whole.form == profile
        assert whole.name == plain.name
        given = whole.as_given()
        assert make_optimizer(name, given).settings == whole.settings
        kept = {k: v for k, v in given.items() if v is not None}
        again = RunConfig.make(tomllib.loads(RunConfig(optimizer=name, settings=kept).to_toml()))
        assert optimizer_of(again).as_given() == given
        assert make_optimizer(name, {k: str(v) for k, v in given.items()}).as_given() == given
    assert make_optimizer(name, plain.as_given()).settings == plain.settings


def test_unknown_optimizers_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown optimizer 'chatt'; did you mean 'chat'"):
        OPTIMIZERS.get("chatt")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"llm_base_url": "http://me:hunter22@host/v1"},
            "--llm-base-url holds a user name .*key_env",
        ),
        ({"llm_base_url": "http://host/v1?api_key=hunter22"}, "the parameter 'api_key'.*headers="),
        ({"llm_base_url": "me:hunter22@host/v1"}, "must begin with http"),
        ({"llm_base_url": "http://host/sk-hunter22abcdefgh12"}, "--llm-base-url holds a key"),
        ({"blackbox": "http://me:hunter22@host"}, "--blackbox holds .*LLMOPT_BLACKBOX_TOKEN"),
        ({"blackbox": "llmopt:http://host?token=hunter22"}, "the parameter 'token'"),
        ({"dataset": "wds:https://me:hunter22@host/x.tar"}, "--dataset holds a user name"),
        ({"data_root": "s3://host/x?X-Amz-Signature=hunter22"}, "--data-root holds"),
        ({"pretrained": "https://host/w.pt?secret=hunter22"}, "--pretrained holds"),
        ({"llm_settings": {"headers": "X-Id: sk-hunter22abcdefgh12"}}, "--llm-set holds a key"),
        ({"llm_settings": {"price": "https://hunter22@host"}}, "--llm-set holds a user name"),
        ({"settings": {"profile": "http://h?password=hunter22"}}, "--set holds the parameter"),
    ],
)
def test_no_option_holds_a_secret(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        RunConfig(**options)
    assert "hunter22" not in str(refusal.value)
    assert "hunter22" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("named", ["hunter22", "sk-proj-hunter22", "My Hunter22 key"])
def test_a_key_in_place_of_its_variable_is_not_echoed(named: str) -> None:
    with pytest.raises(ConfigError, match=r"key_env .* not the key") as refusal:
        LlmSettings.make({"key_env": named})
    assert named not in str(refusal.value)
