"""Words put together give what the tokenizer gives for the whole text."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_clip import open_clip

from llmopt.vision.text_engine import words
from llmopt.vision.text_engine.words import WordTokenizer

PIECES = st.sampled_from(
    ["a photo of", "it's", "O'Neill's", "100%", "x2y", "don't.", "...", "'s", "__", "{}", "A.B.C.",
     "&amp;", "&", "<end_of_text>", "<start_of_text>", "Ünder", "ﬁne", "don’t", "\t", "\x1b[0m",
     "hot-air", "24/7", "supercalifragilistic", "😀", "<|endoftext|>"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=12), max_size=8).map(" ".join)


@cache
def tokenizer_of(length: int) -> Any:
    return open_clip.SimpleTokenizer(context_length=length)


@cache
def shared(length: int) -> WordTokenizer:
    return WordTokenizer(tokenizer_of(length), length)


def unpadded(row: list[int]) -> list[int]:
    while row[-1] == 0:
        row = row[:-1]
    return row


@given(texts=st.lists(TEXTS, max_size=5), length=st.sampled_from([77, 8]))
@example(texts=["word " * 90, "", " "], length=77)
@example(texts=["a photo of a <end_of_text> cat."], length=8)
def test_rows_are_the_tokenizers_own(texts: list[str], length: int) -> None:
    own = tokenizer_of(length)(texts).tolist()
    found = shared(length).rows(texts)
    assert [unpadded(row) for row in found] == [unpadded(row) for row in own]
    assert all(len(row) <= length for row in found)


def test_a_word_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = WordTokenizer(tokenizer_of(77), 77)
    asked: list[str] = []
    encode = tokenizer._tokenizer.encode

    def counting(word: str) -> list[int]:
        asked.append(word)
        return list(encode(word))

    monkeypatch.setattr(tokenizer._tokenizer, "encode", counting)
    first = tokenizer.rows(["a photo of a cat.", "a photo of a dog."])
    assert asked == ["a", "photo", "of", "cat.", "dog."]
    assert tokenizer.rows(["a photo of a dog."]) == first[1:]
    assert len(asked) == 5
    monkeypatch.setattr(words, "WORDS", 5)  # what is remembered is bounded
    tokenizer.rows(["a photo of a cow."])
    assert tokenizer.rows(["a photo of a cat.", "a photo of a dog."]) == first
    assert len(tokenizer._words) <= 5


def test_other_tokenizers_read_whole_texts() -> None:
    seen: list[str] = []

    def tokenizer(texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        return torch.ones(len(texts), 9, dtype=torch.long)

    assert WordTokenizer(tokenizer, 9).rows(["a cat", "a dog"]) == [[1] * 9] * 2
    assert seen == ["a cat", "a dog"]


def test_special_tokens_with_spaces_are_not_torn_apart() -> None:
    special = open_clip.SimpleTokenizer(context_length=9, additional_special_tokens=["<a b>"])
    texts = ["photo <a b> x"]
    assert WordTokenizer(special, 9).rows(texts) == special(texts).tolist()


def test_a_tokenizer_that_leaves_tokens_out_reads_whole_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reducing = open_clip.SimpleTokenizer(context_length=8, reduction_mask="shuffle")
    asked: list[str] = []
    encode = reducing.encode
    monkeypatch.setattr(reducing, "encode", lambda text: asked.append(text) or encode(text))
    texts = ["a photo of a very small dog in the snow"]
    assert len(WordTokenizer(reducing, 8).rows(texts)[0]) == 8
    assert asked == texts
