"""JSON of our own, and tables: CSV and Excel.

A spreadsheet runs a text cell that begins with ``=`` and its kin as a formula. In CSV, which cannot
say what is text, such a text gets an apostrophe before it, as spreadsheets themselves write it; in
Excel files every text is marked as text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any, Final

from llmopt._optional import require
from llmopt.export.base import Files, Format
from llmopt.export.lists import encode
from llmopt.export.prompts import Prompt, PromptList

SCHEMA = 1
COLUMNS = ("template", "weight", "train_accuracy", "val_accuracy")

# What a spreadsheet takes for a formula, in whatever width it is written, and texts that look as if
# they were guarded already.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def write_json(prompts: PromptList, warnings: list[str]) -> Files:
    """llmopt's own format: everything a prompt list knows."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": prompts.dataset,
        "model": prompts.model,
        "templates": [
            {
                "text": prompt.text,
                "weight": prompt.weight,
                "train_accuracy": prompt.train_accuracy,
                "val_accuracy": prompt.val_accuracy,
            }
            for prompt in prompts.prompts
        ],
        "classnames": list(prompts.classnames),
    }
    if prompts.by_class:
        data["by_class"] = [
            [{"text": prompt.text, "weight": prompt.weight} for prompt in own]
            for own in prompts.by_class
        ]
    return {"prompts.json": encode(json.dumps(data, indent=2, ensure_ascii=False) + "\n")}


def write_csv(prompts: PromptList, warnings: list[str]) -> Files:
    """A row a template. Begins with a byte-order mark, without which Excel misreads UTF-8."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for prompt in prompts.prompts:
        table.writerow([guard(prompt.text), *_numbers(prompt)])
    return {"prompts.csv": b"\xef\xbb\xbf" + encode(text.getvalue())}


def guard(text: str) -> str:
    """A text no spreadsheet runs as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def write_xlsx(prompts: PromptList, warnings: list[str]) -> Files:
    """A workbook: the templates, the classes, and where they come from."""
    book = _openpyxl().Workbook()
    sheet = book.active
    sheet.title = "templates"
    _rows(sheet, [COLUMNS, *((p.text, *_numbers(p)) for p in prompts.prompts)], width=80)
    _rows(book.create_sheet("classes"), [("label", "name"), *enumerate(prompts.classnames)])
    about = [("data set", prompts.dataset), ("black box", prompts.model)]
    _rows(book.create_sheet("about"), about, header=False)
    content = io.BytesIO()
    book.save(content)
    return {"prompts.xlsx": content.getvalue()}


def _rows(sheet: Any, rows: list[Any], width: int = 24, header: bool = True) -> None:
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row, start=1):
            cell = sheet.cell(number, column)
            cell.value = _printable(value) if isinstance(value, str) else value
            if isinstance(value, str):
                cell.data_type = "s"  # openpyxl takes '=' for a formula
                cell.quotePrefix = True  # and so would Excel, once the cell is edited
            if header and number == 1:
                cell.font = _openpyxl().styles.Font(bold=True)
    sheet.column_dimensions["A" if width > 24 else "B"].width = width
    if header:
        sheet.freeze_panes = "A2"


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def _numbers(prompt: Prompt) -> tuple[float | None, ...]:
    return prompt.weight, prompt.train_accuracy, prompt.val_accuracy


def _openpyxl() -> Any:
    return require("openpyxl", "xlsx", "an Excel workbook")


JSON: Final = Format(write_json, by_class=True)
CSV: Final = Format(write_csv)
XLSX: Final = Format(write_xlsx, text=False)
