"""Thoughts are cut away, whatever they are marked with and wherever they break off."""

from __future__ import annotations

import time

import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from patience import HUNG

from llmopt.language.reasoning import ENDS, marks, strip_reasoning

HARMONY = "<|channel|>analysis<|message|>"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a</think>b", "b"),
        ("<Thinking>\na\n</THINKING>\nb", "b"),
        ("< think >a</ think >b", "b"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("a</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("a</think>", "a"),
        ("a</think> \n</think>\n", "a"),
        ("<think>never ends", ""),
        ("a <think>never ends", "a"),
        ("<think><think>a</think>b", "b"),
        ("<think>a<reflection>b</reflection>c</think>d", "d"),
        ("<think>a</thinking>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("[think] of a {}", "[think] of a {}"),
        ("a [/THINK] b", "b"),
        ("◁think▷a◁/think▷b", "b"),
        ("<seed:think>a</seed:think>b", "b"),
        (f"{HARMONY}a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>", "b"),
        (f"{HARMONY}a<|end|>b", "b"),
        (f"{HARMONY}cut off", ""),
        ("<|channel|>commentary<|message|>b<|end|>", "b"),
        ("analysisWe need two.assistantfinalb", "b"),
        ("<|channel>thought\na<channel|>b", "b"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>b<|end_of_solution|>", "b"),
        ("Here is my thought process: a\nHere is my response: b", "b"),
        ("Here are my reasoning steps:\na\n[BEGIN FINAL RESPONSE]\nb\n[END FINAL RESPONSE]", "b"),
        ("b<|im_end|>", "b"),
        ("- <|startoftext|>a {}", "- <|startoftext|>a {}"),
        ("plain", "plain"),
    ],
)  # fmt: skip
def test_thoughts_and_answers(text: str, left: str) -> None:
    assert strip_reasoning(text) == left


PIECES = st.sampled_from([*ENDS, *(mark for pair in marks() for mark in pair), "a", " ", "\n", "<"])


@fuzz(pieces=st.lists(PIECES, max_size=30))
def test_whatever_is_left_is_free_of_marks_that_close(pieces: list[str]) -> None:
    text = "".join(pieces)
    left = strip_reasoning(text)
    assert len(left) <= len(text)
    if not any(piece in ("a", "<") for piece in pieces):
        assert left == ""


@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<|end|>", "<", "<  ", "<|", "[THINK]", "◁", "h", "Here is my ",
     "<think></analysis>", "</think>x", "a<think></think>"],
)  # fmt: skip
def test_a_megabyte_of_marks_is_cheap(piece: str) -> None:
    began = time.process_time()
    strip_reasoning(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < HUNG
