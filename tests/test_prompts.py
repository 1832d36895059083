"""The natural-language files: every line parses, and the initial pool gives nothing away."""

from __future__ import annotations

import re

import pytest

from llmopt.resources import prompts_root, read_lines
from llmopt.sentences import names_class
from llmopt.template import Template, clean

SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "round",
    "heart", "arrow", "crescent", "hexagon", "diamond", "bar",
)  # fmt: skip

# Words that would name what some task hides: sizes, sides, colours, patterns. Lists of
# our own rather than the shapes world's words, because synonyms count too.
TELLING = {
    "size": "small tiny little mini miniature short narrow thin big large huge giant massive great "
    "tall long wide thick size",
    "side": "left right side top bottom upper lower above below middle center centre corner",
    "colour": "red green blue yellow orange purple pink brown black white gray grey gold golden "
    "silver beige turquoise violet teal navy crimson scarlet maroon cyan magenta tan cream ivory "
    "lime olive rose peach coral amber lavender burgundy emerald ruby azure dark light bright pale "
    "color colour colored coloured colorful colourful",
    "pattern": "striped stripe stripes stripy banded lined plain solid filled dotted spotted "
    "checked checkered plaid pattern patterned floral shiny glossy matte smooth",
}

TEMPLATE_FILES = sorted(
    path.relative_to(prompts_root()).as_posix()
    for path in (prompts_root() / "templates").glob("*.txt")
    if path.name != "probes.txt"  # phrases; see tests/search/text/test_probes.py
)


def words(line: str) -> set[str]:
    return set(re.findall(r"[a-z]+", line.lower()))


@pytest.mark.parametrize("name", TEMPLATE_FILES)
def test_every_line_is_a_template(name: str) -> None:
    lines = read_lines(name)
    assert lines
    for line in lines:
        assert Template(line).text == line
    assert len({Template(line).normal for line in lines}) == len(lines)


def test_caption_pool_is_several_hundred_short_captions() -> None:
    lines = read_lines("templates/captions.txt")
    assert len(lines) == 400
    assert [line for line in lines if not 4 <= len(line.split()) <= 14] == []


@pytest.mark.parametrize("group", TELLING)
def test_caption_pool_names_nothing_a_task_hides(group: str) -> None:
    telling = set(TELLING[group].split())
    assert [line for line in read_lines("templates/captions.txt") if words(line) & telling] == []


def test_caption_pool_names_no_shape() -> None:
    lines = read_lines("templates/captions.txt")
    assert [line for line in lines if names_class(Template(line), SHAPES)] == []


def test_handcrafted_lists() -> None:
    assert len(read_lines("templates/generic.txt")) == 30
    assert read_lines("templates/clip_subset.txt") == [
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ]


def test_vocabulary_is_sections_of_short_phrases() -> None:
    sections: dict[str, list[str]] = {}
    for line in read_lines("builtin/vocabulary.txt"):
        if line.startswith("["):
            phrases = sections.setdefault(line.strip("[]"), [])
        else:
            phrases.append(line)
    assert list(sections) == ["frame", "before", "after", "tail"]
    assert 350 <= sum(map(len, sections.values())) <= 450
    for phrases in sections.values():
        assert len(set(phrases)) == len(phrases)
        for phrase in phrases:
            assert phrase == clean(phrase).lower()
            assert not set("{}[],.") & set(phrase)
            assert 1 <= len(phrase.split()) <= 5
