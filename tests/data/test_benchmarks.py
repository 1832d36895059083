"""The benchmarks, on small copies of their true layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from miniatures import KEYS, PIXELS, TEST, TRAIN, TRAINABLE, VAL, WORDNET, build

from llmopt.data.benchmarks.catalog import CATALOG
from llmopt.data.benchmarks.handcrafted import templates_for
from llmopt.data.benchmarks.layouts import git_blob_sha1, imagenet_names
from llmopt.data.check import check_dataset
from llmopt.data.registry import dataset_names, open_dataset
from llmopt.data.tasks import make_task, open_test
from llmopt.errors import ConfigError, DatasetError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All miniatures; not to be changed."""
    folder = tmp_path_factory.mktemp("data")
    for key in KEYS:
        build(key, folder)
    return folder


def test_there_is_a_miniature_of_each() -> None:
    assert set(KEYS) == set(CATALOG)
    assert set(CATALOG) < set(dataset_names())


@pytest.mark.parametrize("key", KEYS)
def test_is_found_complete_and_sound(key: str, root: Path) -> None:
    report = check_dataset(key, root, deep=True)
    assert report.problems == ()
    assert report.decoded == report.images == sum(report.sizes.values())


@pytest.mark.parametrize("key", TRAINABLE)
def test_gives_tasks_of_any_size(key: str, root: Path) -> None:
    dataset = open_dataset(key, root)
    classes = len(dataset.classnames)
    train = len(dataset.split("train")) // classes
    assert train == (TRAIN if key not in PIXELS else 4 * VAL)
    for shots in (1, 2, 4, 16):
        task = make_task(dataset, shots, seed=1)
        assert np.bincount(task.train.labels).tolist() == [min(shots, train)] * classes
        val = min(shots, VAL) * classes if key != "imagenet" else 0
        assert len(task.val) == val
        assert task.dataset == key
        assert task.handcrafted == templates_for(key)
    assert task.train.images[0].load().mode == "RGB"
    assert len(open_test(dataset)) == TEST * classes


@pytest.mark.parametrize("key", sorted(set(KEYS) - set(TRAINABLE)))
def test_has_only_test_images(key: str, root: Path) -> None:
    dataset = open_dataset(key, root)
    with pytest.raises(DatasetError, match=f"'{key}' has no images to train on; search on another"):
        make_task(dataset, 1, 1)
    assert len(open_test(dataset)) > 0


@pytest.mark.parametrize("key", KEYS)
def test_split_identity_does_not_depend_on_the_place(key: str, root: Path, tmp_path: Path) -> None:
    build(key, tmp_path)
    here, there = open_dataset(key, root), open_dataset(key, tmp_path)
    assert here.split_sha256 == there.split_sha256
    assert here.split("test").digest == there.split("test").digest


def test_no_two_splits_have_one_identity(root: Path) -> None:
    assert len({open_dataset(key, root).split_sha256 for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_missing_altogether(key: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"'{key}' not found under") as error:
        open_dataset(key, tmp_path)
    message = str(error.value)
    assert str(tmp_path / CATALOG[key].folders[0]) in message
    assert f"llmopt datasets download {key}" in message
    report = check_dataset(key, tmp_path)
    assert not report.ok
    assert {problem.kind for problem in report.problems} == {"missing"}


# --------------------------------------------------------------------------- names and labels


def test_names_are_those_of_the_split_file(root: Path) -> None:
    assert open_dataset("caltech101", root).classnames[:3] == ("face", "leopard", "motorbike")
    assert "outdoor apartment_building" in open_dataset("sun397", root).classnames
    assert open_dataset("fgvc_aircraft", root).classnames[3:5] == ("F-16A/B", "F/A-18")


def test_clevr_counts_as_strings(root: Path) -> None:
    assert open_dataset("clevr", root).classnames == ("10", "3", "4", "5", "6", "7", "8", "9")


def test_classes_of_one_name_stay_two(root: Path) -> None:
    dataset = open_dataset("imagenet", root)
    assert dataset.classnames == tuple(WORDNET.values())
    assert dataset.keys == tuple(WORDNET)
    assert dataset.classnames.count("missile") == 2
    names = list(imagenet_names().values())
    assert len(names) == 1000
    assert [name for name in names if names.count(name) > 1] == ["missile"] * 2 + ["sunglasses"] * 2


def test_imagenet_names_are_shipped(tmp_path: Path) -> None:
    build("imagenet", tmp_path)
    (tmp_path / "imagenet" / "classnames.txt").unlink()
    assert open_dataset("imagenet", tmp_path).classnames[0] == "tench"


def test_imagenetv2_folders_are_labels_not_words(root: Path) -> None:
    dataset = open_dataset("imagenetv2", root)
    test = dataset.split("test")
    assert len(dataset.classnames) == 1000
    for image, label in test:
        assert image.name.split("/")[0] == str(label)
    assert dataset.classnames[744] == "missile"


def test_imagenet_without_training_images_still_measures(tmp_path: Path) -> None:
    build("imagenet", tmp_path)
    (tmp_path / "imagenet" / "images" / "train").rename(tmp_path / "elsewhere")
    dataset = open_dataset("imagenet", tmp_path)
    assert "no training images" in dataset.provenance
    assert len(open_test(dataset)) == TEST * len(WORDNET)


def test_lists_in_any_order_are_sampled_by_first_appearance(root: Path) -> None:
    for key in ("stanford_cars", "oxford_flowers", "fgvc_aircraft"):
        train = open_dataset(key, root).split("train")
        seen = list(dict.fromkeys(train.labels.tolist()))
        assert seen != sorted(seen)
        task = make_task(open_dataset(key, root), 2, seed=3)
        assert list(dict.fromkeys(task.train.labels.tolist())) == seen


# ------------------------------------------------------------------------------- other layouts


@pytest.mark.parametrize(
    ("key", "moves"),
    [
        ("caltech101", [("caltech-101", "caltech101")]),
        ("oxford_pets", [("oxford_pets", "oxford-iiit-pet")]),
        ("oxford_flowers", [("oxford_flowers", "flowers-102")]),
        ("fgvc_aircraft", [("fgvc_aircraft", "fgvc-aircraft-2013b/data")]),
        ("sun397", [("sun397/SUN397", "SUN397"), ("sun397/split_zhou_SUN397.json", ".")]),
        ("dtd", [("dtd", "dtd2"), ("dtd2", "dtd/dtd")]),
        ("clevr", [("CLEVR_v1.0", "clevr/CLEVR_v1.0")]),
        ("cifar10", [("cifar-10-batches-py", "cifar10/cifar-10-batches-py")]),
        ("mnist", [("MNIST", "mnist/MNIST")]),
        (
            "imagenet",
            [("imagenet/images/train", "imagenet/train"), ("imagenet/images/val", "imagenet/val")],
        ),
    ],
)
def test_torchvisions_folders_are_known(
    key: str, moves: list[tuple[str, str]], root: Path, tmp_path: Path
) -> None:
    build(key, tmp_path)
    for source, target in moves:
        destination = tmp_path / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.is_dir():
            destination /= Path(source).name
        (tmp_path / source).rename(destination)
    assert check_dataset(key, tmp_path).ok
    assert open_dataset(key, tmp_path).split_sha256 == open_dataset(key, root).split_sha256


def test_the_published_svhn_split_comes_before_the_other(tmp_path: Path) -> None:
    build("svhn", tmp_path)
    other = tmp_path / "svhn" / "split_SVHN.json"
    rows = json.loads(other.read_text())
    rows["train"].reverse()
    (tmp_path / "svhn" / "split_mlai_SVHN.json").write_text(json.dumps(rows))
    assert "split_mlai_SVHN.json" in open_dataset("svhn", tmp_path).provenance


# ------------------------------------------------------------------------- damage and deceit


def test_every_missing_part_is_named(tmp_path: Path) -> None:
    build("fgvc_aircraft", tmp_path)
    home = tmp_path / "fgvc_aircraft"
    (home / "variants.txt").unlink()
    (home / "images_variant_val.txt").unlink()
    with pytest.raises(DatasetError, match="is not complete") as error:
        open_dataset("fgvc_aircraft", tmp_path)
    assert str(home / "variants.txt") in str(error.value)
    assert str(home / "images_variant_val.txt") in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<!DOCTYPE html><html>", "is not JSON .* web page"),
        ('{"train": [', "is not JSON"),
        ("[]", "holds no object"),
        ('{"val": []}', "holds no object"),
        ('{"train": [["a.jpg", 0]]}', r"entry 0 of a list is not \[path, label, name\]"),
        ('{"train": [["a.jpg", 0, "a"], [1, 2, 3]]}', "entry 1 of a list"),
        ('{"train": [["a.jpg", "x", "a"]]}', "entry 0 of a list"),
        ('{"train": 3}', "entry 0 of a list"),
        ('{"train": [["a.jpg", 1, "a"]]}', "without gaps"),
        ('{"train": []}', "without gaps"),
        ('{"train": [["a.jpg", 0, "a"]], "test": [["b.jpg", 0, "b"]]}', "label 0 two names"),
        ('{"train": [["a.jpg", 0, "a"], ["b.jpg", 1, "a"]]}', "two labels share a class name"),
        ('{"train": [["../../etc/passwd", 0, "a"]]}', "outside its folder"),
        ('{"train": [["/etc/passwd", 0, "a"]]}', "outside its folder"),
        ('{"train": [["C:\\\\x.jpg", 0, "a"]]}', "outside its folder"),
    ],
)
def test_damaged_split_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    build("dtd", tmp_path)
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        open_dataset("dtd", tmp_path)
    report = check_dataset("dtd", tmp_path)
    assert [problem.kind for problem in report.problems] == ["split"]
    assert "delete the split file" in report.next_step


def test_a_split_file_of_ones_own_is_said_to_be_so(root: Path) -> None:
    assert "NOT the published file" in open_dataset("dtd", root).provenance
    assert any("not comparable" in note for note in check_dataset("dtd", root).notes)


def test_gits_hash_of_a_file() -> None:
    assert git_blob_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_folders_that_are_no_wordnet_ids(tmp_path: Path) -> None:
    build("imagenet_r", tmp_path)
    (tmp_path / "imagenet-rendition" / "imagenet-r" / "goldfish").mkdir()
    with pytest.raises(DatasetError, match="no class name for folder 'goldfish'"):
        open_dataset("imagenet_r", tmp_path)


def test_unsorted_imagenet_validation_images(tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "images" / "val").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no class folders; sort its images"):
        open_dataset("imagenet", tmp_path)


def test_train_folders_that_the_test_folder_lacks(tmp_path: Path) -> None:
    build("imagenet", tmp_path)
    (tmp_path / "imagenet" / "images" / "train" / "n01443537").mkdir()
    with pytest.raises(DatasetError, match="val lacks: n01443537"):
        open_dataset("imagenet", tmp_path)


def test_unknown_names() -> None:
    for name, hint in (("caltech11", "'caltech101'"), ("foldr:x", "'folder:PATH'")):
        with pytest.raises(DatasetError, match=f"did you mean {hint}"):
            open_dataset(name, Path())
    with pytest.raises(DatasetError, match="no view ':old'"):
        open_dataset("digits:old", Path())
    with pytest.raises(DatasetError, match="must follow the colon"):
        open_dataset("folder:", Path())


def test_no_shots(root: Path) -> None:
    with pytest.raises(ConfigError, match="shots must be at least 1, not 0"):
        make_task(open_dataset("dtd", root), 0, 1)


def test_no_test_images(tmp_path: Path) -> None:
    build("dtd", tmp_path)
    path = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    rows = json.loads(path.read_text())
    del rows["test"]
    path.write_text(json.dumps(rows))
    with pytest.raises(DatasetError, match="no test images to measure"):
        open_test(open_dataset("dtd", tmp_path))
