"""Small copies of the benchmark data sets: the true folders, file names and lists, a few images.

``build("sun397", root)`` writes one below ``root``, as it would lie below ``--data-root``. Images
are real files of the formats the data sets use, with a colour that tells their class.
"""

from __future__ import annotations

import colorsys
import gzip
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

TRAIN, VAL, TEST = 5, 4, 3
"""Images of each class in each split."""

Rows = list[tuple[str, int, str]]

BUILDERS: dict[str, Callable[[Path], None]] = {}


def build(key: str, root: Path) -> None:
    """Write the miniature of a data set below ``root``."""
    BUILDERS[key](root)


def picture(label: int, number: int) -> Image.Image:
    """A 32×24 picture whose hue tells ``label``; no two are equal."""
    rng = np.random.default_rng((label, number))
    colour = np.array(colorsys.hsv_to_rgb(label * 0.137 % 1.0, 0.8, 0.8)) * 255
    noise = rng.normal(0.0, 30.0, (24, 32, 3))
    return Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))


def save(path: Path, label: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture(label, number)
    # Every data set has some images that are not plain RGB.
    if number % 5 == 3:
        image = image.convert("L")
    elif number % 5 == 4 and path.suffix.lower() != ".png":
        image = image.convert("CMYK")
    image.save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG")


def write_split(path: Path, **splits: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(splits, indent=4), encoding="utf-8")


def builder(key: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(function: Callable[[Path], None]) -> Callable[[Path], None]:
        BUILDERS[key] = function
        return function

    return register


def coop(
    root: Path,
    images: str,
    split: str,
    classes: Sequence[tuple[str, str]],
    *,
    shuffled: bool = False,
) -> None:
    """A data set with CoOp's split file.

    Args:
        root: its folder.
        images: the folder of images below it.
        split: name of the split file.
        classes: (class name, pattern of file paths with one ``{}`` for a number), in label order.
        shuffled: whether the lists mix the classes, as those of Cars and Flowers do.
    """
    lists: dict[str, Rows] = {"train": [], "val": [], "test": []}
    number = 0
    for label, (name, pattern) in enumerate(classes):
        for part, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
            for _ in range(count):
                number += 1
                path = pattern.format(number)
                save(root / images / path, label, number)
                lists[part].append((path, label, name))
    if shuffled:
        for seed, rows in enumerate(lists.values()):
            order = np.random.default_rng(seed).permutation(len(rows))
            rows[:] = [rows[i] for i in order]
    write_split(root / split, **lists)


@builder("caltech101")
def _(root: Path) -> None:
    home = root / "caltech-101"
    renamed = [
        ("face", "Faces"),
        ("leopard", "Leopards"),
        ("motorbike", "Motorbikes"),
        ("accordion", "accordion"),
        ("airplane", "airplanes"),
        ("car_side", "car_side"),
        ("crocodile_head", "crocodile_head"),
        ("yin_yang", "yin_yang"),
    ]
    classes = [(name, folder + "/image_{:04d}.jpg") for name, folder in renamed]
    coop(home, "101_ObjectCategories", "split_zhou_Caltech101.json", classes)
    for ignored in ("BACKGROUND_Google", "Faces_easy"):
        save(home / "101_ObjectCategories" / ignored / "image_0001.jpg", 0, 1)
    (home / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp").write_text("not an image")


@builder("oxford_pets")
def _(root: Path) -> None:
    home = root / "oxford_pets"
    breeds = ["Abyssinian", "american_pit_bull_terrier", "Bengal", "shiba_inu"]
    classes = [(breed.lower(), breed + "_{}.jpg") for breed in breeds]
    coop(home, "images", "split_zhou_OxfordPets.json", classes)
    (home / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB")
    (home / "annotations").mkdir()
    (home / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\n")


@builder("stanford_cars")
def _(root: Path) -> None:
    home = root / "stanford_cars"
    names = [
        "2000 AM General Hummer SUV",
        "2012 Acura RL Sedan",
        "2012 Ram C/V Cargo Van Minivan",
        "1993 Mercedes-Benz 300-Class Convertible",
        "2009 Bugatti Veyron 16.4 Coupe",
    ]
    lists: dict[str, Rows] = {"train": [], "val": [], "test": []}
    for part, folder, count in (
        ("train", "cars_train", TRAIN),
        ("val", "cars_train", VAL),
        ("test", "cars_test", TEST),
    ):
        # Files are numbered through, and classes come in any order.
        order = np.random.default_rng(count).permutation(np.repeat(np.arange(len(names)), count))
        offset = len(lists["train"]) if part == "val" else 0
        for number, label in enumerate(order.tolist(), start=offset + 1):
            path = f"{folder}/{number:05d}.jpg"
            save(home / path, label, number)
            lists[part].append((path, label, names[label]))
    write_split(home / "split_zhou_StanfordCars.json", **lists)


@builder("oxford_flowers")
def _(root: Path) -> None:
    names = ["pink primrose", "colt's foot", "globe-flower", "pink-yellow dahlia", "ball moss"]
    coop(
        root / "oxford_flowers",
        "jpg",
        "split_zhou_OxfordFlowers.json",
        [(name, "image_{:05d}.jpg") for name in names],
        shuffled=True,
    )


@builder("food101")
def _(root: Path) -> None:
    names = ["apple_pie", "baby_back_ribs", "cup_cakes", "macaroni_and_cheese"]
    classes = [(name, name + "/{}.jpg") for name in names]
    coop(root / "food-101", "images", "split_zhou_Food101.json", classes)
    (root / "food-101" / "meta").mkdir()
    (root / "food-101" / "meta" / "classes.txt").write_text("".join(f"{name}\n" for name in names))


@builder("fgvc_aircraft")
def _(root: Path) -> None:
    home = root / "fgvc_aircraft"
    variants = ["707-320", "An-12", "Boeing 717", "F-16A/B", "F/A-18", "Yak-42"]
    home.mkdir(parents=True)
    (home / "variants.txt").write_text("".join(f"{name}\n" for name in variants))
    number = 34308
    for part, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        lines = []
        for label in np.random.default_rng(count).permutation(
            np.repeat(np.arange(len(variants)), count)
        ):
            number += 1
            save(home / "images" / f"{number:07d}.jpg", int(label), number)
            lines.append(f"{number:07d} {variants[label]}\n")
        (home / f"images_variant_{part}.txt").write_text("".join(lines))


@builder("sun397")
def _(root: Path) -> None:
    folders = [
        "a/abbey",
        "a/airplane_cabin",
        "a/apartment_building/outdoor",
        "c/church/indoor",
        "c/church/outdoor",
        "j/jail/indoor",
        "j/jail_cell",
        "t/theater/indoor_procenium",
    ]
    classes = [
        (" ".join(reversed(folder.split("/")[1:])), folder + "/sun_aaab{:04d}zzz.jpg")
        for folder in folders
    ]
    coop(root / "sun397", "SUN397", "split_zhou_SUN397.json", classes)
    (root / "sun397" / "SUN397" / "ClassName.txt").write_text("/a/abbey\n")


@builder("dtd")
def _(root: Path) -> None:
    names = ["banded", "chequered", "polka-dotted", "zigzagged"]
    classes = [(name, f"{name}/{name}_{{:04d}}.jpg") for name in names]
    coop(root / "dtd", "images", "split_zhou_DescribableTextures.json", classes)
    (root / "dtd" / "images" / "waffled").mkdir()
    (root / "dtd" / "images" / "waffled" / ".directory").write_text("[Dolphin]\n")


@builder("eurosat")
def _(root: Path) -> None:
    names = {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "SeaLake": "Sea or Lake",
    }
    classes = [(name, f"{folder}/{folder}_{{}}.jpg") for folder, name in names.items()]
    coop(root / "eurosat", "2750", "split_zhou_EuroSAT.json", classes)


@builder("ucf101")
def _(root: Path) -> None:
    # The order of the split file; another list, sorted by spelling, has the two hammers and the two
    # jumps the other way round.
    names = {
        "Apply_Eye_Makeup": "ApplyEyeMakeup",
        "Hammering": "Hammering",
        "Hammer_Throw": "HammerThrow",
        "Handstand_Pushups": "HandStandPushups",
        "Jumping_Jack": "JumpingJack",
        "Jump_Rope": "JumpRope",
        "Yo_Yo": "YoYo",
    }
    classes = [(name, f"{name}/v_{file}_g{{:02d}}_c01.jpg") for name, file in names.items()]
    coop(root / "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", classes)


WORDNET = {
    "n01440764": "tench",
    "n02123045": "tabby cat",
    "n03773504": "missile",
    "n04008634": "missile",
    "n04355933": "sunglasses",
    "n04356056": "sunglasses",
}


def wordnet(folder: Path, pattern: str, count: int, first: int = 0) -> None:
    for label, key in enumerate(WORDNET):
        for number in range(first, first + count):
            save(folder / key / pattern.format(number, key), label, number)


def classnames(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key} {name}\n" for key, name in WORDNET.items()), encoding="utf-8")


@builder("imagenet")
def _(root: Path) -> None:
    home = root / "imagenet"
    wordnet(home / "images" / "train", "{1}_{0}.JPEG", TRAIN)
    wordnet(home / "images" / "val", "ILSVRC2012_val_{0:08d}.JPEG", TEST, first=100)
    classnames(home / "classnames.txt")


@builder("imagenetv2")
def _(root: Path) -> None:
    home = root / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    for label in (0, 1, 10, 281, 657, 744, 836, 999):
        for number in range(TEST):
            save(home / str(label) / f"0aee{label:03d}{number}.jpeg", label, number)
    (root / "imagenetv2" / "classnames.txt").write_text(
        (Path(__file__).parents[2] / "prompts" / "classnames" / "imagenet.json")
        .read_text(encoding="utf-8")
        .translate(str.maketrans({'"': None, ":": None, ",": None}))
        .strip("{}\n ")
    )


@builder("imagenet_sketch")
def _(root: Path) -> None:
    wordnet(root / "imagenet-sketch" / "images", "sketch_{0}.JPEG", TEST)
    classnames(root / "imagenet-sketch" / "classnames.txt")


@builder("imagenet_a")
def _(root: Path) -> None:
    home = root / "imagenet-adversarial"
    wordnet(home / "imagenet-a", "0.000{0}_digital clock _ wall clock_0.865.jpg", TEST)
    (home / "imagenet-a" / "README.txt").write_text("ImageNet-A\n")


@builder("imagenet_r")
def _(root: Path) -> None:
    home = root / "imagenet-rendition"
    wordnet(home / "imagenet-r", "art_{0}.jpg", TEST)
    (home / "imagenet-r" / "README.txt").write_text("ImageNet-R\n")
    classnames(home / "classnames.txt")


@builder("svhn")
def _(root: Path) -> None:
    home = root / "svhn"
    lists: dict[str, Rows] = {"train": [], "val": []}
    number = 0
    for digit in range(10):
        for part, count in (("train", TRAIN), ("val", VAL)):
            for _ in range(count):
                number += 1
                path = f"{digit}/{number:05d}.jpg"
                save(home / "train" / path, digit, number)
                lists[part].append((path, digit, str(digit)))
        for test in range(TEST):
            save(
                home / "test" / str(digit) / f"{digit * TEST + test + 1:05d}.jpg", digit, 900 + test
            )
    write_split(home / "split_SVHN.json", **lists)


@builder("resisc45")
def _(root: Path) -> None:
    names = ["airplane", "baseball_diamond", "sea_ice", "thermal_power_station"]
    classes = [(name, f"{name}/{name}_{{:03d}}.jpg") for name in names]
    coop(root / "resisc45", "NWPU-RESISC45", "split_mlai_Resisc45.json", classes)


@builder("clevr")
def _(root: Path) -> None:
    home = root / "CLEVR_v1.0"
    counts = sorted(str(count) for count in range(3, 11))  # as strings: 10 comes first
    lists: dict[str, Rows] = {"train": [], "val": [], "test": []}
    for label, count in enumerate(counts):
        for part, amount in (("train", TRAIN), ("val", VAL), ("test", TEST)):
            folder = "val" if part == "test" else "train"
            for _ in range(amount):
                number = sum(map(len, lists.values()))
                path = f"{folder}/CLEVR_{folder}_{number:06d}.png"
                save(home / "images" / path, label, number)
                lists[part].append((path, label, count))
    (home / "scenes").mkdir()
    (home / "scenes" / "CLEVR_train_scenes.json").write_text('{"scenes": []}')
    write_split(home / "split_mlai_CLEVR.json", **lists)


def pixels(size: tuple[int, int], mode: str = "RGB", classes: int = 3) -> Stacks:
    """Pictures and labels in two parts; the labels take turns."""
    parts = []
    for count, first in ((5 * VAL, 0), (TEST, 900)):
        pairs = [(label, first + number) for number in range(count) for label in range(classes)]
        found = [np.asarray(picture(*pair).resize(size).convert(mode)) for pair in pairs]
        parts.append((np.stack(found), [label for label, _ in pairs]))
    return parts[0], parts[1]


Stacks = tuple[tuple[np.ndarray, list[int]], tuple[np.ndarray, list[int]]]


def write_pickle(path: Path, table: dict[str, object]) -> None:
    """As Python 2 wrote it: texts are bytes, and read so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(table, protocol=2))


def rows(pictures: np.ndarray) -> np.ndarray:
    return pictures.transpose(0, 3, 1, 2).reshape(len(pictures), 3072)


@builder("cifar10")
def _(root: Path) -> None:
    home = root / "cifar-10-batches-py"
    (train, labels), (test, tested) = pixels((32, 32))
    for number in range(5):
        part = slice(number * len(train) // 5, (number + 1) * len(train) // 5)
        table = {"data": rows(train[part]), "labels": labels[part], "batch_label": "x"}
        write_pickle(home / f"data_batch_{number + 1}", table)
    write_pickle(home / "test_batch", {"data": rows(test), "labels": tested})
    names = {"num_cases_per_batch": 12, "label_names": ["airplane", "automobile", "bird"]}
    write_pickle(home / "batches.meta", names)


@builder("cifar100")
def _(root: Path) -> None:
    home = root / "cifar-100-python"
    names = ["apple", "aquarium_fish", "pickup_truck", "sweet_pepper"]
    for name, (pictures, labels) in zip(
        ("train", "test"), pixels((32, 32), classes=4), strict=True
    ):
        coarse = [label // 2 for label in labels]
        table = {"data": rows(pictures), "fine_labels": labels, "coarse_labels": coarse}
        write_pickle(home / name, table)
    write_pickle(home / "meta", {"fine_label_names": names, "coarse_label_names": ["a", "b"]})


def idx(array: np.ndarray) -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.astype(np.uint8).tobytes()


def mnist(home: Path, turned: bool = False) -> None:
    home.mkdir(parents=True)
    for which, (pictures, labels) in zip(
        ("train", "t10k"), pixels((28, 28), "L", classes=10), strict=True
    ):
        images = gzip.compress(idx(pictures), mtime=0)
        (home / f"{which}-images-idx3-ubyte.gz").write_bytes(images)
        named = [9 - label for label in labels] if turned else labels
        found = gzip.compress(idx(np.array(named)), mtime=0)
        (home / f"{which}-labels-idx1-ubyte.gz").write_bytes(found)


builder("mnist")(lambda root: mnist(root / "MNIST" / "raw"))
builder("fashion_mnist")(lambda root: mnist(root / "FashionMNIST" / "raw", True))


@builder("stl10")
def _(root: Path) -> None:
    home = root / "stl10_binary"
    home.mkdir(parents=True)
    for which, (pictures, labels) in zip(("train", "test"), pixels((96, 96)), strict=True):
        (home / f"{which}_X.bin").write_bytes(pictures.transpose(0, 3, 2, 1).tobytes())
        (home / f"{which}_y.bin").write_bytes(bytes(label + 1 for label in labels))
    (home / "class_names.txt").write_text("airplane\nbird\ncar\n")


KEYS = tuple(BUILDERS)
TRAINABLE = tuple(key for key in KEYS if key == "imagenet" or not key.startswith("imagenet"))
PIXELS = ("cifar10", "cifar100", "mnist", "fashion_mnist", "stl10")
"""Those that are no files of images."""
