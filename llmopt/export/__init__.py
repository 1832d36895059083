"""What a run found, in other tools' formats; this page is their list.

============== ==================================================
name           whom it is for
============== ==================================================
txt            people: one template a line
json           programs: weights, scores, classes
csv            spreadsheets: a table that is safe to open anywhere
xlsx           Excel: a workbook
openclip       ``open_clip.build_zero_shot_classifier``
openai         OpenAI's CLIP notebook
clip-benchmark CLIP_benchmark: its two JSON files
cupl           CuPL: each class with its prompts
wds            a webdataset: its two text files
hf             transformers: a script for its pipeline
============== ==================================================

``safetensors`` takes every kind of predictor and stands apart (:mod:`llmopt.export.matrix`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmopt.registry import Registry

if TYPE_CHECKING:
    from llmopt.export.base import Format

MATRIX: Final = "safetensors"

FORMATS: Final[Registry[Format]] = Registry(
    "export format",
    "exports",
    {
        "txt": "llmopt.export.lists:TXT",
        "json": "llmopt.export.tables:JSON",
        "csv": "llmopt.export.tables:CSV",
        "xlsx": "llmopt.export.tables:XLSX",
        "openclip": "llmopt.export.lists:OPENCLIP",
        "openai": "llmopt.export.lists:OPENAI",
        "clip-benchmark": "llmopt.export.clip_benchmark:CLIP_BENCHMARK",
        "cupl": "llmopt.export.clip_benchmark:CUPL",
        "wds": "llmopt.export.clip_benchmark:WDS",
        "hf": "llmopt.export.transformers:PIPELINE",
    },
    base="llmopt.export.base:Format",
    reserved=(MATRIX,),
)
"""Formats of text prompts."""
