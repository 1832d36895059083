"""Data is read as meant or refused by name: nothing is merged or dropped in silence."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import tempfile
from pathlib import Path

import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from miniatures import picture, save

from llmopt.data.base import Dataset
from llmopt.data.classnames import read_names
from llmopt.data.own_splits import split_of
from llmopt.data.registry import open_dataset
from llmopt.errors import DatasetError
from llmopt.task import Task


def opened(name: str) -> Dataset:
    return open_dataset(name, Path("nowhere"))


def sizes(dataset: Dataset) -> list[int]:
    return [len(dataset.split(which)) for which in ("train", "val", "test")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "one.jpg"
    save(path, 0, 0)
    return path


def fill(root: Path, image: Path, folders: dict[str, int]) -> None:
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            os.link(image, root / folder / f"{number:03d}.jpg")


def halves(*splits: str) -> dict[str, int]:
    return {f"{split}/{name}": 5 for split in splits for name in ("cat", "dog")}


# ------------------------------------------------------------------------------------ splits


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("Train", "Test"), [8, 2, 10]),
        (("TRAINING", "Validation", "testing"), [10, 10, 10]),
        (("train", "dev", "eval"), [10, 10, 10]),
        (("train_set", "test-images"), [8, 2, 10]),
        (("trn", "tst"), [8, 2, 10]),
        (("val", "test"), [0, 10, 10]),
        (("test",), [0, 0, 10]),
        (("train",), [4, 2, 4]),
    ],
)
def test_split_folders_in_other_spelling(
    folders: tuple[str, ...], expected: list[int], image: Path, tmp_path: Path
) -> None:
    fill(tmp_path, image, halves(*folders))
    dataset = opened(f"folder:{tmp_path}")
    assert dataset.classnames == ("cat", "dog")
    assert sizes(dataset) == expected


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (halves("train", "eval", "test"), "'eval' and 'test' both mean the test split"),
        (halves("train", "Train", "test"), "both mean the train split"),
        (halves("Trian", "val", "test"), "none called 'train'; rename the one of 'Trian'"),
        (
            {"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/test": 2},
            "each class is divided into 'test', 'train'",
        ),
        (halves("pets"), "is 'folder:.*pets' what you mean"),
    ],
)
def test_splits_that_are_not_clear(
    folders: dict[str, int], message: str, image: Path, tmp_path: Path
) -> None:
    fill(tmp_path, image, folders)
    with pytest.raises(DatasetError, match=message):
        opened(f"folder:{tmp_path}")


def test_an_empty_split_folder_is_none(image: Path, tmp_path: Path) -> None:
    fill(tmp_path, image, halves("train", "test"))
    (tmp_path / "val").mkdir()
    assert sizes(opened(f"folder:{tmp_path}")) == [8, 2, 10]


def test_words_that_mean_no_split() -> None:
    words = ("", "set", "data", "train_station", "test_tube", "evaluate", "contest", "validity")
    assert not any(map(split_of, words))


# ----------------------------------------------------------------------------------- folders


def test_what_is_passed_over_is_counted(image: Path, tmp_path: Path) -> None:
    fill(tmp_path, image, {"cat": 4, "dog": 4, "__MACOSX/cat": 2, "cat/.cache": 2})
    (tmp_path / "loose.jpg").write_bytes(b"")
    for name in ("a.heic", "b.HEIC", "c.txt", "d", ".e.jpg", "Thumbs.db"):
        (tmp_path / "dog" / name).write_bytes(b"")
    (tmp_path / "dog" / "more").symlink_to(tmp_path / "cat", target_is_directory=True)
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    (tmp_path / "cat" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "cat" / "s.jpg"))
        dataset = opened(f"folder:{tmp_path}")
    assert dataset.classnames == ("cat", "dog")
    assert sum(sizes(dataset)) == 8
    assert dataset.skipped == {
        ".heic files (format not read)": 2,
        ".txt files (format not read)": 1,
        "other files (format not read)": 1,
        "hidden or system files and folders": 4,
        "links to folders": 1,
        "pipes, sockets or devices": 3,
        "images outside the class folders": 1,
    }


def test_a_class_of_unread_files_says_why_it_is_empty(image: Path, tmp_path: Path) -> None:
    fill(tmp_path, image, {"cat": 2, "dog": 0})
    (tmp_path / "dog" / "a.heic").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no images in class 'dog'.*1 \.heic files"):
        opened(f"folder:{tmp_path}")


def test_a_link_to_nothing_is_a_missing_image(image: Path, tmp_path: Path) -> None:
    fill(tmp_path, image, {"cat": 2, "dog": 2})
    (tmp_path / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert sum(sizes(opened(f"folder:{tmp_path}"))) == 5


# ------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "_", "\u200b", "<|endoftext|>", " "])
def test_class_folders_that_are_no_names(name: str, image: Path, tmp_path: Path) -> None:
    fill(tmp_path, image, {"cat": 2})
    try:
        fill(tmp_path, image, {name: 2})
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    with pytest.raises(DatasetError, match=r"the class name '.*rename it") as caught:
        opened(f"folder:{tmp_path}")
    assert str(caught.value).isprintable()


def test_invisible_characters_leave_the_name_and_are_told(image: Path, tmp_path: Path) -> None:
    fill(tmp_path, image, {"cat": 2, "d\x1bog\u202e": 2, "cafe\u0301": 2})
    dataset = opened(f"folder:{tmp_path}")
    assert dataset.classnames == ("café", "cat", "dog")
    assert dataset.notes == (
        "invisible characters were taken out of class names: 'd\\x1bog\\u202e'",
    )


@pytest.mark.parametrize("name", [float("nan"), None, ["cat"], "\ud800", "", "__", 0.5])
def test_names_from_python(name: object) -> None:
    with pytest.raises(DatasetError, match="class name"):
        Task.from_images([], [], ["cat", name])  # type: ignore[list-item]


# ------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("kind", "text", "notes"),
    [
        ("csv", "path;label\na.jpg;cat\nb.jpg;dog\n", ["fields are separated by semicolons"]),
        ("csv", "path\tlabel\na.jpg\tcat\nb.jpg\tdog\n", ["fields are separated by tabs"]),
        ("csv", " Path , LABEL \na.jpg,cat\nb.jpg,dog\n", []),
        ("csv", "\n\nlabel,path\r\ncat,a.jpg\r\ndog,b.jpg\r\n", []),
        ("csv", "path,label\na.jpg,cat,\nb.jpg,dog, \n", []),
        (
            "csv",
            "id,file_name,class\n1,a.jpg,cat\n2,b.jpg,dog\n",
            ["'file_name' is read as the path", "'class' is read as the label",
             "fields that are not read: 'id'"],
        ),
        ("jsonl", '{"path": "a.jpg", "label": "cat"}\n{"path": "b.jpg", "label": "dog"}', []),
    ],
)  # fmt: skip
def test_tables_in_other_forms(kind: str, text: str, notes: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text, newline="")
    dataset = opened(f"{kind}:{tmp_path / 'x.json'}")
    assert dataset.classnames == ("cat", "dog")
    assert [image.name for image in dataset.split("train").images] == ["a.jpg", "b.jpg"]
    assert list(dataset.notes) == notes


ROW = '{"path": "a.jpg", "label": %s}\n'


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("csv", "path,label\na.png,cat, tabby\n", "line 2: 3 fields, but the header names 2"),
        ("csv", "a.png,cat\nb.png,dog\n", "line 1: the header must.*found 'a.png,cat'"),
        ("csv", "path:label\na.png:cat\n", "found 'path:label', 1 fields separated by"),
        ("csv", "path,label,label\na,b,c\n", "two columns share a name"),
        ("csv", "path,label\na.png, \n", "line 2: a 'path' and a 'label'"),
        ("csv", "path,label\n ,cat\n", "line 2: a 'path' and a 'label'"),
        ("csv", "path,label\na.png,nan\n", "line 2: label 'nan' stands for a missing value"),
        ("csv", "path,label\na.png,0.0\nb.png,1.0\n", "whole numbers written as fractions"),
        ("csv", 'path,label\na.png,"cat\nb.png,dog\n', "not CSV: unexpected end of data"),
        ("csv", 'path,label\na.png,"cat\nb.png,"\nc.png,dog\n', "runs over lines"),
        ("csv", "path,label\na\0.png,cat\n", "no file can have the path"),
        ("csv", "path,label\na.png,cat\na.png,dog\n", "labelled 'dog', but 'cat' in line 2"),
        ("csv", "path,label\na.png,__\n", "nothing can be seen of the class name '__'"),
        ("jsonl", ROW % "NaN", "label nan is neither a name nor a whole number"),
        ("jsonl", ROW % "0.0", "label 0.0 is neither"),
        ("jsonl", ROW % '["cat"]', "is neither"),
        ("jsonl", ROW % "true", "is neither"),
        ("jsonl", ROW % '"\\ud800"', "is not Unicode text"),
        ("jsonl", ROW % ("[" * 100_000), "nested too deeply"),
        ("jsonl", ROW % ("9" * 5000), "not JSON"),
        ("jsonl", '{"path": "\\ud800", "label": 1}', "no file can have the path"),
        ("jsonl", '{"path": "a", "label": 1, "split": ["train"]}', "split .* is none of"),
        ("jsonl", '[{"path": "a", "label": 1}]', "each line is an object"),
        ("jsonl", '[\n{"path": "a", "label": 1}\n]', "line 1: not JSON.*each line is an object"),
        ("jsonl", "path,label\na.png,cat\n", "line 1: not JSON"),
    ],
)
def test_tables_that_would_be_misread(kind: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.csv" if kind == "csv" else "x.json")
    path.write_text(text, newline="")
    with pytest.raises(DatasetError, match=message):
        opened(f"{kind}:{path}")


def test_rows_that_repeat_another_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\na.png,cat\na.png,cat\nb.png,dog\n")
    dataset = opened(f"csv:{tmp_path / 'x.csv'}")
    assert sum(sizes(dataset)) == 2
    assert dataset.skipped == {"rows that repeat another": 1}


def test_labels_that_are_numbers_have_one_order(tmp_path: Path) -> None:
    labels = ["10", "9", "07", "7", "9" * 6000]
    rows = [f"{i}.png,{label}" for i, label in enumerate(labels)]
    (tmp_path / "x.csv").write_text("\n".join(["path,label", *rows]))
    assert opened(f"csv:{tmp_path / 'x.csv'}").classnames == ("07", "7", "9", "10", "9" * 6000)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "wds", "folder"])
def test_what_is_no_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    for path in (tmp_path / "pipe.tar", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(DatasetError):
            opened(f"{kind}:{path}")
    with pytest.raises(DatasetError, match="a pipe or a device"):
        opened(f"wds:{tmp_path}")
    with pytest.raises(DatasetError, match="a pipe or a device"):
        read_names(tmp_path / "pipe.tar")


# -------------------------------------------------------------------------------------- tars


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def pairs(*labels: int | str) -> dict[str, bytes]:
    members = {}
    for number, label in enumerate(labels):
        buffer = io.BytesIO()
        picture(0, number).save(buffer, "PNG")
        members |= {f"{number}.cls": str(label).encode(), f"{number}.png": buffer.getvalue()}
    return members


@pytest.mark.parametrize("split", ["Test", "eval", "test"])
def test_a_published_set_with_gaps(split: str, tmp_path: Path) -> None:
    (tmp_path / split).mkdir()
    tar(tmp_path / split / "0.tar", pairs(0, 2, 2, 4) | {"0.json": b"{}", ".x/9.cls": b""})
    (tmp_path / "classnames.txt").write_bytes(
        "\ufeffred apple\r\n\r\npear\r\nplum\x0cbum\r\nfig\r\n\r\n".encode()
    )
    dataset = opened(f"wds:{tmp_path}")
    assert dataset.classnames == ("red apple", "1", "pear", "plum bum", "fig")
    assert dataset.split("test").labels.tolist() == [0, 2, 2, 4]
    assert "classnames.txt has blank lines; these classes are called by number: 1" in dataset.notes
    assert dataset.skipped == {
        ".json files (format not read)": 1,
        "hidden or system files and folders": 1,
    }


@pytest.mark.parametrize(
    ("members", "names", "message"),
    [
        (pairs(0, 10**12), None, "holds the label 1000000000000; more than 1,000,000 classes"),
        (pairs(0, 999_999), None, "no images in class '1', though label 999999 occurs"),
        (pairs(0, 10**12), b"a\nb\n", "label 1000000000000, but classnames.txt names 2"),
        (pairs(0, "9" * 9999), None, "more than 1,000,000 classes|holds no label"),
        (pairs(0, 1), b"caf\xe9\nx\n", "class names .* is not text in UTF-8: byte 0xe9 at 3"),
        (pairs(0, 1) | {"0.jpg": b"x"}, None, "'0' has no label"),
        ({"0.jpg": b"", "0.png": b"", "0.cls": b"1"}, None, "'0' has two images"),
    ],
)
def test_tars_that_would_be_misread(
    members: dict[str, bytes], names: bytes | None, message: str, tmp_path: Path
) -> None:
    tar(tmp_path / "0.tar", members)
    if names is not None:
        (tmp_path / "classnames.txt").write_bytes(names)
    with pytest.raises(DatasetError, match=message):
        opened(f"wds:{tmp_path}")


# --------------------------------------------------------------------------------------- any

FIELD = st.one_of(
    st.sampled_from(["a.jpg", "path", "label", "split", "train", "nan", "", " ", '"', "0.0", "\0"]),
    st.text(max_size=6),
)
CSV = st.one_of(
    st.binary(max_size=200),
    st.tuples(
        st.sampled_from([b"path,label\n", b"path;label;split\n", b"", b"Path\tLabel\r\n"]),
        st.lists(st.lists(FIELD, max_size=4), max_size=6),
        st.sampled_from([",", ";", "\t"]),
    ).map(lambda t: t[0] + "\n".join(map(t[2].join, t[1])).encode(errors="surrogatepass")),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | FIELD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries({"path": JSON, "label": JSON}, optional={"split": JSON}) | JSON,
    max_size=4,
)


def opens_or_is_refused(name: str) -> None:
    try:
        dataset = opened(name)
    except DatasetError:
        return
    assert len(dataset.classnames) >= 2
    assert "".join(dataset.classnames).encode()


@fuzz(content=CSV)
def test_any_csv(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        path.write_bytes(content)
        opens_or_is_refused(f"csv:{path}")


@fuzz(rows=ROWS, end=st.binary(max_size=5))
def test_any_json_lines(rows: list[object], end: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        path.write_bytes("\n".join(map(json.dumps, rows)).encode() + end)
        opens_or_is_refused(f"jsonl:{path}")


MEMBER = st.tuples(
    st.sampled_from(["0.cls", "0.png", "1.cls", "1.jpg", "x/2.png", "x/2.cls", "3.txt", ".cls"]),
    st.sampled_from([b"0", b"1", b"2\n", b"-1", b"9" * 40, b"cat"]) | st.binary(max_size=30),
)
NAMES = (
    st.none()
    | st.binary(max_size=40)
    | st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass"))
)


@fuzz(
    members=st.lists(MEMBER, max_size=8),
    damage=st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), max_size=4),
    names=NAMES,
)
def test_any_tar(
    members: list[tuple[str, bytes]], damage: list[tuple[int, int]], names: bytes | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "0.tar")
        tar(path, dict(members))
        content = bytearray(path.read_bytes())
        for place, value in damage:
            content[place % len(content)] = value
        path.write_bytes(content)
        if names is not None:
            Path(folder, "classnames.txt").write_bytes(names)
        opens_or_is_refused(f"wds:{folder}")


@fuzz(content=NAMES.filter(bool) | JSON.map(lambda data: json.dumps(data).encode()))
def test_any_class_names(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("names.csv", "names.json", "names.txt"):
            path = Path(folder, name)
            path.write_bytes(content)
            try:
                names = read_names(path)
            except DatasetError:
                continue
            assert all(
                name.encode() for name in (names.values() if isinstance(names, dict) else names)
            )
