"""The notebooks of the documentation, run from top to bottom.

    python tests/notebooks.py

runs them and keeps what they print, to be looked at before it is committed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import nbclient
import nbformat

NOTEBOOKS: Final = sorted((Path(__file__).resolve().parents[1] / "docs").glob("*.ipynb"))


def executed(path: Path, folder: Path) -> Any:
    """A notebook with what its cells print, run in a folder."""
    notebook = nbformat.read(path, as_version=4)
    nbclient.execute(
        notebook, str(folder), timeout=300, kernel_name="python3", coalesce_streams=True
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when and how long
        if "outputs" in cell:  # what is said of a machine on stderr is no part of the page
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def printed(notebook: Any) -> list[str]:
    """What each cell prints, as text."""
    found = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", ())
        texts = [one.get("text") or one["data"]["text/plain"] for one in outputs]
        found.append("".join(texts))
    return found


if __name__ == "__main__":
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
