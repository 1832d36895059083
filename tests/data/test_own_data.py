"""One's own images: folders, tables, tars, the hub; and scikit-learn's digits."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from miniatures import picture, save

from llmopt.data.base import Dataset
from llmopt.data.check import check_dataset
from llmopt.data.overview import overview
from llmopt.data.own_splits import hold_out_val, split_three_ways
from llmopt.data.registry import open_dataset
from llmopt.data.tasks import make_task, open_test
from llmopt.errors import ConfigError, DatasetError
from llmopt.task import Labelled


def sizes(dataset: Dataset) -> list[int]:
    return [len(dataset.split(which)) for which in ("train", "val", "test")]


def opened(name: str) -> Dataset:
    return open_dataset(name, Path("nowhere"))


def fill(root: Path, folders: dict[str, int]) -> None:
    for label, (folder, count) in enumerate(folders.items()):
        for number in range(count):
            save(root / folder / f"{number:03d}.jpg", label, number)


# ------------------------------------------------------------------------------- own splits


def test_a_split_of_ours_is_disjoint_complete_and_proportional(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 10, "dog": 20, "emu": 3, "fox": 2, "gnu": 1})
    dataset = opened(f"folder:{tmp_path}")
    counts = {
        which: np.bincount(dataset.split(which).labels, minlength=5).tolist()
        for which in ("train", "val", "test")
    }
    assert counts["train"] == [5, 10, 1, 1, 1]
    assert counts["val"] == [2, 4, 1, 0, 0]
    assert counts["test"] == [3, 6, 1, 1, 0]
    names = [image.name for which in counts for image in dataset.split(which).images]
    assert len(set(names)) == len(names) == 36
    assert dataset.provenance.startswith("ours: 50/20/30")


def test_a_split_of_ours_depends_on_nothing_but_the_names(tmp_path: Path) -> None:
    for place in ("one", "two"):
        fill(tmp_path / place, {"cat": 10, "dog": 10})
    one, two = (opened(f"folder:{tmp_path / place}") for place in ("one", "two"))
    assert one.split_sha256 == two.split_sha256
    assert one.split("test").digest == two.split("test").digest


def test_nothing_is_split_into_nothing() -> None:
    nothing = Labelled((), np.empty(0, dtype=np.int64))
    assert [len(part) for part in split_three_ways(nothing).values()] == [0, 0, 0]
    assert [len(part) for part in hold_out_val(nothing).values()] == [0, 0]


# ----------------------------------------------------------------------------------- folder


def test_folder_of_class_folders(tmp_path: Path) -> None:
    fill(tmp_path, {"red_apple": 6, "Zebra": 6, "a/deep/er": 3, "a/x": 3})
    (tmp_path / "notes.txt").write_text("not a class")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "Zebra" / "Thumbs.db").write_bytes(b"x")
    save(tmp_path / "Zebra" / "._000.jpg", 0, 0)
    dataset = opened(f"folder:{tmp_path}")
    assert dataset.classnames == ("Zebra", "a", "red_apple")
    assert sum(sizes(dataset)) == 18
    assert dataset.name == f"folder:{tmp_path}"
    task = make_task(dataset, 2, 1)
    assert len(task.train) == 6
    assert len(open_test(dataset)) == 6


@pytest.mark.parametrize(
    ("folders", "expected", "provenance"),
    [
        (("train", "val", "test"), [20, 20, 20], "own splits"),
        (("train", "valid", "test"), [20, 20, 20], "own splits"),
        (("train", "test"), [16, 4, 20], "val is ours: 20% of train"),
        (("train", "val"), [16, 4, 20], "val is the test split"),
    ],
)
def test_folder_with_splits(
    folders: tuple[str, ...], expected: list[int], provenance: str, tmp_path: Path
) -> None:
    fill(tmp_path, {f"{part}/{name}": 10 for part in folders for name in ("cat", "dog")})
    dataset = opened(f"folder:{tmp_path}")
    assert sizes(dataset) == expected
    assert provenance in dataset.provenance
    assert dataset.classnames == ("cat", "dog")
    assert check_dataset(f"folder:{tmp_path}", Path()).ok


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, {"train": 5, "plane": 5})
    assert opened(f"folder:{tmp_path}").classnames == ("plane", "train")


def test_file_names_of_any_bytes(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 4, "dog": 4})
    strange = os.fsdecode(b"\xff\xfe odd \xe9.jpg")
    try:
        (tmp_path / "cat" / "000.jpg").rename(tmp_path / "cat" / strange)
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    dataset = opened(f"folder:{tmp_path}")
    assert len(dataset.split_sha256) == 64
    assert check_dataset(dataset.name, Path(), deep=True).ok


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no folder"):
        opened(f"folder:{tmp_path / 'none'}")
    save(tmp_path / "loose.jpg", 0, 0)
    with pytest.raises(DatasetError, match="has 0 classes, and at least two"):
        opened(f"folder:{tmp_path}")
    fill(tmp_path, {"cat": 2, "dog": 0, "emu": 2})
    (tmp_path / "dog").mkdir()
    with pytest.raises(DatasetError, match="no images in class 'dog'"):
        opened(f"folder:{tmp_path}")


# ----------------------------------------------------------------------------------- tables


def test_csv(tmp_path: Path) -> None:
    fill(tmp_path, {"a b": 10, "c": 10})
    rows = [f'"a b/{i:03d}.jpg",red apple' for i in range(10)]
    rows += [f"c/{i:03d}.jpg,pear" for i in range(10)]
    (tmp_path / "list.csv").write_text(
        "\n".join(["path,label", *rows]) + "\n", encoding="utf-8-sig"
    )
    dataset = opened(f"csv:{tmp_path / 'list.csv'}")
    assert dataset.classnames == ("pear", "red apple")
    assert sizes(dataset) == [10, 4, 6]
    assert dataset.provenance.startswith("ours")
    assert check_dataset(dataset.name, Path(), deep=True).ok


def test_fields_may_be_called_anything(tmp_path: Path) -> None:
    fill(tmp_path, {"x": 12})
    rows = [f"{i},x/{i:03d}.jpg,{'ab'[i % 2]}" for i in range(12)]
    (tmp_path / "t?.csv").write_text("\n".join(["label,Picture,kind of it", *rows]))
    address = f"csv:{tmp_path / 't?.csv'}?path=picture&label=Kind of it"
    dataset = opened(address)
    assert dataset.classnames == ("a", "b")
    assert any("not read: 'label'" in note for note in dataset.notes)
    for wrong in ("path", "label=x&label=y", "name=x", "label=", "path=nowhere"):
        with pytest.raises(DatasetError, match=r"what the fields of|must name a 'path'"):
            opened(f"csv:{tmp_path / 't?.csv'}?{wrong}")


def test_jsonl_with_splits_and_numbers(tmp_path: Path) -> None:
    fill(tmp_path, {"x": 12})
    lines = [
        {"path": f"x/{i:03d}.jpg", "label": i % 11, "split": "train" if i < 11 else "test"}
        for i in range(12)
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    (tmp_path / "list.jsonl").write_text(text)
    dataset = opened(f"jsonl:{tmp_path / 'list.jsonl'}")
    assert dataset.classnames == tuple(map(str, range(11)))  # 10 after 9, not after 1
    assert len(dataset.split("test")) == 1


def test_absolute_paths_in_a_table(tmp_path: Path) -> None:
    fill(tmp_path / "images", {"x": 4})
    rows = [f"{tmp_path}/images/x/{i:03d}.jpg,{'ab'[i % 2]}" for i in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    assert opened(f"csv:{tmp_path / 'list.csv'}").split("train").images[0].load().mode == "RGB"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "where,what\na.jpg,b\n", "line 1: the header must name a 'path' and a 'label'"),
        ("x.csv", "path,label\na.jpg,cat\nb.jpg,\n", "line 3: a 'path' and a 'label'"),
        ("x.csv", "path,label\n", "lists no images"),
        ("x.csv", "path,label,split\na.jpg,cat,odd\n", "split 'odd' is none of"),
        ("x.csv", "path,label,split\na.jpg,cat,train\nb.jpg,dog,\n", "give all or none"),
        ("x.csv", "path,label\na.jpg,cat\n", "has 1 classes"),
        ("x.jsonl", '{"path": "a.jpg", "label": 1}\n{"path"', "line 2: not JSON"),
        ("x.jsonl", "[1, 2]\n", "line 1: a 'path' and a 'label'"),
        ("x.jsonl", '{"path": "a.jpg", "label": null}\n', "line 1"),
        ("x.jsonl", "\xff\xfe", "line 1: not JSON"),
    ],
)
def test_tables_that_are_wrong(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        opened(f"{name[2:]}:{tmp_path / name}")


def test_tables_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"path,label\n\xff\xfe\x00,x\n")
    with pytest.raises(DatasetError, match="is not text in UTF-8"):
        opened(f"csv:{tmp_path / 'x.csv'}")
    with pytest.raises(DatasetError, match="cannot be read"):
        opened(f"csv:{tmp_path / 'none.csv'}")


def test_missing_files_of_a_table_are_all_listed(tmp_path: Path) -> None:
    fill(tmp_path, {"x": 4})
    rows = [f"x/{i:03d}.jpg,{'ab'[i % 2]}" for i in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    report = check_dataset(f"csv:{tmp_path / 'list.csv'}", Path())
    assert report.counts == {"missing": 6}
    assert report.missing_by_folder() == {str(tmp_path / "x"): 6}
    assert "put the files right" in report.next_step


# ------------------------------------------------------------------------------------- tars


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def png(label: int, number: int) -> bytes:
    buffer = io.BytesIO()
    picture(label, number).save(buffer, "PNG")
    return buffer.getvalue()


def shard(first: int, count: int) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        members[f"s{number:04d}.cls"] = f"{number % 3}\n".encode()
        members[f"s{number:04d}.png"] = png(number % 3, number)
    return members


def test_tars_of_clip_benchmark(tmp_path: Path) -> None:
    for split, first, count in (("train", 0, 30), ("test", 30, 15)):
        for number in range(count // 5):
            write_tar(tmp_path / split / f"{number}.tar", shard(first + 5 * number, 5))
        (tmp_path / split / "nshards.txt").write_text(str(count // 5))
    (tmp_path / "classnames.txt").write_text("red apple\npear\nplum\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text(
        "a photo of a {c}.\n\na drawing of the {c}.\n"
    )
    dataset = opened(f"wds:{tmp_path}")
    assert dataset.classnames == ("red apple", "pear", "plum")
    assert [str(t) for t in dataset.handcrafted] == ["a photo of a {}.", "a drawing of the {}."]
    assert sizes(dataset) == [24, 6, 15]
    for number, (image, label) in enumerate(dataset.split("test")):
        assert label == number % 3  # shard after shard, in numerical order
        assert image.load().size == (32, 24)
    assert len({image.key() for image in dataset.split("test").images}) == 15
    assert check_dataset(f"wds:{tmp_path}", Path(), deep=True).ok


def test_loose_tars_and_a_single_one(tmp_path: Path) -> None:
    for number in (0, 1, 10):
        write_tar(tmp_path / f"{number}.tar", shard(9 * number, 9))
    assert sum(sizes(opened(f"wds:{tmp_path}"))) == 27
    single = opened(f"wds:{tmp_path / '10.tar'}")
    assert sum(sizes(single)) == 9
    assert single.classnames == ("0", "1", "2")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": b"x"}, "'a' has no label"),
        ({"a.cls": b"1"}, "'a' has no image"),
        ({"a.png": b"x", "a.cls": b"cat"}, "holds no label but b'cat'"),
        ({"a.png": b"x", "a.cls": b"-1"}, "labels start at 0"),
        ({"a.png": b"x", "a.cls": b"0"}, "has 1 classes"),
        ({"a.png": b"x", "a.cls": b"2"}, "no images in class '0', though label 2 occurs"),
    ],
)
def test_tars_that_are_wrong(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(DatasetError, match=message):
        opened(f"wds:{tmp_path}")


def test_tars_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no \.tar files"):
        opened(f"wds:{tmp_path}")
    (tmp_path / "0.tar").write_bytes(b"<html>" * 500)
    with pytest.raises(DatasetError, match="is not a tar that can be read"):
        opened(f"wds:{tmp_path}")
    write_tar(tmp_path / "0.tar", shard(0, 3))
    (tmp_path / "classnames.txt").write_text("only one\n")
    with pytest.raises(DatasetError, match=r"label 1, but classnames\.txt names 1 classes"):
        opened(f"wds:{tmp_path}")
    (tmp_path / "classnames.txt").unlink()
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo\n")
    with pytest.raises(DatasetError, match="template 'a photo' has no"):
        opened(f"wds:{tmp_path}")


# -------------------------------------------------------------------------------------- hub


class FakeImage:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class FakeClassLabel:
    names = ("cat", "dog")


FakeImage.__name__, FakeClassLabel.__name__ = "Image", "ClassLabel"


class FakeRows:
    """As much of ``datasets.Dataset`` as is used."""

    def __init__(
        self, count: int, features: dict[str, Any], labels: list[int] | None = None
    ) -> None:
        self.features = features
        self.labels = labels or [i % 2 for i in range(count)]

    def cast_column(self, column: str, feature: FakeImage) -> FakeRows:
        assert not feature.decode
        return self

    def __getitem__(self, item: str | int) -> Any:
        if isinstance(item, str):
            return self.labels
        return {"image": {"bytes": png(self.labels[item], item), "path": None}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def serve(splits: dict[str, FakeRows] | Exception) -> None:
        def load_dataset(path: str, revision: str | None) -> dict[str, FakeRows]:
            if isinstance(splits, Exception):
                raise splits
            assert path == "org/pets"
            return splits

        module = ModuleType("datasets")
        module.__dict__.update(load_dataset=load_dataset, Image=FakeImage)
        monkeypatch.setitem(sys.modules, "datasets", module)

    return serve


USUAL = {"image": FakeImage(), "label": FakeClassLabel()}


def test_hub_data_set(hub: Callable[..., None]) -> None:
    hub({"train": FakeRows(20, USUAL), "test": FakeRows(10, USUAL)})
    dataset = opened("hub:org/pets@abc")
    assert dataset.classnames == dataset.keys == ("cat", "dog")
    assert sizes(dataset) == [16, 4, 10]
    assert "revision abc" in dataset.provenance
    image = dataset.split("test").images[3]
    assert image.name == "test/0000003"
    assert image.load().size == (32, 24)
    assert len(make_task(dataset, 2, 1).train) == 4


def test_hub_data_set_with_one_split(hub: Callable[..., None]) -> None:
    hub({"train": FakeRows(20, {"img": FakeImage(), "fine": FakeClassLabel()})})
    assert sizes(opened("hub:org/pets")) == [10, 4, 6]


def test_hub_test_labels_may_be_withheld(hub: Callable[..., None]) -> None:
    splits = {
        "train": FakeRows(20, USUAL),
        "validation": FakeRows(10, USUAL),
        "test": FakeRows(2, USUAL, [-1, -1]),
    }
    hub(splits)
    assert sizes(opened("hub:org/pets")) == [16, 4, 10]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (ConnectionError("no route"), "cannot be had from the hub: no route"),
        ({}, "has no splits"),
        ({"everything": FakeRows(2, USUAL)}, "has splits everything; none is known"),
        ({"train": FakeRows(2, {"image": FakeImage()})}, "one ClassLabel column, and has 0"),
        (
            {"train": FakeRows(2, {"a": FakeImage(), "b": FakeImage(), "label": FakeClassLabel()})},
            "one Image column, and has 2; it has a",
        ),
    ],
)
def test_hub_data_sets_that_will_not_do(
    splits: Any, message: str, hub: Callable[..., None]
) -> None:
    hub(splits)
    with pytest.raises(DatasetError, match=message):
        opened("hub:org/pets")


def test_hub_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'llmopt\[hub\]'"):
        opened("hub:org/pets")


# ----------------------------------------------------------------------------------- digits


@pytest.fixture
def sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn where it is installed, else a stand-in of the same form."""
    try:
        import sklearn.datasets  # noqa: F401
    except ImportError:
        rng = np.random.default_rng(0)
        bunch = SimpleNamespace(
            images=rng.integers(0, 17, (1797, 8, 8)).astype(float), target=np.arange(1797) % 10
        )
        module = ModuleType("sklearn.datasets")
        module.__dict__["load_digits"] = lambda: bunch
        monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
        monkeypatch.setitem(sys.modules, "sklearn.datasets", module)


@pytest.mark.usefixtures("sklearn")
def test_digits() -> None:
    dataset = opened("digits")
    assert sum(sizes(dataset)) == 1797
    assert dataset.classnames[7] == "seven"
    image = dataset.split("train").images[0]
    assert image.load().size == (8, 8)
    assert max(np.asarray(i.load()).max() for i in dataset.split("val").images) == 255
    assert len(make_task(dataset, 16, 1).train) == 160
    assert check_dataset("digits", Path(), deep=True).ok


def test_digits_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'llmopt\[sklearn\]'"):
        opened("digits")
    assert not next(entry for entry in overview(Path()) if entry.name == "digits").here
