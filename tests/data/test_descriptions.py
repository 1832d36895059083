"""Descriptions are read as they are published, and what is none is refused with its line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.data.descriptions import joined, read_descriptions
from llmopt.errors import ConfigError
from llmopt.template import Template

NAMES = ("tabby_cat", "dog")
SENTENCES = {"tabby cat": ["A tabby cat has stripes.", "A tabby cat."], "Dog": ["A dog barks."]}


def write(folder: Path, content: Any, name: str = "d.json") -> Path:
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        (SENTENCES, "by class"),
        ({"other": {"bird": ["A bird."]}, "pets": SENTENCES}, "by data set"),
        ({n: {"what?": t[:1], "how?": t} for n, t in SENTENCES.items()}, "in groups"),
        ([{"class": n, "descriptions": t} for n, t in SENTENCES.items()], "records"),
        ([{"classname": n, "prompts": t} for n, t in SENTENCES.items()], "records"),
        ("\n".join(json.dumps({"name": n, "texts": t}) for n, t in SENTENCES.items()), "records"),
    ],
)
def test_published_shapes(tmp_path: Path, content: Any, shape: str) -> None:
    found = read_descriptions(write(tmp_path, content), NAMES)
    assert found.shape == shape
    assert found.texts == (tuple(SENTENCES["tabby cat"]), ("A dog barks.",))
    assert not found.phrases
    assert found.prompts(Template("a {}."), NAMES)[1] == ["A dog barks."]


def test_phrases_join_the_template(tmp_path: Path) -> None:
    content = {
        "tabby cat": ["stripes", "a long tail", "often asleep", "with whiskers"],
        "bird": [],
    }
    found = read_descriptions(write(tmp_path, content), NAMES)
    assert found.phrases
    assert found.others == 1
    assert found.prompts(Template("a photo of a {}."), NAMES) == [
        [
            "a photo of a tabby cat, which has stripes.",
            "a photo of a tabby cat, which is a long tail.",
            "a photo of a tabby cat, which often asleep.",
            "a photo of a tabby cat, with whiskers.",
        ],
        [],
    ]


def test_the_slot_stands_for_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, {"dog": ["a {} that barks", "{0.x} dog"]})
    found = read_descriptions(path, NAMES)
    assert found.texts == ((), ("a dog that barks", "{0.x} dog"))
    found = read_descriptions(path, NAMES, ["moggy", "cur"])
    assert found.texts == ((), ("a cur that barks", "{0.x} dog"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n "dog": ["a dog",\n}', "line 3"),
        ('{\n "cat": ["a"],\n "dog": 3\n}', "line 3: what is said of 'dog'"),
        ('[\n {"class": "dog", "prompts": ["a"]},\n {"prompts": ["b"]}\n]', "line"),
        ('{"class": "dog", "prompts": ["a"]}\n{"class": \n', "line 2"),
        ("[]", "describe no class"),
        ("3", "neither classes nor records"),
        ("{}", "neither classes nor records"),
        ('{"bird": ["a bird"]}', "describe no class of this task: they name 'bird'"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_descriptions(write(tmp_path, content), NAMES)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_descriptions(tmp_path / "no.json", NAMES)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_descriptions(tmp_path / "b.json", NAMES)


def test_too_long_and_repeated_texts_are_left_out(tmp_path: Path) -> None:
    content = {"dog": ["a dog", " a  dog ", "", "x" * 2000]}
    assert read_descriptions(write(tmp_path, content), NAMES).texts[1] == ("a dog",)


def test_joined_reads_as_a_sentence() -> None:
    assert joined("a photo of a cat.", "used for hunting") == (
        "a photo of a cat, which is used for hunting."
    )


@fuzz(
    content=st.recursive(
        st.none() | st.integers() | st.text(max_size=8) | st.just("dog"),
        lambda one: (
            st.lists(one, max_size=3)
            | st.dictionaries(st.sampled_from(["dog", "class", "prompts", "x"]), one, max_size=3)
        ),
        max_leaves=8,
    ),
    cut=st.integers(0, 20),
)
def test_any_file_is_read_or_refused(content: Any, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(content)
        path = write(Path(folder), text[: len(text) - cut])
        try:
            found = read_descriptions(path, NAMES)
        except ConfigError:
            return
        assert len(found.texts) == len(NAMES)
