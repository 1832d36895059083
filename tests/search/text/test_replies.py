"""The reply parser: every format it promises to read, and noise of every kind."""

from __future__ import annotations

import json
import random
import string
import time

import pytest
from fuzz import fuzz
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import HUNG

from llmopt.errors import TemplateError
from llmopt.language.reasoning import PLAIN_ENDS, marks
from llmopt.search.text.replies import MAX_CHARS, ParsedReply, parse_reply
from llmopt.template import Template

FORMATS = {
    "dashes": "- a photo of a {}.\n- a small {}.",
    "stars and dots": "* a photo of a {}.\n• a small {}.",
    "glued bullets": "-a photo of a {}.\n•a small {}.",
    "numbers": "1. a photo of a {}.\n2) a small {}.",
    "more numbers": "(1) a photo of a {}.\n[2] a small {}.",
    "letters": "a) a photo of a {}.\nB. a small {}.",
    "roman": "i. a photo of a {}.\nii) a small {}.",
    "arabic digits": "١. a photo of a {}.\n٢) a small {}.",
    "full-width digits": "１．a photo of a {}.\n２、a small {}.",
    "circled": "① a photo of a {}.\n② a small {}.",
    "keycaps": "1️⃣ a photo of a {}.\n2️⃣ a small {}.",
    "chinese": "一、a photo of a {}.\n第二条：a small {}.",
    "emoji": "✅ a photo of a {}.\n🔹 a small {}.",
    "check boxes": "- [ ] a photo of a {}.\n- [x] a small {}.",
    "labels": "Template 1: a photo of a {}.\nVorlage 2: a small {}.",
    "double quotes": '"a photo of a {}."\n"a small {}."',
    "curly quotes": "“a photo of a {}.”\n‘a small {}.’",
    "german quotes": "„a photo of a {}.“\n‚a small {}.‘",
    "french quotes": "« a photo of a {}. »\n‹a small {}.›",
    "japanese quotes": "「a photo of a {}.」\n『a small {}.』",
    "back-ticks": "`a photo of a {}.`\n``a small {}.``",
    "quoted items": '1. "a photo of a {}."\n2. "a small {}.",',
    "fence": "Here you are:\n```\na photo of a {}.\na small {}.\n```\nThe {} is the class.",
    "tagged fence": "```text\n- a photo of a {}.\n- a small {}.\n```",
    "unclosed fence": "Sure!\n```\na photo of a {}.\na small {}.",
    "bold": "**a photo of a {}.**\n- __a small {}.__",
    "italics": "*a photo of a {}.*\n_a small {}._",
    "bold labels": "1. **Plain:** a photo of a {}.\n2. **Size**: a small {}.",
    "label, quote, comment": '- Plain: "a photo of a {}." (short)\n- Size: "a small {}." – detail',
    "block quote": "> a photo of a {}.\n> a small {}.",
    "html": "<ul><li>a photo of a {}.</li><li>a small {}.</li></ul>",
    "line breaks in html": "a photo of a {}.<br>a small {}.",
    "xml": "<template>a photo of a {}.</template>\n<template>a small {}.</template>",
    "table": "| # | template | why |\n|---|---|---|\n| 1 | a photo of a {}. | plain |\n"
    "| 2 | a small {}. | size |",
    "json list": '["a photo of a {}.", "a small {}."]',
    "json object": '{"templates": ["a photo of a {}.", "a small {}."]}',
    "json objects": '[{"text": "a photo of a {}.", "why": "plain"}, {"text": "a small {}."}]',
    "json lines": '{"t": "a photo of a {}."}\n{"t": "a small {}."}',
    "json keys": '{"a photo of a {}.": 0.5, "a small {}.": 0.7}',
    "json in prose": 'Sure: ["a photo of a {}.", "a small {}."] Good luck!',
    "fenced json": '```json\n{"list": [\n  "a photo of a {}.",\n  "a small {}."\n]}\n```',
    "truncated json": '{"templates": ["a photo of a {}.", "a small {}.", "a very lar',
    "truncated pretty json": '[\n  "a photo of a {}.",\n  "a small {}.",\n  "a very lar',
    "python list": "['a photo of a {}.', 'a small {}.']",
    "scores copied": "- a photo of a {}. (score -0.512, accuracy 58.3%)\n- a small {}. (61.2)",
    "scores in front": "0.82: a photo of a {}.\n- 61.2 | a small {}.",
    "thoughts": "<think>\n- a bad {}.\n</think>\n- a photo of a {}.\n- a small {}.",
    "thoughts opened elsewhere": "- a bad {}.\n</think>\n- a photo of a {}.\n- a small {}.",
    "channels": "<|channel|>analysis<|message|>- a bad {}.<|end|>"
    "<|channel|>final<|message|>- a photo of a {}.\n- a small {}.",
    "named slots": "- a photo of a {class}.\n- a small {class_name}.",
    "other slots": "- a photo of a [CLASS].\n- a small <object>.",
    "more slots": "- a photo of a {{}}.\n- a small [class name].",
    "odd slots": "- a photo of a ${label}.\n- a small %s.",
    "blank slots": "- a photo of a ____.\n- a small CLASS_NAME.",
    "full-width slots": "- a photo of a ｛｝.\n- a small ｛类别｝.",
    "escaped": "- a photo of a \\{\\}.\n- a small &#123;&#125;.",
    "control tokens": "- <|startoftext|>a photo of a {}.<|endoftext|>\n- a <end_of_text> small {}.",
    "zero width": "- a pho\u200bto of a {}.\n-\u2060 a small \ufeff{}.",
    "bidirectional": "- \u202ea photo of a {}.\u202c\n- a \u200fsmall {}.",
    "windows": "- a photo of a {}.\r\n\r\n- a small {}.\r\n",
    "line separators": "- a photo of a {}.\u2028- a small {}.\u2029",
    "json string": json.dumps("- a photo of a {}.\n- a small {}."),
    "json string twice": json.dumps(json.dumps('["a photo of a {}.", "a small {}."]')),
    "json string with new lines": '"- a photo of a {}.\n- a small {}."',
    "fenced json string": "```json\n" + json.dumps("- a photo of a {}.\n- a small {}.") + "\n```",
    "lines in json": json.dumps(["- a photo of a {}.\n- a small {}."]),
    "json in json": json.dumps({"templates": '["a photo of a {}.", "a small {}."]'}),
    "yaml": "templates:\n  - a photo of a {}.\n  - 'a small {}.'",
    "yaml keys": "- text: a photo of a {}.\n  why: plain\n- text: \"a small {}.\"\n  why: size",
    "yaml blocks": "- |\n  a photo of a {}.\n- |\n  a small {}.",
    "toml": 'templates = ["a photo of a {}.", "a small {}."]',
    "tex quotes": "``a photo of a {}.''\n``a small {}.''",
    "polish and swedish quotes": "„a photo of a {}.”\n”a small {}.”",
    "half-width quotes": "｢a photo of a {}.｣\n〝a small {}.〟",
    "vertical quotes": "1. ﹁a photo of a {}.﹂\n2. ﹃a small {}.﹄",
    "ornaments": "❝a photo of a {}.❞\n❛a small {}.❜",
    "title marks": "模板：《a photo of a {}.》（简单）\n模板：〈a small {}.〉",
    "plain lines": "a photo of a {}.\na small {}.",
    "prose around": "Sure! Here are two templates with {}:\n\n- a photo of a {}.\n- a small {}.\n\n"
    "Replace {} by the class name.",
}  # fmt: skip


def reasons(parsed: ParsedReply) -> list[str]:
    return [rejection.reason for rejection in parsed.rejected]


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    reply = parse_reply(FORMATS[name])
    assert [t.text for t in reply.templates] == ["a photo of a {}.", "a small {}."]


@pytest.mark.parametrize(
    "text",
    [
        "3-D render of a {}",
        "a 3.5 inch {}",
        "{} in the wild",
        'a sign that says "{}"',
        "it's a {}, isn't it?",
        "a photo (close-up) of a {}",
        "a photo taken at 10:30 of a {}",
        "صورة {}",
        "一张{}的照片",
        "a {}/object",
        "an aerial photo; a {}",
        "一个小{}",
        "三条{}",
        "第一个{}",
        "两只{}的照片",
        "一つの{}の写真",
        "한 마리 {}",
        "किसी {} की तस्वीर",
        "عکس می\u200cخواهم از {}",
        "a photo of a {} (1990)",
        "a {} [2]",
        "½ of a {}",
    ],
)
def test_keeps_what_belongs_to_the_template(text: str) -> None:
    assert [t.text for t in parse_reply(f"- {text}").templates] == [text]


PLAIN = ["a photo of a {}.", "a small {}."]
THOUGHTS = "\n- a bad {}.\n1. a wrong [CLASS]\n"


@fuzz(
    form=st.sampled_from(sorted(FORMATS)),
    mark=st.sampled_from(marks()),
    how=st.sampled_from(["whole", "no start", "other end", "twice", "after", "end after"]),
    between=st.sampled_from(["", "\n", "\n\n", " \n"]),
)
def test_any_reasoning_around_any_format(
    form: str, mark: tuple[str, str], how: str, between: str
) -> None:
    (start, end), answer = mark, FORMATS[form]
    whole = f"{start}{THOUGHTS}{end}"
    reply = {
        "whole": f"{whole}{between}{answer}",
        "no start": f"{THOUGHTS}{end}{between}{answer}",
        "other end": f"{start}{THOUGHTS}</answer_of_thought></analysis>{between}{answer}",
        "twice": f"{start}{whole}{between}{answer}",
        "after": f"{answer}\n{start}{THOUGHTS}",
        "end after": f"{answer}\n{end}{between}",
    }[how]
    if how == "no start" and end in PLAIN_ENDS:
        return  # it ends any message
    if form.startswith(("channels", "unclosed", "truncated", "json string")) and "after" in how:
        return  # what follows belongs to the answer itself
    parsed = parse_reply(reply)
    assert [t.text for t in parsed.templates] == PLAIN, reply


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("- a {} and a {}", "slots"),
        ("- a photo of a thing", "slots"),
        ("- a {} with a { brace", "slots"),
        ("- a {class} next to an [object]", "slots"),
        ("- a photo of a cat with a {}", "classname"),
        ("- {}", "malformed"),
        ("- a photo of a {}\n- A PHOTO of a  {}", "duplicate"),
        ("- " + "very " * MAX_CHARS + "{}", "too_long"),
        ("I am sorry, but I cannot help with that.", "refusal"),
        ("很抱歉，我无法完成这个请求。", "refusal"),
        ("The weather is fine today.", "malformed"),
        ("", "empty"),
        ("<think>- a photo of a {}", "empty"),
        ("\u200b\ufeff", "empty"),
    ],
)
def test_reasons(reply: str, reason: str) -> None:
    parsed = parse_reply(reply, classnames=["cat", "dog"])
    assert reasons(parsed) == [reason]
    assert parsed.rejected[0].message


def test_keeps_the_good_ones_of_a_mixed_reply() -> None:
    reply = (
        "- a photo of a {}.\n- a {} and a {}\n- a dog and a {}\n- a small {}.\n- A small {}.\n- no"
    )
    parsed = parse_reply(reply, classnames=["dog"])
    assert [t.text for t in parsed.templates] == ["a photo of a {}.", "a small {}."]
    assert sorted(reasons(parsed)) == ["classname", "duplicate", "slots", "slots"]


def test_check_rejects_with_its_own_reason() -> None:
    class Unlikely(TemplateError):
        reason = "unlikely"

    def check(template: Template) -> None:
        if "small" in template.text:
            raise Unlikely("nobody says so")
        if "long" in template.text:
            raise TemplateError("it takes 80 tokens")

    parsed = parse_reply("- a small {}\n- a long {}\n- a {} there", check=check)
    assert [t.text for t in parsed.templates] == ["a {} there"]
    assert [(r.reason, r.message) for r in parsed.rejected] == [
        ("unlikely", "nobody says so"),
        ("too_long", "it takes 80 tokens"),
    ]


def test_limit() -> None:
    parsed = parse_reply("\n".join(f"- a {{}} number {n}" for n in range(80)))
    assert len(parsed.templates) == 64
    assert reasons(parsed) == ["surplus"]


def test_nothing_shown_is_long() -> None:
    parsed = parse_reply("- " + "x" * 10_000)
    assert len(parsed.rejected[0].text) <= 160


def _noise() -> dict[str, str]:
    rng = random.Random(0)
    size = 1_000_000
    any_character = [chr(c) for c in range(32, 0x3000)]
    return {
        "characters": "".join(rng.choices(any_character, k=size)),
        "markup": "".join(rng.choices("[]{}<>\"'`*_-|\\#.: \n", k=size)),
        "letters on one line": "".join(rng.choices(string.ascii_letters + " ", k=size)),
        **{
            name: piece * (size // len(piece))
            for name, piece in {
                "quotes": '"', "braces": "{", "brackets": "[", "slots": "{}", "angles": "<",
                "bullets": "- ", "items": "- x\n", "templates": "- x {}\n", "fences": "```\n",
                "ticks": "`", "thoughts": "<think>", "ends": "</think>", "json": '["',
                "objects": '[{"', "nested": '["a {}",', "new lines": "\n", "spaces": " ",
                "cells": "| a {} ", "escapes": "\\{", "entities": "&amp;", "stars": "**",
                "odd tags": "<" + " " * 500, "open tags": "<a ", "numbers": "1. ", "digits": "9",
            }.items()
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", _noise())
def test_a_megabyte_of_noise_is_cheap(name: str) -> None:
    text = _noise()[name]
    began = time.process_time()
    reply = parse_reply(text)
    assert time.process_time() - began < HUNG
    assert len(reply.templates) + len(reply.rejected) <= 140


# ------------------------------------------------------------------------------------ fuzzing

_PIECES = st.sampled_from(
    [
        "a photo of a ", "{}", "{class}", "[CLASS]", "<object>", "{{}}", "{ }", "%s", "____", "\n",
        "\n- ", "\n* ", "\n1. ", "\n2) ", "(3) ", "\n| ", " | ", "|", '"', "'", "“", "”", "«", "»",
        "`", "```", "```json\n", "**", "__", "*", "_", "[", "]", "{", "}", "[\"", "\", \"", "\"]",
        '{"t": "', '"}', "<think>", "</think>", "<b>", "</b>", "<br>", "<|endoftext|>",
        "<|startoftext|>", "\u200b", "\u202e", "\ufeff", "\x00", "\ud800", "\\", "\\{", "&lt;",
        "&#123;", "#", "Template 1: ", "(score -0.5, accuracy 10%)", "0.82: ", "一、", "１．", "①",
        "✅ ", ":", ",", ";", ".", " ", "\t", "\r", "\u2028", "cat", "small", "I cannot", "é",
        "{}.", "<", ">", "｛", "｝", "[ ] ", "null", "true", "9" * 50, "- {}", "<|", "|>", "%", "$",
    ]
)  # fmt: skip
_REPLIES = st.one_of(st.text(), st.lists(_PIECES, max_size=40).map("".join))


def _check_reply(text: str) -> None:
    parsed = parse_reply(text, classnames=["cat"])
    for template in parsed.templates:
        assert Template(template.text) == template
        assert len(template.text) <= MAX_CHARS
        assert "cat" not in template.text.lower().split()
        again = parse_reply(f"- {template.text}", classnames=["cat"])
        assert again.templates == (template,), (template.text, again)
    normal = [t.normal for t in parsed.templates]
    assert len(set(normal)) == len(normal)
    assert parsed.templates or parsed.rejected
    assert all(r.reason and r.message for r in parsed.rejected)


@settings(max_examples=500, derandomize=True)
@given(_REPLIES)
def test_fuzz(text: str) -> None:
    _check_reply(text)


@pytest.mark.slow
@settings(max_examples=20_000, derandomize=True)
@given(_REPLIES)
def test_fuzz_long(text: str) -> None:
    _check_reply(text)


_WORDS = st.lists(
    st.text(st.sampled_from(string.ascii_letters + "éüñ字"), min_size=1, max_size=8), max_size=6
)
_TEMPLATES = st.builds(
    lambda before, after, end: " ".join([*before, "{}", *after]) + end,
    _WORDS,
    _WORDS,
    st.sampled_from(["", ".", "!", "?"]),
).filter(lambda text: any(c.isalpha() for c in text))
_FRAMES = st.sampled_from(
    ["- {}", "* {}", "1. {}", '"{}"', "“{}”", "«{}»", "**{}**", "`{}`", "> {}", "| 1 | {} | x |"]
)


@settings(max_examples=300, derandomize=True)
@given(st.lists(_TEMPLATES, min_size=1, max_size=6, unique_by=str.lower), _FRAMES)
def test_round_trip_of_lists(texts: list[str], frame: str) -> None:
    reply = "\n".join(frame.replace("{}", "%s") % text for text in texts)
    assert [t.text for t in parse_reply(reply).templates] == texts


@settings(max_examples=200, derandomize=True)
@given(st.lists(_TEMPLATES, min_size=1, max_size=6, unique_by=str.lower), st.booleans())
def test_round_trip_of_json(texts: list[str], keyed: bool) -> None:
    reply = json.dumps({"templates": texts} if keyed else texts)
    assert [t.text for t in parse_reply(reply).templates] == texts


@pytest.mark.parametrize("marker", ["Templates:", "**Templates:**", "## Templates", "templates"])
def test_only_the_last_list_counts_where_thoughts_come_before_it(marker: str) -> None:
    thoughts = "Perhaps size matters:\n- a small {}.\nOr rather the place.\n\n"
    reply = f"{thoughts}{marker}\n- a {{}} on the left.\n- an upper {{}}.\n"
    found = parse_reply(reply)
    assert [t.text for t in found.templates] == ["a {} on the left.", "an upper {}."]
    twice = parse_reply(f"{marker}\n- a draft of {{}}.\nNo.\n{reply}")
    assert twice.templates == found.templates
    assert [t.text for t in parse_reply(f"- a small {{}}.\n{marker}").templates] == ["a small {}."]
