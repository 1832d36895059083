"""Reads back what was exported, as the tools that it is for would."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import openpyxl
from safetensors import safe_open

from llmopt.export.base import Files
from llmopt.export.clip_benchmark import CLASSNAMES, TEMPLATES, WDS_CLASSNAMES, WDS_TEMPLATES
from llmopt.export.prompts import Prompt, PromptList
from llmopt.export.tables import COLUMNS
from llmopt.template import SLOT, Template


def read_txt(files: Files) -> PromptList:
    lines = only(files).decode("utf-8-sig").splitlines()
    return from_texts(Template(line).text for line in lines if line.strip())


def read_openclip(files: Files) -> PromptList:
    return _read_python(files, "TEMPLATES", "CLASSNAMES")


def read_openai(files: Files) -> PromptList:
    return _read_python(files, "templates", "classes")


def assigned(files: Files) -> dict[str, Any]:
    """What a Python file of literals assigns, without running it."""
    return {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(only(files)).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def only(files: Files) -> bytes:
    """The content of the one file."""
    (content,) = files.values()
    return content


def _read_python(files: Files, templates: str, classnames: str) -> PromptList:
    found = assigned(files)
    texts = [Template(text).text for text in found[templates]]
    return from_texts(texts, classnames=tuple(found[classnames]))


def read_json(files: Files) -> PromptList:
    data = json.loads(only(files))
    assert data["schema"] == 1
    prompts = tuple(
        Prompt(Template(e["text"]).text, e["weight"], e["train_accuracy"], e["val_accuracy"])
        for e in data["templates"]
    )
    return PromptList(prompts, tuple(data["classnames"]), data["dataset"], data["model"])


def read_csv(files: Files) -> PromptList:
    rows = csv.DictReader(io.StringIO(only(files).decode("utf-8-sig"), newline=""))
    return PromptList(
        tuple(
            Prompt(
                Template(unguard(row["template"])).text,
                float(row["weight"]),
                *(float(row[name]) if row[name] else None for name in COLUMNS[2:]),
            )
            for row in rows
        )
    )


_GUARDED = re.compile(r"''*[=+\-@\t\r\n＝＋－＠]")


def unguard(text: str) -> str:
    return text[1:] if _GUARDED.match(text) else text


def read_xlsx(files: Files) -> PromptList:
    book = openpyxl.load_workbook(io.BytesIO(only(files)), read_only=True)
    templates, classes = list(book["templates"].values)[1:], list(book["classes"].values)[1:]
    about = dict(book["about"].values)
    return PromptList(
        tuple(Prompt(Template(text).text, *numbers) for text, *numbers in templates),
        tuple(str(name) for _, name in classes),
        about["data set"] or "",
        about["black box"] or "",
    )


def read_clip_benchmark(files: Files) -> PromptList:
    templates, names = json.loads(files[TEMPLATES]), json.loads(files[CLASSNAMES])
    (key,) = templates
    texts = [plain_slot(text) for text in templates[key]]
    return from_texts(texts, classnames=tuple(names[key]), dataset=key)


def read_wds(files: Files) -> PromptList:
    templates, names = (
        files[name].decode("utf-8").removesuffix("\n").split("\n")
        for name in (WDS_TEMPLATES, WDS_CLASSNAMES)
    )
    return from_texts([plain_slot(text) for text in templates], classnames=tuple(names))


def plain_slot(template: str) -> str:
    parts = template.split("{c}")
    text = SLOT.join(part.replace("{{", "{").replace("}}", "}") for part in parts)
    return Template(text).text


def read_hf(files: Files) -> PromptList:
    found = assigned(files)
    template = Template(found["HYPOTHESIS_TEMPLATE"])
    return PromptList((Prompt(template.text),), tuple(found["CANDIDATE_LABELS"]))


def read_cupl(files: Files) -> PromptList:
    """The templates that were filled with the longest name."""
    found = json.loads(only(files))
    name = max(found, key=len)
    texts = [Template(text.replace(name, SLOT)).text for text in found[name]]
    return from_texts(texts, classnames=tuple(found))


def from_texts(texts: Iterable[str], **rest: Any) -> PromptList:
    """A list in which a text's weight is how often it is repeated."""
    lines = list(texts)
    weights = {text: lines.count(text) / len(lines) for text in lines}
    return PromptList(tuple(Prompt(text, weight) for text, weight in weights.items()), **rest)


def read_matrix(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Arrays and metadata of a classifier as safetensors."""
    with safe_open(path, framework="numpy") as file:
        metadata = json.loads(file.metadata()["llmopt"])
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


_READERS = {
    "txt": read_txt,
    "json": read_json,
    "csv": read_csv,
    "xlsx": read_xlsx,
    "openclip": read_openclip,
    "openai": read_openai,
    "clip-benchmark": read_clip_benchmark,
    "cupl": read_cupl,
    "wds": read_wds,
    "hf": read_hf,
}


def read(path: Path, format: str) -> PromptList:
    """The prompts in a file, or in a folder of files."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return _READERS[format]({file.name: file.read_bytes() for file in inside})
