"""Text that people wrote: tables, lists of names, split files. All of it is read here."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from llmopt.errors import DatasetError, seen_from


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of a file.

    Args:
        path: a regular file; a pipe or a device could go on for ever.
        what: it is, for the message.

    Raises:
        DatasetError: it cannot be had, or is no such text.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DatasetError(f"{what} {path} is a folder, a pipe or a device, not a file")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        why = f"{error.strerror}{seen_from(path)}"
        raise DatasetError(f"{what} {path} cannot be read ({why})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{what} {path} is not text in UTF-8: byte {error.object[error.start]:#04x} at "
            f"{error.start:,}; save it as UTF-8"
        ) from error
    except ValueError as error:  # a path that no file can have
        raise DatasetError(f"{what} {str(path)!r} cannot be read ({error})") from error


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text, stripped, with the blank ones but for those at its end.

    Lines end where editors end them; ``str.splitlines`` would also cut at form feeds and the like.

    Raises:
        DatasetError: as :func:`read_text`.
    """
    text = read_text(path, what).replace("\r\n", "\n").replace("\r", "\n")
    return [line.strip() for line in text.rstrip().split("\n")]


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, or nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
