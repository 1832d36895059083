"""All that pages of the documentation say to do is done, and what they show is what is seen."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import typer
from fastapi.testclient import TestClient
from hostile_server import HostileServer
from notebooks import NOTEBOOKS, executed, printed
from paper_runs import paper_run
from reader import BLOCK, Reader, commands, steady

import llmopt
from llmopt.cli.app import load
from llmopt.data.shapes import ShapesDataset
from llmopt.images import as_image
from llmopt.runs import config
from llmopt.vision.openclip import OpenClipBlackBox

CHECKOUT = Path(__file__).resolve().parents[1]
FAST = {"README", "first-run"}
PAGES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.long] * (path.stem not in FAST))
    for path in (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md")))
]
CROCKERY = {"circle": "plate", "ring": "bowl", "heart": "mug", "bar": "spoon"}


@pytest.fixture(scope="module")
def llm() -> Iterator[str]:
    """The address of a language model."""
    with HostileServer() as server:
        yield server.url


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen pictures of each of four classes: drawn ones, under a reader's names."""
    root = tmp_path_factory.mktemp("photos")
    world = ShapesDataset("shapes-small")
    images, labels = world.split("test")
    for image, label in zip(images, labels.tolist(), strict=True):
        if name := CROCKERY.get(world.classnames[label]):
            folder = root / name
            folder.mkdir(exist_ok=True)
            count = len(list(folder.iterdir())) + 1
            if count <= 18:
                image.load().save(folder / f"{count:02}.jpg", quality=95)
    return root


@pytest.fixture(scope="module")
def session(photos: Path) -> dict[str, Any]:
    """What a reader's Python knows: a task, a model, a photo."""
    box = OpenClipBlackBox("shapes-tiny")
    world = ShapesDataset("shapes-small")
    images, labels = world.split("train")
    pictures = [np.asarray(image.load()) for image in images[:60]]
    task = llmopt.Task.from_images(pictures, labels[:60], list(world.classnames))

    def embed_images(images: list[Any]) -> Any:
        return box.image_features([as_image(image) for image in images])

    def my_model(images: list[Any], prompts: list[str]) -> Any:
        light = np.array([np.asarray(image).mean() for image in images])
        return light[:, None] / 100 + [[len(prompt) % 7 for prompt in prompts]]

    shown = ["circle", "square", "star"]
    found: dict[str, Any] = {}
    for part, prefix, count in (("train", "", 2), ("test", "test_", 5)):
        images, labels = world.split(part)  # type: ignore[arg-type]
        kept = [
            (np.asarray(image.load()), shown.index(name))
            for name in shown
            for image in [
                image
                for image, label in zip(images, labels.tolist(), strict=True)
                if world.classnames[label] == name
            ][:count]
        ]
        found[f"{prefix}images"] = [image for image, _ in kept]
        found[f"{prefix}labels"] = [label for _, label in kept]
    return found | {
        "task": task,
        "my_model": my_model,
        "embed_images": embed_images,
        "embed_texts": box.text_features,
        "photo": pictures[0],
        "photo_file": str(photos / "plate" / "01.jpg"),
    }


@pytest.mark.usefixtures("shared_cache")
@pytest.mark.parametrize("page", PAGES)
def test_page(
    page: Path,
    llm: str,
    photos: Path,
    session: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # 127.0.0.1 only
    monkeypatch.setattr(config, "PAPER_MODEL", ("shapes-tiny", ""))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "photos").symlink_to(photos)
    with Reader(tmp_path, llm, dict(session)) as reader:
        reader.follow(page)


@pytest.mark.parametrize("page", [param.values[0] for param in PAGES], ids=lambda path: path.stem)
def test_commands_that_are_only_shown_are_commands(page: Path) -> None:
    """Those that need a cluster, a bill or a minute: their names and options are what there is."""
    for language, _, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        for command in commands(text) if language == "text" else []:
            words = shlex.split(command, comments=True)
            while words and "=" in words[0]:
                del words[0]
            if words[:1] == ["llmopt"]:
                parse(words[1:])


def parse(words: list[str]) -> None:
    """Read the words of a command as the command line does, and do nothing."""
    command = load(words[0])
    context = command.context_class(command, info_name=words[0])
    words = words[1:]
    while isinstance(command, typer.core.TyperGroup):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, context = found, found.context_class(found, parent=context, info_name=words[0])
        words = words[1:]
    command.parse_args(context, words)


@pytest.mark.usefixtures("shared_cache")
def test_the_service_of_its_page_classifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (CHECKOUT / "docs" / "service.md").read_text(encoding="utf-8")
    ((_, title, code),) = [block for block in BLOCK.findall(page) if block[1]]
    (tmp_path / title).write_text(code, encoding="utf-8")
    world = ShapesDataset("shapes-small")
    monkeypatch.setenv("RUN_FOLDER", str(paper_run(tmp_path, classnames=world.classnames)))
    monkeypatch.syspath_prepend(str(tmp_path))
    client = TestClient(importlib.import_module(Path(title).stem).app)
    photo = BytesIO()
    world.split("test")[0][0].load().save(photo, "PNG")
    found = client.post("/classify", content=photo.getvalue()).json()
    assert {one["class"] for one in found} < set(world.classnames)
    assert [one["p"] for one in found] == sorted((one["p"] for one in found), reverse=True)
    refused = client.post("/classify", content=b"no picture")
    assert refused.status_code == 400
    assert "not an image" in refused.json()["detail"]


@pytest.mark.long
@pytest.mark.usefixtures("shared_cache")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_prints_what_it_shows(path: Path, tmp_path: Path) -> None:
    """If that is meant to change: ``python tests/notebooks.py``, and look at the difference."""
    shown = nbformat.read(path, as_version=4)
    found = executed(path, tmp_path)
    assert [*map(steady, printed(found))] == [*map(steady, printed(shown))]
