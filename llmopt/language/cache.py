"""Replies kept across runs.

An entry is one reply to one question: model, parameters, messages and a sample index. Asking the
same again within a run is another sample and another entry, so repeated sampling stays random;
doing the same run again finds every sample where it left it.

Entries are single JSON files, written whole or not at all. A cache that cannot be read or written
makes a run dearer, never wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

_VERSION = 1


class ResponseCache:
    """A folder of replies.

    Args:
        folder: where they lie; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, question: str) -> dict[str, Any] | None:
        """The reply kept for a question, or None."""
        try:
            entry = json.loads(self._path(question).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(entry, dict) or entry.get("version") != _VERSION:
            return None
        reply = entry.get("reply")
        return reply if isinstance(reply, dict) else None

    def put(self, question: str, reply: dict[str, Any]) -> None:
        """Keep a reply, unless the folder does not take it."""
        path = self._path(question)
        text = json.dumps({"version": _VERSION, "reply": reply}, ensure_ascii=True)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _path(self, question: str) -> Path:
        name = hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / f"{name}.json"
