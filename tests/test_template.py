"""Templates come from outside: whatever they hold, they stay sentences with one slot."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmopt.errors import TemplateError
from llmopt.sentences import names_class
from llmopt.template import PLAIN, SLOT, Template, clean, display_name

# What models, files and attackers write: braces, format codes, control tokens and their halves,
# invisible and right-to-left characters, composed and decomposed letters.
PIECES = (
    "{}", "{", "}", "{0}", "{name}", "{{", "}}", "%s", "%(x)s", "$x", "\\n", "\n", "\r", "\t",
    "\0", "\x1b[31m", "'", '"', "`", "a", "photo", "of", " ", "  ", "\u00a0", "\u2028", "\u3000",
    "\u200b", "\u200d", "\ufeff", "\u202e", "\u2066", "é", "e\u0301", "ﬁ", "猫", "🐈", "ß",
    "\ud800", "\ue000", "<", ">", "|", "<start_of_text>", "<end_of_text>", "<|endoftext|>",
    "<|startoftext|>", "<END_OF_TEXT>", "< end_of_text >", "<start_of_", "text>", "end_of_text",
    "_", "/", ".", ",",
)  # fmt: skip
CONTROL = re.compile(r"<\s*\|?\s*(start|end)_?of_?text\s*\|?\s*>", re.IGNORECASE)

anything = st.one_of(st.text(st.characters()), st.lists(st.sampled_from(PIECES)).map("".join))
harmless = anything.map(lambda text: text.replace("{", "").replace("}", ""))


@given(anything)
@example("<start_<end_of_text>of_text>")
@example("<<end_of_text>end_of_text>")
@example("<|end\u200boftext|>")
@example("e<end_of_text>\u0301")
@example("<end_of<|startoftext|>_text>")
def test_cleaning_leaves_visible_text_and_nothing_to_clean(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    hidden = {c for c in cleaned if unicodedata.category(c).startswith("C")}
    assert hidden <= {"\u200c", "\u200d"}
    assert not hidden or not re.fullmatch(
        "[\0-\u05ff]*", cleaned.translate(dict.fromkeys([0x200C, 0x200D]))
    )
    assert cleaned == " ".join(cleaned.split())
    assert CONTROL.search(cleaned) is None


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a photo\nof a {}.", "a photo of a {}."),
        ("  a   {}\t", "a {}"),
        ("a pho\u200bto of\u202e a {}", "a photo of a {}"),
        ("cafe\u0301 {}", "café {}"),
        ("a {}<|endoftext|> of doom", "a {} of doom"),
        ("a {} <end_of_text", "a {} <end_of_text"),
        ("un\u00adbreakable\u00a0{}", "unbreakable {}"),
        ("می\u200cخواهم {}", "می\u200cخواهم {}"),  # Persian
        ("می\u200c\u200cخواهم\u200c {}", "می\u200cخواهم {}"),
        ("\u200dක්\u200dෂ\u200d {}", "ක්\u200dෂ {}"),  # Sinhala
        ("അവന്\u200d {}", "അവന്\u200d {}"),  # Malayalam, old spelling
        ("क्\u200cष {} क्\u200dष", "क्\u200cष {} क्\u200dष"),  # Hindi
        ("king\u200cfisher {}", "kingfisher {}"),
        ("猫\u200d {}\u200c", "猫 {}"),
        ("👩\u200d🚀 {}", "👩🚀 {}"),
        ("e\u200b\u0301 {}", "é {}"),
    ],
)
def test_cleaned_texts(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned
    assert Template(raw).text == cleaned


@given(anything)
def test_a_template_has_one_slot_or_is_refused(text: str) -> None:
    try:
        template = Template(text)
    except TemplateError:
        cleaned = clean(text)
        rest = cleaned.replace(SLOT, "")
        assert cleaned.count(SLOT) != 1 or "{" in rest or "}" in rest
        return
    assert template.text.count("{") == template.text.count("}") == 1
    assert SLOT in template.text
    assert Template(template.text) == template
    assert str(template) == template.text


@given(harmless, harmless, anything)
def test_filling_replaces_the_slot_and_reads_nothing_else(left: str, right: str, name: str) -> None:
    template = Template(f"{left} {SLOT} {right}")
    before, _, after = template.text.partition(SLOT)
    assert template.fill(name) == before + display_name(name) + after


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("car_side", "car side"),
        ("Boeing_737/800", "Boeing 737/800"),
        ("st._bernard", "st. bernard"),
        ("jack-o'-lantern", "jack-o'-lantern"),
        ('a "quoted" one', 'a "quoted" one'),
        ("100%_wool", "100% wool"),
        ("{}", "{}"),
        ("{0.__class__}", "{0. class }"),
        ("__yin__yang__", "yin yang"),
        ("café", "café"),
    ],
)
def test_class_names_stand_in_prompts_as_they_are(name: str, shown: str) -> None:
    assert Template("100% a {} \\n %s 'x'.").fill(name) == f"100% a {shown} \\n %s 'x'."
    assert Template(PLAIN).fill_all([name, "dog"]) == [
        f"a photo of a {shown}.",
        "a photo of a dog.",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a photo", "has no '{}'"),
        ("", "has no '{}'"),
        ("{} and {}", "has 2 '{}'"),
        ("a {} {", "brace outside"),
        ("a {class} {}", "brace outside"),
        ("a {0}", "has no '{}'"),
        ("{{}}", "brace outside"),
    ],
)
def test_refusals_say_what_is_wrong_and_quote_the_template(text: str, says: str) -> None:
    with pytest.raises(TemplateError) as refused:
        Template(text)
    assert says in str(refused.value)
    assert repr(text) in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_long_refused_text_is_shortened_in_the_message() -> None:
    with pytest.raises(TemplateError) as refused:
        Template("word " * 100_000)
    assert len(str(refused.value)) < 300


def test_control_tokens_between_the_braces_join_them_to_a_slot_or_not() -> None:
    assert Template("a {\u200b}").text == "a {}"
    with pytest.raises(TemplateError, match="has no"):
        Template("a {<end_of_text>}")


@given(harmless, harmless)
def test_case_and_space_do_not_count_in_the_normal_form(left: str, right: str) -> None:
    text = f"{left} {SLOT} {right}"
    spaced = text.replace(" ", " \t ")
    assert Template(spaced).normal == Template(text).normal
    assert Template("A Photo of a {}.").normal == Template("a photo of  a {}.").normal


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a red car and a {}.", "car"),
        ("a CAR {}", "car"),
        ("a carpet {}", None),
        ("a {} scar", None),
        ("a car_side view of {}", "car side"),
        ("car's {}", "car"),
        ("a {} in the jack o lantern", "jack-o'-lantern"),
        ("a photo of a {}.", None),
        ("two cars and a {}.", "car"),
        ("seen from the sides, car sides and a {}.", "car side"),
        ("buses beside a {}", "bus"),
        ("a glass of {}", None),
        ("stories of {}", "story"),
        ("gloves and {}", "glove"),
    ],
)
def test_class_names_inside_are_found_as_whole_words(text: str, found: str | None) -> None:
    names = ["car side", "car", "jack-o'-lantern", "!!!", "airplane", "bus", "glas", "story"]
    names.append("glove")
    assert names_class(Template(text), names) == found


def test_other_words_for_a_class_are_known_too() -> None:
    assert names_class(Template("two puppies and a {}."), ["Dogs"]) is None
    assert names_class(Template("two puppies and a {}."), ["Dogs"], synonyms=True) == "Dogs"
    assert names_class(Template("a {} in a coach."), ["bus"], synonyms=True) == "bus"
    assert names_class(Template("a red {}."), ["bus"], synonyms=True) is None
