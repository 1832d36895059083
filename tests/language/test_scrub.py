"""Secrets are masked, by value and by shape; ordinary words are left alone."""

from __future__ import annotations

import pytest

from llmopt.language.scrub import MASK, Scrubber, looks_secret


@pytest.mark.parametrize(
    "text",
    [
        "sk-abcdefgh12345678",
        "sk-proj-abc_DEF-12345678",
        "sk-ant-api03-abcdefgh",
        "Incorrect API key provided: sk-abcd***********wxyz.",
        "gsk_abcdefgh12345678",
        "hf_abcdefgh12345678",
        "AIzaSyA-abcdefgh12345678",
        "Authorization: Bearer abcdefgh12345678",
        "{'authorization': 'Basic dXNlcjpwYXNz'}",
        "https://host/v1?key=abcdefgh12345678&x=1",
        "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM",
    ],
)
def test_shapes(text: str) -> None:
    scrubbed = Scrubber(environ={})(text)
    assert MASK in scrubbed
    assert "abcdefgh" not in scrubbed
    assert "dXNlcj" not in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "- a photo of a {}.",
        "openai:gpt-6-luna: asks for fewer requests, HTTP 429",
        "a task-specific risk-based mask-like {}",
        "http://127.0.0.1:8000/v1",
        "the key is missing, wrong or lacks permission",
        "a bearer of good news",
    ],
)
def test_words_are_left_alone(text: str) -> None:
    assert Scrubber(environ={})(text) == text


def test_passwords_in_addresses() -> None:
    assert Scrubber(environ={})("http://user:pass@host/v1") == f"http://{MASK}@host/v1"


def test_known_values() -> None:
    scrub = Scrubber(["my plain secret", "my plain secret, longer"], environ={})
    assert scrub("x my plain secret, longer y my plain secret") == f"x {MASK} y {MASK}"
    assert scrub.finds("my plain secret")
    assert not scrub.finds("nothing here")
    assert "secret" not in repr(scrub)


def test_the_environment_is_searched() -> None:
    environ = {"SOME_API_KEY": "value-one", "HOME": "/home/nobody", "MY_TOKEN": "short"}
    scrub = Scrubber(environ=environ)
    assert scrub("value-one /home/nobody short") == f"{MASK} /home/nobody short"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("OPENAI_API_KEY", True),
        ("X-Api-Key", True),
        ("Authorization", True),
        ("HF_TOKEN", True),
        ("Cookie", True),
        ("api_key", True),
        ("Content-Type", False),
        ("max_tokens", False),
        ("X-Title", False),
        ("monkey", False),
    ],
)
def test_names(name: str, secret: bool) -> None:
    assert looks_secret(name) is secret
