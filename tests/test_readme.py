"""The README's Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmopt.data.shapes import ShapesDataset

README = Path(__file__).resolve().parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def pictures() -> dict[str, Any]:
    """What a reader has: images of three shapes, and a model."""
    world = ShapesDataset("shapes-small")
    names = ["circle", "square", "star"]
    found: dict[str, Any] = {}
    for part, prefix, count in (("train", "", 2), ("test", "test_", 5)):
        images, labels = world.split(part)  # type: ignore[arg-type]
        kept = [
            (image, names.index(world.classnames[label]))
            for image, label in zip(images, labels.tolist(), strict=True)
            if world.classnames[label] in names
        ]
        kept = [one for k in range(3) for one in [o for o in kept if o[1] == k][:count]]
        found[f"{prefix}images"] = [np.asarray(image.load()) for image, _ in kept]
        found[f"{prefix}labels"] = [label for _, label in kept]
    return found


def test_every_snippet_runs(
    pictures: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def my_model(images: list[Any], prompts: list[str]) -> Any:
        assert images[0].mode == "RGB"
        return np.array([[image.width % 7 + len(p) for p in prompts] for image in images])

    names: dict[str, Any] = {**pictures, "my_model": my_model}
    assert len(SNIPPETS) == 3
    assert all(len(code.splitlines()) <= 13 for code in SNIPPETS)
    for code in SNIPPETS:
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102
        assert names["run"].status == "complete"
    said = capsys.readouterr().out
    assert "None" not in said.splitlines()[0]
    assert "a tiny {}." in said
    assert "{" in (tmp_path / "prompts.py").read_text()
