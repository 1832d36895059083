"""Plain lists of templates: a text file, and the Python lists of open_clip and OpenAI's CLIP."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from llmopt.export.prompts import PromptList, from_texts, repeated
from llmopt.template import Template

Files = dict[str, bytes]


def write_txt(prompts: PromptList, warnings: list[str]) -> Files:
    """One template a line."""
    lines = repeated(prompts, warnings)
    return {"prompts.txt": encode("".join(f"{text}\n" for text in lines))}


def read_txt(files: Files) -> PromptList:
    """The inverse of :func:`write_txt`."""
    lines = only(files).decode("utf-8-sig").splitlines()
    return from_texts(Template(line).text for line in lines if line.strip())


def write_openclip(prompts: PromptList, warnings: list[str]) -> Files:
    """A Python file for ``open_clip.build_zero_shot_classifier``."""
    text = (
        "# For open_clip.build_zero_shot_classifier(model, tokenizer, CLASSNAMES, TEMPLATES).\n"
        f"TEMPLATES = {literal(repeated(prompts, warnings))}\n\n"
        f"CLASSNAMES = {literal(prompts.names)}\n"
    )
    return {"prompts_openclip.py": encode(text)}


def read_openclip(files: Files) -> PromptList:
    """The inverse of :func:`write_openclip`."""
    return _read_python(files, "TEMPLATES", "CLASSNAMES")


def write_openai(prompts: PromptList, warnings: list[str]) -> Files:
    """The two lists of OpenAI's notebook and prompt page."""
    text = (
        f"classes = {literal(prompts.names)}\n\n"
        f"templates = {literal(repeated(prompts, warnings))}\n"
    )
    return {"prompts_openai.py": encode(text)}


def read_openai(files: Files) -> PromptList:
    """The inverse of :func:`write_openai`."""
    return _read_python(files, "templates", "classes")


def literal(texts: Sequence[str]) -> str:
    """A Python list, one text a line; what cannot be seen is escaped."""
    return "[\n" + "".join(f"    {text!r},\n" for text in texts) + "]"


def assigned(files: Files) -> dict[str, Any]:
    """What a Python file of literals assigns, without running it."""
    return {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(only(files)).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def encode(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which a file name may hold, is written as an escape."""
    return text.encode("utf-8", "backslashreplace")


def only(files: Files) -> bytes:
    """The content of the one file."""
    (content,) = files.values()
    return content


def _read_python(files: Files, templates: str, classnames: str) -> PromptList:
    found = assigned(files)
    texts = [Template(text).text for text in found[templates]]
    return from_texts(texts, classnames=tuple(found[classnames]))
