"""The formats a run's prompts can be had in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from llmopt.errors import ConfigError, LlmoptError, RunFolderError, nearest
from llmopt.export import clip_benchmark, lists, tables, transformers
from llmopt.export.lists import Files
from llmopt.export.prompts import PromptList, read_run
from llmopt.runs.folder import read_result, warn_if_interrupted
from llmopt.spend.events import Watch


@dataclass(frozen=True)
class Format:
    """How prompts are written for another tool, and read back.

    Attributes:
        about: whom it is for, a few words.
        write: takes a prompt list and a list that warnings are added to; gives files by name.
        read: its inverse.
        text: whether it can be shown on a terminal.
    """

    about: str
    write: Callable[[PromptList, list[str]], Files]
    read: Callable[[Files], PromptList]
    text: bool = True


FORMATS: Final[dict[str, Format]] = {
    "txt": Format("one template a line", lists.write_txt, lists.read_txt),
    "json": Format("everything: weights, scores, classes", tables.write_json, tables.read_json),
    "csv": Format("a table, safe to open anywhere", tables.write_csv, tables.read_csv),
    "xlsx": Format("an Excel workbook", tables.write_xlsx, tables.read_xlsx, text=False),
    "openclip": Format(
        "open_clip.build_zero_shot_classifier", lists.write_openclip, lists.read_openclip
    ),
    "openai": Format("OpenAI's CLIP notebook", lists.write_openai, lists.read_openai),
    "clip-benchmark": Format(
        "clip_benchmark's two JSON files", clip_benchmark.write_json, clip_benchmark.read_json
    ),
    "wds": Format(
        "a webdataset's two text files", clip_benchmark.write_wds, clip_benchmark.read_wds
    ),
    "hf": Format("a script for transformers' pipeline", transformers.write, transformers.read),
}
"""Formats of text prompts; ``safetensors`` takes every kind of predictor and stands apart."""

MATRIX: Final = "safetensors"
NAMES: Final = (*FORMATS, MATRIX)


@dataclass(frozen=True)
class Exported:
    """Files, not yet written.

    Attributes:
        files: content by name.
        text: whether a single file can be shown on a terminal.
        warnings: what the format could not keep, and whether the run was interrupted.
    """

    files: Files
    text: bool
    warnings: list[str] = field(default_factory=list)

    def single_text(self, format: str) -> str:
        """The one text there is.

        Raises:
            ConfigError: it is something else, and needs a place on disk.
        """
        if not self.text or len(self.files) > 1:
            what = "is not text" if not self.text else "is several files"
            raise ConfigError(f"format '{format}' {what}; say where it goes with --out")
        return next(iter(self.files.values())).decode("utf-8-sig")


def export(
    folder: Path,
    format: str,
    top: int | None = None,
    key: str | None = None,
    watch: Watch | None = None,
) -> Exported:
    """What a run found, in a format.

    Args:
        folder: of a finished run.
        format: one of :data:`NAMES`.
        top: add runners-up, or leave templates out, to make this many.
        key: name of the data set in the files, where a format has one.
        watch: told what takes a while.

    Raises:
        ConfigError: an unknown format (the nearest is suggested), or one that does not fit.
    """
    if format not in NAMES:
        raise ConfigError(
            f"unknown format '{format}'{nearest(format, NAMES)} (there are: {', '.join(NAMES)})"
        )
    warnings: list[str] = []
    warn_if_interrupted(folder, read_result(folder), warnings.append)
    if format == MATRIX:
        from llmopt.export.matrix import write

        if top is not None:
            raise ConfigError("--top chooses templates; --format safetensors has one classifier")
        return Exported(write(folder, watch or Watch()), text=False, warnings=warnings)
    chosen = FORMATS[format]
    prompts = read_run(folder, top, warnings)
    if key:
        prompts = dataclasses.replace(prompts, dataset=key)
    return Exported(chosen.write(prompts, warnings), chosen.text, warnings)


def save(exported: Exported, out: Path) -> list[Path]:
    """Write files: a single one as ``out`` (or into it, if it is a folder), several into it.

    Raises:
        RunFolderError: they cannot be written.
    """
    single = len(exported.files) == 1 and not out.is_dir()
    paths = {out if single else out / name: data for name, data in exported.files.items()}
    try:
        for path, content in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror or error}") from error
    return list(paths)


def read(path: Path, format: str) -> PromptList:
    """The prompts in a file, or in a folder of files, that :func:`save` wrote.

    Raises:
        ConfigError: it is missing, or in another format.
    """
    if format not in FORMATS:
        raise ConfigError(f"format '{format}' holds no prompt list that could be read")
    try:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files = {file.name: file.read_bytes() for file in inside if file.is_file()}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not files:
        raise ConfigError(f"there is no file {path}")
    try:
        return FORMATS[format].read(files)
    except LlmoptError:
        raise
    except Exception as error:  # each kind of file is damaged in its own way
        raise ConfigError(f"{path} holds no prompts of format '{format}' ({error!r})") from error
