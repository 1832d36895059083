"""What ``datasets list`` and ``datasets show`` are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from miniatures import KEYS, WORDNET, build
from PIL import Image

from llmopt.data.overview import describe, details, draw_sheet, overview, root_folder
from llmopt.data.registry import dataset_names, open_dataset
from llmopt.errors import DatasetError
from llmopt.registry import Registry


def test_what_is_here_is_told_as_found_and_the_rest_as_published(tmp_path: Path) -> None:
    build("dtd", tmp_path)
    build("fgvc_aircraft", tmp_path)
    (tmp_path / "fgvc_aircraft" / "variants.txt").unlink()
    found = {entry.name: entry for entry in overview(tmp_path)}
    assert list(found) == dataset_names()
    assert (found["dtd"].here, found["dtd"].classes, found["dtd"].images) == (True, 4, (20, 16, 12))
    assert found["eurosat"].images == (13_500, 5400, 8100)
    assert not found["eurosat"].here
    assert found["eurosat"].note.endswith("licence: MIT; 0.1 GB to download")
    assert found["imagenet"].note.endswith("to be fetched by hand")
    assert found["svhn"].images is None
    assert found["fgvc_aircraft"].note.startswith("lacks variants.txt; ")
    assert found["fgvc_aircraft"].note.endswith("a download of unknown size")
    assert sum(entry.here for entry in found.values() if entry.name in KEYS) == 1


def test_sources_of_plug_ins_are_listed(
    install_package: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    points = {"mine": "plug_sources:open_mine", "dtd": "plug_sources:open_mine"}
    modules = {"plug_sources": "def open_mine(name, address): ..."}
    install_package("plug-sources", {"data_sources": points}, modules)
    sources: Registry[Any] = Registry("data source", "data_sources", {}, reserved=dataset_names())
    monkeypatch.setattr("llmopt.data.overview.SOURCES", sources)
    *own, taken, mine = overview(tmp_path)
    assert [entry.name for entry in own] == dataset_names()
    assert (mine.name, mine.here) == ("mine:…", True)
    assert mine.note == "from the plug-in package plug-sources 1.0"
    assert (taken.name, taken.here) == ("dtd:…", False)
    assert taken.note.endswith("the name 'dtd' is taken by llmopt")


def test_what_is_not_here_is_described_as_published(tmp_path: Path) -> None:
    found = describe("stanford_cars", tmp_path)
    assert (found["classes"], found["test images"], found["here"]) == (196, 8_041, False)
    assert found["to get it"] == "llmopt datasets download stanford_cars"
    assert all(path.startswith(str(tmp_path)) for path in found["missing"])
    build("dtd", tmp_path)
    assert describe("dtd", tmp_path) == details(open_dataset("dtd", tmp_path))
    with pytest.raises(DatasetError, match="unknown dataset 'nothing'"):
        describe("nothing", tmp_path)


def test_details_give_names_and_keys_in_label_order(tmp_path: Path) -> None:
    build("imagenet", tmp_path)
    found = details(open_dataset("imagenet", tmp_path))
    assert found["class keys"] == list(WORDNET)
    assert found["class names"] == list(WORDNET.values())
    assert found["train images"] == 30
    assert "research" in found["licence"]
    assert "licence" not in details(open_dataset("shapes-small", tmp_path))


def test_contact_sheet(tmp_path: Path) -> None:
    build("dtd", tmp_path)
    dataset = open_dataset("dtd", tmp_path)
    draw_sheet(dataset, tmp_path / "new" / "sheet.png", images=8)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width > 200
    with pytest.raises(DatasetError, match=r"use a \.png path"):
        draw_sheet(dataset, tmp_path / "sheet.nonsense")


def test_root_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMOPT_DATA", raising=False)
    assert root_folder(None) == Path("data")
    monkeypatch.setenv("LLMOPT_DATA", "/there")
    assert root_folder(None) == Path("/there")
    assert root_folder(Path("/here")) == Path("/here")
