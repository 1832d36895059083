"""Reading templates out of whatever a language model replies.

A reply is outside text of any shape: a list with bullets or numbers, quoted lines, a fenced block,
JSON, a table, a lecture, a refusal, or noise. :func:`parse_reply` keeps every usable template, says
what was wrong with each of the others, and never raises.

It works in three steps: cut away what is not the answer (reasoning, all before the last line
``Templates:``, fences), find the candidate
texts (JSON strings, table cells, list items, or else plain lines with a slot), and tidy each one
until nothing is left to strip. A template that came out of a reply goes in and out again unchanged.
"""

from __future__ import annotations

import html
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llmopt.errors import TemplateError
from llmopt.language.reasoning import strip_reasoning
from llmopt.sentences import names_class
from llmopt.template import SLOT, Template, clean

# No prompt of a contrastive model holds more than 77 tokens; far longer texts are not templates.
MAX_CHARS = 400
# Enough for any sane request; what a model says beyond it is dropped, so garbage stays cheap.
MAX_TEMPLATES = 64
_MAX_REJECTED = 64
# No reply within a sane token limit is longer; what stands beyond is not read.
_MAX_READ = 200_000
_MAX_SHOWN = 160


@dataclass(frozen=True)
class Rejection:
    """A proposal that cannot be used.

    Attributes:
        text: what was proposed, shortened.
        reason: ``slots``, ``classname``, ``too_long``, ``duplicate``, ``surplus``, ``malformed``,
            ``refusal`` or ``empty``; or the ``reason`` of the error that ``check`` raised.
        message: one sentence that tells the model what to do better.
    """

    text: str
    reason: str
    message: str


@dataclass(frozen=True)
class ParsedReply:
    """What a reply proposed: usable templates in order, and the rest with reasons."""

    templates: tuple[Template, ...] = ()
    rejected: tuple[Rejection, ...] = ()


def parse_reply(
    text: str,
    classnames: Sequence[str] = (),
    check: Callable[[Template], None] | None = None,
) -> ParsedReply:
    """The templates in a reply.

    Args:
        text: the reply as it came.
        classnames: names that must not stand in a template.
        check: a further test, such as the token length; raises
            :class:`~llmopt.errors.TemplateError` to reject a template (as ``too_long``, or as the
            error's own ``reason`` attribute).
    """
    answer = _last_list(_unwrapped(strip_reasoning(text)[:_MAX_READ]))
    templates: dict[str, Template] = {}
    rejected: list[Rejection] = []
    for candidate in _candidates(answer):
        if len(rejected) >= _MAX_REJECTED:
            break
        outcome = _judge(candidate, templates, classnames, check)
        if isinstance(outcome, Rejection):
            rejected.append(outcome)
        elif len(templates) >= MAX_TEMPLATES:
            message = f"only {MAX_TEMPLATES} templates are taken"
            rejected.append(_reject(candidate, "surplus", message))
            break
        else:
            templates[outcome.normal] = outcome
    if not templates and not rejected:
        rejected.append(_nothing_found(answer))
    return ParsedReply(tuple(templates.values()), tuple(rejected))


# ---------------------------------------------------------------------------------- judging


def _judge(
    candidate: str,
    known: dict[str, Template],
    classnames: Sequence[str],
    check: Callable[[Template], None] | None,
) -> Template | Rejection:
    if len(candidate) > MAX_CHARS:
        return _reject(
            candidate, "too_long", f"it has {len(candidate)} characters; stay under {MAX_CHARS}"
        )
    try:
        template = Template(candidate)
    except TemplateError:
        slots = candidate.count(SLOT)
        fault = f"it has {slots} '{{}}'" if slots != 1 else "it has a brace besides its '{}'"
        return _reject(candidate, "slots", f"{fault}; write exactly one {{}} and no other brace")
    if template.text.strip(" .,;:!?'\"") == SLOT:
        return _reject(candidate, "malformed", "it has no words besides its '{}'")
    if (name := names_class(template, classnames)) is not None:
        return _reject(
            candidate, "classname", f"it names the class '{name}'; write only {{}} for the class"
        )
    if template.normal in known:
        return _reject(candidate, "duplicate", "it stands in this reply already")
    if check is not None:
        try:
            check(template)
        except TemplateError as error:
            return _reject(candidate, getattr(error, "reason", "too_long"), str(error))
    return template


def _reject(text: str, reason: str, message: str) -> Rejection:
    shown = clean(text[: 2 * _MAX_SHOWN])
    if len(shown) > _MAX_SHOWN:
        shown = shown[: _MAX_SHOWN - 1] + "…"
    return Rejection(shown, reason, message)


_REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able|afraid)|i (?:can(?:no|['’])t|won['’]t)|"
    r"as an ai|i apologi[sz]e|je ne peux pas|no puedo|ich kann (?:dir |ihnen )?(?:das |dabei )?"
    r"(?:leider )?nicht|es tut mir leid|lo siento|désolée?)\b|抱歉|无法|申し訳|извините|не могу",
    re.IGNORECASE,
)


def _nothing_found(answer: str) -> Rejection:
    ask = "write one template per line, each beginning with '- ' and holding exactly one {}"
    if not clean(answer[:_MAX_LINE]):
        return Rejection("", "empty", f"the reply is empty; {ask}")
    if _REFUSAL.search(answer[:2000]):
        return _reject(answer, "refusal", f"the reply proposes nothing; {ask}")
    return _reject(answer, "malformed", f"no template was found in the reply; {ask}")


# ------------------------------------------------------------------------- finding candidates

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n`]*$", re.MULTILINE)
_LINE_BREAK = re.compile(
    r"<\s*(?:br|/\s*(?:li|p|tr|div|item|template|prompt|option))\s*/?\s*>|[\r\v\f\x85\u2028\u2029]",
    re.IGNORECASE,
)
_JSON_START = re.compile(r"\[\s*[\"\[{]|\{\s*\"")
_MAX_LINE = 4000
_MAX_LINES = 2000


def _candidates(answer: str) -> Iterator[str]:
    """Texts that look like proposals, tidied, best guess at what is meant."""
    segments = _FENCE.split(_LINE_BREAK.sub("\n", answer))
    plain: list[str] = []
    marked: list[str] = []
    for position, segment in enumerate(segments):
        fenced = position % 2 == 1
        segment = _unwrapped(segment)
        strings = _json_strings(segment)
        if strings:
            marked += strings
            continue
        for line in _lines(segment):
            texts, is_item = _tidy(line)
            if fenced or is_item:
                # A heading or an explanation below an item proposes nothing.
                marked += [t for t in texts if SLOT in t or not (fenced or _is_heading(t))]
            elif not line.endswith((":", "：")):
                plain += [t for t in texts if SLOT in t]
    # Prose around a list may mention the slot too; without a list, such lines are the proposals.
    yield from marked if any(SLOT in t for t in marked) or not plain else plain


_LAST_LIST = re.compile(r"^[^\w\n]*templates[^\w\n]*$", re.IGNORECASE | re.MULTILINE)


def _last_list(answer: str) -> str:
    """What stands below the last line ``Templates:``, which a model writes after its thoughts."""
    last = answer
    for found in _LAST_LIST.finditer(answer):
        last = answer[found.end() :]
    return last if SLOT in last else answer


def _lines(segment: str) -> Iterator[str]:
    whole = re.finditer(r"[^\n]*[^\s][^\n]*", segment)
    for line in itertools.islice(whole, _MAX_LINES):
        yield line.group()[: _MAX_LINE + 1].strip()


def _is_heading(text: str) -> bool:
    return not text or text.endswith((":", "：")) or not any(c.isalnum() for c in text)


def _json_strings(segment: str) -> list[str]:
    """Template-like strings inside JSON values of the segment, in order."""
    decoder = json.JSONDecoder()
    found: list[str] = []
    position = failures = 0
    while failures < 4 and len(found) < _MAX_LINES:
        start = _JSON_START.search(segment, position)
        if start is None:
            break
        try:
            value, position = decoder.raw_decode(segment, start.start())
        except (ValueError, RecursionError):
            failures += 1
            position = start.end()
            continue
        lines = (line for string in _strings(value) for line in _lines(string))
        found += [text for line in lines for text in _tidy(line)[0] if SLOT in text]
    return found


def _unwrapped(answer: str) -> str:
    """What an answer says that is one JSON string as a whole, or several times over."""
    while (text := answer.strip()).startswith('"') and text.endswith('"'):
        try:
            inner = json.loads(text, strict=False)
        except ValueError:
            break
        answer = inner
    return answer


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value, keys included, in order and without recursion.

    A string may hold JSON in its turn, as the arguments of a tool do.
    """
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            try:
                inner = json.loads(item) if _JSON_START.match(item.lstrip()) else None
            except (ValueError, RecursionError):
                inner = None
            if inner is None:
                yield item
            else:
                todo.append(inner)
        elif isinstance(item, list):
            todo.extend(reversed(item))
        elif isinstance(item, dict):
            todo.extend(part for pair in reversed(item.items()) for part in reversed(pair))


# ------------------------------------------------------------------------------------ tidying

# By opening quote, what may close it: one language's closing quote opens another's.
_QUOTES = {
    '"': '"', "'": "'", "“": "”„", "”": "”", "„": "“”", "‟": "”", "‘": "’‚", "’": "’", "‚": "‘’",
    "‛": "’", "«": "»", "»": "«", "‹": "›", "›": "‹", "「": "」", "『": "』", "｢": "｣", "﹁": "﹂",
    "﹃": "﹄", "《": "》", "〈": "〉", "〝": "〞〟", "❝": "❞", "❛": "❜", "⟨": "⟩", "＂": "＂",
    "＇": "＇", "`": "`'", "´": "´",
}  # fmt: skip
# Inside a line; an apostrophe is no quote within a word.
_QUOTED = re.compile(
    "|".join(
        rf"{opening}([^{opening}{closing}\n]+)[{closing}]"
        for opening, closing in _QUOTES.items()
        if opening not in "'’‘´"
    )
    + r"|(?<![^\s\[(,:=])'((?:[^'\n]|'(?=\w))+)'(?!\w)"
)
_BEFORE_QUOTE = re.compile(r"(?:^|[:：=→>|\-–—\[({,;])\s*$")
_EMPHASIS = re.compile(r"\*\*|__(?=\S)|(?<=\S)__|~~")
_EMPHASISED = ("*", "_")
_BOLD_LABEL = re.compile(r"^\*\*[^*{}\[\]<>]{1,80}\*\*\s*[:：\-–—]?\s*(?=\S)")
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]()#+\-.!<>|~\"'])")
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9_-]{0,20}(?:\s[^<>]{0,80})?/?>")
_BULLET = re.compile(r"^(?:[-*+>•‣◦⁃∙·●○▪▫■□▶►➤➜→–—―−‐‑#]|\\item\b|\[[ xX✓✔]\](?=\s))+\s*(?=\S)")
_NUMBER = re.compile(
    r"^(?:"
    r"[(（\[]\s*(?:\d{1,4}|[a-zA-Z]|[ivxIVX]{1,5}|[一二三四五六七八九十]{1,3})\s*[)）\]]"
    r"|#?\d{1,4}\s*(?:[.．](?!\d)|[)）\]、。،:：](?!\d)|[-–—](?=\s)|\ufe0f?\u20e3)"
    r"|[a-zA-Z][.)](?=\s)|[ivxIVX]{2,5}[.)](?=\s)"
    r"|第?[一二三四五六七八九十\d]{1,3}[条个]?[、．.：:]|第[一二三四五六七八九十\d]{1,3}[条个](?=\s)"
    r"|[^\W\d_]{2,15}\s*[#№]?\s*\d{1,3}\s*[:：]"
    r"|(?:template|prompt|text|proposal|candidate|suggestion|vorlage|plantilla|modèle|modello|шаблон"
    r"|模板|テンプレート)s?\s*[:：]"
    r"|№\s*\d{1,4}[.:)]?"
    r")\s*(?=\S)",
    re.IGNORECASE,
)
_LEADING_SCORE = re.compile(r"^[-+]?\d{1,3}[.,]\d+\s*%?\s*[:|\t]\s*")
# A whole number without a sign is a year, a size or a count.
_TRAILING_SCORE = re.compile(
    r"\s*[(（\[]\s*(?:(?:score|acc(?:uracy)?|logprob)\b[^(){}\[\]]{0,60}"
    r"|[-+]?\d+[.,]\d+\s*%?|[-+]\d+\s*%?|\d+\s*%)\s*[)）\]]$",
    re.IGNORECASE,
)
_NAMES = (
    r"(?:(?:the|your|insert|target|image)[\s_-]+)?"
    r"(?:class|object|label|category|name|item|thing|subject|noun|concept|target|placeholder|entity"
    r"|classname|slot|klasse|objekt|clase|objeto|classe|objet|类别|物体|对象|クラス)"
    r"(?:[\s_-]*(?:name|label|here|\d))?"
)
_SLOTS = re.compile(
    r"\$?[{｛]+\s*(?:[\w.:!'-]{0,30}(?:[ \t]+[\w'-]{1,20}){0,2})\s*[}｝]+"
    rf"|[\[<〈【]{{1,2}}\s*(?i:{_NAMES})\s*[\]>〉】]{{1,2}}"
    r"|[\[<]\s*[A-Z][A-Z0-9]*(?:[ _-][A-Z0-9]+){0,3}\s*[\]>]"
)
_LOOSE_SLOTS = re.compile(r"%s\b|_{3,}|\b(?:CLASS[_ ]?NAME|CLASS[_ ]LABEL|OBJECT[_ ]NAME|CLASS)\b")
_SYMBOLS = {"So", "Sk", "No", "Mn"}


def _tidy(text: str) -> tuple[list[str], bool]:
    """The candidate texts in one line, and whether it is marked as an item of a list.

    Stripping one layer may bare another (a quoted text in a numbered line in bold), so this goes
    on until nothing changes; every step shortens the text, so it ends.
    """
    if len(text) > _MAX_LINE:
        return [text], False
    item = text[:1] in _EMPHASISED and text[-1:] in _EMPHASISED
    while True:
        before = text
        text = clean(html.unescape(_ESCAPED.sub(r"\1", text)))
        text, marked = _unmark(text)
        text = _SLOTS.sub(SLOT, text)
        if SLOT not in text:
            text = _LOOSE_SLOTS.sub(SLOT, text, count=1)
        text = _TAG.sub("", text)
        text = _EMPHASIS.sub("", _BOLD_LABEL.sub("", text) if SLOT in text else text)
        text = _TRAILING_SCORE.sub("", text)
        text, quoted = _unquote(text)
        item = item or marked or quoted
        parts = _cells(text) if "|" in text else _quoted_parts(text)
        if parts or "|" in text:
            return [t for part in parts for t in _tidy(part)[0]], True
        if text == before:
            return ([text] if text else []), item


def _unmark(text: str) -> tuple[str, bool]:
    """A line without bullets, numbering and leading symbols."""
    start = text
    while True:
        before = text
        while text and _is_symbol(text[0]):
            text = text[1:].lstrip()
        text = text if text.startswith("**") else _BULLET.sub("", text)
        text = _LEADING_SCORE.sub("", _NUMBER.sub("", text))
        if text == before:
            return text, text != start


def _is_symbol(character: str) -> bool:
    """Whether it can only mark an item: an emoji or ①, but no quote and no fraction such as ½."""
    marks = unicodedata.category(character) in _SYMBOLS and character not in _QUOTES
    return marks and unicodedata.numeric(character, 1.0) % 1 == 0


def _unquote(text: str) -> tuple[str, bool]:
    """A text without the quotes around it and the list punctuation behind it."""
    quoted = False
    while True:
        before = text
        text = text.rstrip(" ,;，；、*_~|").lstrip(" |*_~")
        if len(text) > 1 and text[-1] in _QUOTES.get(text[0], ""):
            text, quoted = text[1:-1], True
        if text == before:
            return text, quoted


def _cells(text: str) -> list[str]:
    """The cells of a table row that hold a slot; none in a header or a ruler."""
    return [cell for cell in text.split("|") if SLOT in cell]


def _quoted_parts(text: str) -> list[str]:
    """Quoted templates after a label or in a list: ``close-up: "a close-up of a {}" (detail)``."""
    parts: list[str] = []
    for match in _QUOTED.finditer(text):
        inner = next(group for group in match.groups() if group is not None)
        words = inner.replace(SLOT, "")
        if SLOT in inner and any(c.isalpha() for c in words):
            if not parts and not _BEFORE_QUOTE.search(text, 0, match.start()):
                return []
            parts.append(inner)
    return parts
