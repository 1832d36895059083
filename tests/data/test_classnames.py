"""Names, views and templates: joined by key, whatever the order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from miniatures import KEYS, TRAIN, build

from llmopt.data.benchmarks.catalog import CATALOG
from llmopt.data.benchmarks.handcrafted import templates_for
from llmopt.data.registry import open_dataset
from llmopt.data.tasks import make_task, open_test
from llmopt.data.views import class_map
from llmopt.errors import DatasetError
from llmopt.resources import read_prompt
from llmopt.template import display_name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for key in KEYS:
        build(key, folder)
    return folder


# -------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("key", "own", "curated"),
    [
        ("caltech101", "face", "centered face"),
        ("caltech101", "yin_yang", "yin and yang symbol"),
        ("caltech101", "leopard", "leopard"),
        ("oxford_pets", "shiba_inu", "shiba_inu"),
        ("oxford_flowers", "ball moss", "air plant"),
        ("stanford_cars", "2000 AM General Hummer SUV", "AM General Hummer SUV 2000"),
        ("sun397", "outdoor apartment_building", "apartment building outdoor"),
        ("sun397", "indoor_procenium theater", "theater indoor procenium"),
        ("sun397", "airplane_cabin", "airplane_cabin"),
        ("sun397", "indoor jail", "jail indoor"),
        ("sun397", "jail_cell", "jail_cell"),
        ("eurosat", "Herbaceous Vegetation Land", "brushland or shrubland"),
        ("ucf101", "Handstand_Pushups", "Hand Stand Pushups"),
        ("ucf101", "Hammer_Throw", "Hammer_Throw"),
        ("ucf101", "Jump_Rope", "Jump_Rope"),
        ("svhn", "7", "seven"),
    ],
)
def test_curated_names_are_joined_by_key(key: str, own: str, curated: str, root: Path) -> None:
    label = open_dataset(key, root).keys.index(own)
    assert open_dataset(key, root, classnames="openai").classnames[label] == curated


@pytest.mark.parametrize("key", KEYS)
def test_every_benchmark_has_curated_names(key: str, root: Path) -> None:
    own, curated = open_dataset(key, root), open_dataset(key, root, classnames="openai")
    assert own.keys == curated.keys
    assert own.split_sha256 == curated.split_sha256
    assert "OpenAI's class names" in curated.provenance
    for part in ("train", "val", "test"):
        assert np.array_equal(own.split(part).labels, curated.split(part).labels)


def test_curated_names_fit_the_complete_data_sets() -> None:
    sets = json.loads(read_prompt("classnames/openai.json"))
    sizes = {"stanford_cars": 196, "eurosat": 10, "svhn": 10}
    for key, names in sets.items():
        assert len(names) == sizes.get(key, len(names)) <= CATALOG[key].classes
        assert len(set(names.values())) == len(names)
        assert all(display_name(name) == name for name in names.values())
    assert set(sets["caltech101"]) < set(json.loads(read_prompt("classnames/caltech101.json")))


def test_names_of_ones_own(root: Path, tmp_path: Path) -> None:
    dataset = open_dataset("imagenet", root)
    for name, text in {
        "names.json": json.dumps({"n04008634": " projectile,  missile "}),
        "names.csv": 'n04008634,"projectile, missile"\r\n\r\n',
    }.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        renamed = open_dataset("imagenet", root, classnames=str(path))
        changed = {
            key: (old, new)
            for key, old, new in zip(
                dataset.keys, dataset.classnames, renamed.classnames, strict=True
            )
            if old != new
        }
        assert changed == {"n04008634": ("missile", "projectile, missile")}
        assert f"class names from {name}" in renamed.provenance


def test_names_of_folders_and_digits(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"Forest": "wood"}))
    folder = f"folder:{root / 'eurosat' / '2750'}"
    assert "wood" in open_dataset(folder, root, classnames=str(path)).classnames
    with pytest.raises(DatasetError, match="no 'openai' class names for dataset 'folder:"):
        open_dataset(folder, root, classnames="openai")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '["tench", "cat"]',
            "2 names for the 6 classes of 'imagenet'; a list needs one for each",
        ),
        ('["tench", 3]', "the name of 'number 2' is not a text: 3"),
        ('{"n01440764": 3}', "the name of 'n01440764' is not a text: 3"),
        ('{"n01440764": " "}', "is not a text"),
        ('{"n01440764": "a {}"}', "holds a brace"),
        (
            '{"n0144076": "x", "n9": "y"}',
            r"no class 'n0144076'; did you mean 'n01440764'\? \(2 such",
        ),
        ("{", "are not a JSON object"),
        ('"x"', "are not a JSON object"),
    ],
)
def test_names_that_will_not_do(text: str, message: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_dataset("imagenet", root, classnames=str(tmp_path / "names.json"))


def test_a_plain_list_is_taken_in_the_order_of_the_classes(root: Path, tmp_path: Path) -> None:
    own = open_dataset("eurosat", root)
    names = [f"{name} from above" for name in own.classnames]
    for file, text in {
        "names.txt": "\r\n".join(names) + "\n\n",
        "names": "\ufeff" + "\n".join(names),
        "names.json": json.dumps(names),
    }.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
        found = open_dataset("eurosat", root, classnames=str(tmp_path / file))
        assert found.classnames == tuple(names)
        assert found.keys == own.keys
        assert f"class names from {file}, in the order of the classes" in found.provenance


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([1, 0, 2, 3, 4], "in another order: number 1 is .*, which is what number 2 of 'eurosat'"),
        ([0, 1, 2, 4, 3], "in another order: number 4 is"),
        ([0, 1, 2, 3], "4 names for the 5 classes of 'eurosat'.*'llmopt datasets show eurosat'"),
        ([0, 1, 2, 3, 4, None], "6 names for the 5 classes"),
        ([0, None, 2, 3, 4], "the name of 'number 2' is not a text: ''"),
    ],
)
def test_a_list_that_shows_another_order_or_number(
    order: list[int | None], message: str, root: Path, tmp_path: Path
) -> None:
    own = open_dataset("eurosat", root).classnames
    lines = ["" if k is None else own[k].upper().replace(" ", "_") for k in order]
    lines = [*lines[:-1], "x"] if order[-1] is None else lines
    (tmp_path / "names.txt").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=message):
        open_dataset("eurosat", root, classnames=str(tmp_path / "names.txt"))


def test_names_from_nowhere(root: Path) -> None:
    with pytest.raises(DatasetError, match="'coop', 'openai' or a file"):
        open_dataset("dtd", root, classnames="opneai")


# -------------------------------------------------------------------------------------- views


def test_halves(root: Path) -> None:
    whole = open_dataset("fgvc_aircraft", root)
    base, new = (open_dataset(f"fgvc_aircraft:{half}", root) for half in ("base", "new"))
    assert base.name == "fgvc_aircraft:base"
    assert base.classnames + new.classnames == whole.classnames
    assert base.keys + new.keys == whole.keys
    assert len({base.split_sha256, new.split_sha256, whole.split_sha256}) == 3
    assert new.provenance.endswith("; new classes")
    assert new.handcrafted == whole.handcrafted
    assert len(open_test(base)) + len(open_test(new)) == len(open_test(whole))
    assert set(open_test(new).labels.tolist()) == set(range(3))


def test_an_odd_class_goes_to_the_base(root: Path) -> None:
    assert len(open_dataset("eurosat:base", root).classnames) == 3
    assert len(open_dataset("eurosat:new", root).classnames) == 2


def test_halves_are_cut_from_the_sample_of_the_whole(root: Path) -> None:
    whole = make_task(open_dataset("oxford_flowers", root), 2, seed=5)
    picked = {
        which: [image.name for image, label in getattr(whole, which) if label >= 3]
        for which in ("train", "val")
    }
    new = make_task(open_dataset("oxford_flowers:new", root), 2, seed=5)
    assert [image.name for image in new.train.images] == picked["train"]
    assert [image.name for image in new.val.images] == picked["val"]
    assert np.bincount(new.train.labels).tolist() == [2, 2]
    assert new.classnames == whole.classnames[3:]


def test_imagenet_a_among_its_own_and_among_all_classes(root: Path) -> None:
    own, among = open_dataset("imagenet_a", root), open_dataset("imagenet_a:1000", root)
    assert (len(own.classnames), len(among.classnames)) == (6, 1000)
    assert among.name == "imagenet_a:1000"
    assert "all 1000 classes" in among.provenance
    for (image, label), (same, mapped) in zip(own.split("test"), among.split("test"), strict=True):
        assert image.name == same.name
        assert own.keys[label] == among.keys[mapped]
    with pytest.raises(DatasetError, match="no view ':1000'"):
        open_dataset("dtd:1000", root)


def test_class_map() -> None:
    assert class_map(["a", "b", "c"], ["c", "a"], "x").tolist() == [2, 0]
    with pytest.raises(DatasetError, match="'x' has classes that were not learned: d"):
        class_map(["a", "b"], ["a", "d"], "x")


def test_carrying_imagenet_to_its_kin(root: Path) -> None:
    learned = open_dataset("imagenet", root).keys
    for key in ("imagenet_a", "imagenet_r", "imagenet_sketch"):
        other = open_dataset(key, root)
        assert [learned[i] for i in class_map(learned, other.keys, key)] == list(other.keys)


# ---------------------------------------------------------------------------------- templates


def test_templates() -> None:
    assert [str(t) for t in templates_for("dtd")] == ["{} texture."]
    assert [str(t) for t in templates_for("oxford_pets")] == ["a photo of a {}, a type of pet."]
    assert [str(t) for t in templates_for("folder:x")] == ["a photo of a {}."]
    assert templates_for("imagenet_r", "openai") == templates_for("imagenet", "openai")
    with pytest.raises(DatasetError, match="no templates for 'svhn'"):
        templates_for("svhn", "openai")


@pytest.mark.parametrize(
    ("key", "count"),
    [
        ("imagenet", 80),
        ("caltech101", 34),
        ("stanford_cars", 8),
        ("sun397", 2),
        ("oxford_pets", 1),
        ("fgvc_aircraft", 2),
        ("dtd", 8),
        ("eurosat", 3),
        ("ucf101", 48),
        ("resisc45", 18),
        ("clevr", 1),
    ],
)
def test_sizes_of_the_published_ensembles(key: str, count: int) -> None:
    templates = templates_for(key, "openai")
    assert len(set(templates)) == len(templates) == count


@pytest.mark.parametrize("key", KEYS)
def test_every_benchmark_has_a_template(key: str, root: Path) -> None:
    assert len(open_dataset(key, root).handcrafted) == 1


# -------------------------------------------------------------------------- damaged in the sample


def test_unreadable_images_are_skipped_only_on_demand(tmp_path: Path) -> None:
    build("dtd", tmp_path)
    dataset = open_dataset("dtd", tmp_path)
    victim = make_task(dataset, 16, 1).train.images[3]
    (tmp_path / "dtd" / "images" / victim.name).write_bytes(b"gone")
    task = make_task(dataset, 16, 1)
    with pytest.raises(DatasetError, match="is not an image"):
        [image.load() for image in task.train.images]
    task = make_task(dataset, 16, 1, skip_unreadable=True)
    assert len(task.train) == 4 * TRAIN - 1
    assert task.provenance.endswith(f"; 1 unreadable images left out: {victim.name}")
    victim = dataset.split("test").images[0]
    (tmp_path / "dtd" / "images" / victim.name).write_bytes(b"gone")
    test = open_test(dataset, skip_unreadable=True)
    assert len(test) == len(dataset.split("test")) - 1
