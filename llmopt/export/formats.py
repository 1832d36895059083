"""From a run folder and the name of a format to files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from llmopt.errors import ConfigError, RunFolderError, nearest
from llmopt.export import FORMATS, MATRIX
from llmopt.export.base import Files
from llmopt.export.prompts import read_run
from llmopt.runs.folder import read_result, warn_if_interrupted
from llmopt.spend.events import Watch
from llmopt.spend.files import write_bytes


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
    trust_config: bool = False,
) -> Exported:
    """What a run found, in a format.

    Args:
        folder: of a finished run.
        format: one of :data:`FORMATS`, or ``safetensors``.
        top: add runners-up, or leave templates out, to make this many.
        key: name of the data set in the files, where a format has one.
        watch: told what takes a while.
        trust_config: as in :func:`llmopt.resume`, where the model is opened.

    Raises:
        ConfigError: an unknown format (the nearest is suggested), or one that does not fit.
    """
    if format != MATRIX and format not in FORMATS:
        known = [*FORMATS, MATRIX]
        raise ConfigError(
            f"unknown format '{format}'{nearest(format, known)} (there are: {', '.join(known)})"
        )
    warnings: list[str] = []
    warn_if_interrupted(folder, read_result(folder), warnings.append)
    if format == MATRIX:
        from llmopt.export.matrix import write

        if top is not None:
            raise ConfigError("--top chooses templates; --format safetensors has one classifier")
        return Exported(
            write(folder, watch or Watch(), trust_config), text=False, warnings=warnings
        )
    chosen = FORMATS.get(format)
    prompts = read_run(folder, top, warnings)
    if prompts.by_class and not chosen.by_class:
        fitting = ", ".join(name for name, one in FORMATS.usable().items() if one.by_class)
        raise ConfigError(
            f"format '{format}' has no place for classes with prompts of their own; these have: "
            f"{fitting}, {MATRIX}"
        )
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
            write_bytes(path, content)
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror or error}") from error
    return list(paths)
