"""Secrets are masked, by value and by shape; ordinary words are left alone."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.remote.scrub import MASK, Scrubber, in_address, is_key, looks_secret


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


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(f"Bearer {text}".encode()).decode(),
    "base64 of JSON": lambda text: base64.b64encode(f'{{"k": "{text}", "x": 1}}'.encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(f"u:{text}".encode()).decode(),
    "quoted": lambda text: quote(text, safe=""),
    "quoted in small letters": lambda text: re.sub("%..", lambda m: m[0].lower(), quote(text)),
    "a form's value": quote_plus,
    "JSON": json.dumps,
    "Python": repr,
    "HTML": html.escape,
    "hex": lambda text: text.encode().hex(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "secret",
    ["plain-pass-phrase-7", 'q"uo/te+d & <w\\ith> all', "Bearer abc/def+ghi=jkl", "pässwörtli"],
)
def test_every_form_of_a_secret_is_masked(form: str, secret: str) -> None:
    told = FORMS[form](secret)
    for where in (told, f"x{told}y", f"the key was {told}. Try again"):
        scrubbed = Scrubber([secret], environ={})(where)
        assert MASK in scrubbed
        core = told[8:-8]
        assert len(core) < 4 or core not in scrubbed


def test_what_a_header_wraps_is_masked_too() -> None:
    wrapped = base64.b64encode(b"me:open-sesame-now").decode()
    scrub = Scrubber([f"Basic {wrapped}", "Token abcdef-ghijkl"], environ={})
    assert scrub(f"{wrapped} me:open-sesame-now open-sesame-now abcdef-ghijkl") == " ".join(
        [MASK] * 4
    )


@pytest.mark.parametrize(
    ("address", "held"),
    [
        ("http://user:pass@host/v1", "a user name or password"),
        ("https://token@host", "a user name or password"),
        ("http://user:pa/ss@host/v1", "a user name or password"),
        ("http://user:pa?s#s@host/v1", "a user name or password"),
        ("llmopt:http://:pass@host:80", "a user name or password"),
        ("http://host/v1?api_key=abc", "the parameter 'api_key'"),
        ("http://host/v1?x=1&api%5Fkey=abc", "the parameter 'api_key'"),
        ("http://host/v1?X-Api-Key=abc", "the parameter 'X-Api-Key'"),
        ("http://host/v1#access_token=abc", "the parameter 'access_token'"),
        ("kind:host?sig=abc", "the parameter 'sig'"),
        ("http://host/v1?key=abc", "the parameter 'key'"),
        ("http://host:8080/v1/@cf/meta/llama", ""),
        ("http://[::1]:8080/v1/@cf/meta", ""),
        ("https://me.openai.azure.com/v1?api-version=2024-10-21", ""),
        ("http://host/v1?api_key=", ""),
        ("http://key-management.internal/v1", ""),
        ("open_clip:ViT-B-32@openai", ""),
        ("folder:/home/me@work/photos", ""),
    ],
)
def test_secrets_in_addresses(address: str, held: str) -> None:
    assert in_address(address) == held


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sk-proj-abcdefgh12345678", True),
        ("hf_abcdefghijklmn1234", True),
        ("AIzaSyA-abcdefghijklmnopqrstuvwxyz12345", True),
        ("hf-internal-testing", False),
        ("OPENAI_API_KEY", False),
        ("a task-specific-thing-of-mine", False),
    ],
)
def test_what_is_surely_a_key(text: str, key: bool) -> None:
    assert is_key(text) is key


@fuzz(
    secret=st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=12, max_size=60
    ),
    form=st.sampled_from(sorted(FORMS)),
    before=st.text(max_size=5),
    after=st.text(max_size=5),
)
def test_no_error_body_shows_a_secret(secret: str, form: str, before: str, after: str) -> None:
    told = FORMS[form](secret)
    scrubbed = Scrubber([secret], environ={})(f"{before}{told}{after}")
    assert told not in scrubbed or len(secret.strip()) < 12
