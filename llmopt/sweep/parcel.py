"""A run folder as bytes, for workers that do not share the file system."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from llmopt.errors import RunFolderError
from llmopt.runs import folder as run_folder
from llmopt.spend.files import keeping, write_bytes

_LAST = ("", run_folder.CONFIG, run_folder.RESULT)
"""Files that say the others are there come after them."""


def pack(folder: Path) -> bytes:
    """The files of a run folder, those that begin with a dot left out."""
    raw = io.BytesIO()
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    with tarfile.open(fileobj=raw, mode="w") as parcel:
        for path in sorted(files, key=_place):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # a temporary one, or the answers of a run that just ended
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = len(content)
            parcel.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def _place(path: Path) -> int:
    return _LAST.index(path.name) if path.name in _LAST else 0


def unpack(parcel: bytes, folder: Path) -> None:
    """Write them into a folder, whole files only; a result names the folder it is in now.

    Raises:
        RunFolderError: it is no parcel, a file in it would lie elsewhere, or cannot be written.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(parcel), mode="r:") as files:
            found = [(e.name, files.extractfile(e)) for e in files.getmembers() if e.isreg()]
            contents = [(name, file.read()) for name, file in found if file is not None]
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise RunFolderError(f"what came back for {folder} is damaged: {error}") from error
    with keeping(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents:
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise RunFolderError(f"what came back for {folder} has a file elsewhere: {name!r}")
            if name == run_folder.RESULT:
                content = json.dumps({**json.loads(content), "run": str(folder)}, indent=2).encode()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
