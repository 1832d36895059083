"""The benchmark data sets: one entry each.

Sizes, checksums and addresses are facts about files that others published; what is not known
stands as None or is left out, and the code that uses it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from llmopt.data.benchmarks.layouts import (
    Layout,
    NumberedFolders,
    SplitFile,
    SplitFileAndTestFolder,
    VariantLists,
    WordNetFolders,
)
from llmopt.data.benchmarks.pixels import CifarBatches, IdxFiles, StlBinary


@dataclass(frozen=True)
class Fetch:
    """One file to download.

    Attributes:
        file: its name.
        urls: where it is, best first; empty where it can only be had by hand.
        size: bytes, or None where that is not known.
        digest: ``sha256:…``, ``md5:…`` or ``git:…`` (git's hash of a file), or None.
        place: what goes where below the data set's folder, as pairs (path in the archive, path in
            the folder). Without pairs the file itself goes there under its name.
        inner: archives inside the archive, to be unpacked as well.
        kind: how its images are got at: unpacked where ``place`` says, or brought into order by
            :mod:`llmopt.data.benchmarks.conversions`.
        helpers: files that are needed for that, and for nothing else.
        by_hand: how to get it when no address answers.
    """

    file: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    digest: str | None = None
    place: tuple[tuple[str, str], ...] = ()
    inner: tuple[str, ...] = ()
    kind: Literal["plain", "svhn", "tar of tars", "imagenet val"] = "plain"
    helpers: tuple[Fetch, ...] = ()
    by_hand: str = ""

    @property
    def products(self) -> tuple[str, ...]:
        """Paths below the data set's folder that come from this file."""
        return tuple(target for _, target in self.place) or (self.file,)


@dataclass(frozen=True)
class Entry:
    """What is known of a benchmark data set.

    Attributes:
        key: its name on the command line.
        about: what its classes are.
        folders: where it may lie below the data root: CoOp's place, then torchvision's.
        layout: how to read it.
        classes: number of classes.
        sizes: images in train, val and test; None where that is not known.
        licence: terms of use, as far as known.
        fetches: what to download.
    """

    key: str
    about: str
    folders: tuple[str, ...]
    layout: Layout
    classes: int
    sizes: tuple[int | None, int | None, int | None]
    licence: str
    fetches: tuple[Fetch, ...]


# CoOp's split files are also kept in a repository that needs no login.
_SPLITS_URL: Final = (
    "https://raw.githubusercontent.com/linzhiqiu/cross_modal_adaptation/"
    "c7e7e68ae4eeadfab98e7886b2d6c9cf48a7ceb5/splits/"
)
_VGG: Final = "https://www.robots.ox.ac.uk/~vgg/data/"

RANDOM: Final = "random 50/20/30 per class"
OFFICIAL_TEST: Final = "official test, train 80/20"


_IMAGENET_TERMS: Final = "from https://image-net.org, after registering and agreeing to its terms"


def _drive(identifier: str) -> str:
    """The address of a file on Google Drive, past its notice about large files."""
    return (
        f"https://drive.usercontent.google.com/download?id={identifier}&export=download&confirm=t"
    )


def _coop_split(file: str, *, blob: str, drive: str, size: int | None = None) -> Fetch:
    return Fetch(
        file,
        urls=(_SPLITS_URL + file, _drive(drive)),
        size=size,
        digest=f"git:{blob}",
    )


def _mlai_split(file: str, *, drive: str) -> Fetch:
    return Fetch(file, urls=(_drive(drive),))


_CALTECH_SPLIT = _coop_split(
    "split_zhou_Caltech101.json",
    blob="8be694a80de04a39fb159c462bea9696aa47ccf1",
    drive="1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
    size=809_184,
)
_PETS_SPLIT = _coop_split(
    "split_zhou_OxfordPets.json",
    blob="fa821d9f9e7d32fdf3640bf74fa7491ed04f37da",
    drive="1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
    size=724_217,
)
_CARS_SPLIT = _coop_split(
    "split_zhou_StanfordCars.json",
    blob="dcdb8264712e9940e74cfb0f06ddb8f9cc239b81",
    drive="1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
    size=1_855_652,
)
_FLOWERS_SPLIT = _coop_split(
    "split_zhou_OxfordFlowers.json",
    blob="8d10037b0690b6c65e307a354b039efb0f42404c",
    drive="1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
    size=771_139,
)
_FOOD_SPLIT = _coop_split(
    "split_zhou_Food101.json",
    blob="39557040ee6501bd32aa8b5dfd75f7941a32f0a7",
    drive="1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
)
_SUN_SPLIT = _coop_split(
    "split_zhou_SUN397.json",
    blob="8d5725db8f70bcf02245665304f863e68f96a24c",
    drive="1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
)
_DTD_SPLIT = _coop_split(
    "split_zhou_DescribableTextures.json",
    blob="8dd197a94b598fa44ee3c9e35c486dd017ab00a7",
    drive="1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
    size=563_702,
)
_EUROSAT_SPLIT = _coop_split(
    "split_zhou_EuroSAT.json",
    blob="6bdc847a5d5c49dcc78e8cb8707b87198cbfa5a4",
    drive="1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
    size=3_006_492,
)
_UCF_SPLIT = _coop_split(
    "split_zhou_UCF101.json",
    blob="ea87e3de7b4f6f00fdd77618e34a23508b4c5590",
    drive="1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
    size=1_557_485,
)


def _split(fetch: Fetch, images: str, made: str) -> SplitFile:
    blob = (fetch.digest or "").removeprefix("git:")
    return SplitFile(fetch.file, images=images, made=made, blob=blob)


def _cifar(classes: int, layout: CifarBatches, size: int, md5: str) -> Entry:
    folder = "cifar-10-batches-py" if classes == 10 else f"cifar-{classes}-python"
    files = (*layout.train, layout.test, layout.meta)
    return Entry(
        key=f"cifar{classes}",
        about=f"CIFAR-{classes}: objects and animals, 32 x 32 pixels",
        folders=(folder, f"cifar{classes}/{folder}"),
        layout=layout,
        classes=classes,
        sizes=(40_000, 10_000, 10_000),
        licence="not stated; the authors ask to be cited",
        fetches=(
            Fetch(
                f"cifar-{classes}-python.tar.gz",
                urls=(f"https://www.cs.toronto.edu/~kriz/cifar-{classes}-python.tar.gz",),
                size=size,
                digest=f"md5:{md5}",
                place=tuple((f"{folder}/{file}", file) for file in files),
            ),
        ),
    )


def _mnist(
    key: str,
    about: str,
    folder: str,
    url: str,
    licence: str,
    names: tuple[str, ...],
    *files: tuple[int, str],
) -> Entry:
    layout = IdxFiles(names)
    return Entry(
        key=key,
        about=about,
        folders=(f"{folder}/raw", f"{key}/{folder}/raw"),
        layout=layout,
        classes=10,
        sizes=(48_000, 12_000, 10_000),
        licence=licence,
        fetches=tuple(
            Fetch(f"{file}.gz", urls=(f"{url}{file}.gz",), size=size, digest=f"md5:{md5}")
            for file, (size, md5) in zip(layout.files, files, strict=True)
        ),
    )


_ENTRIES: Final = (
    Entry(
        key="imagenet",
        about="ImageNet (ILSVRC 2012): objects",
        folders=("imagenet/images", "imagenet"),
        layout=WordNetFolders(test="val", train="train"),
        classes=1000,
        sizes=(1_281_167, 0, 50_000),
        licence="ImageNet terms of access (research, non-commercial)",
        fetches=(
            Fetch(
                "ILSVRC2012_img_train.tar",
                size=147_897_477_120,
                digest="md5:1d675b47d978889d74fa0da5fadfb00e",
                place=((".", "train"),),
                kind="tar of tars",
                by_hand=_IMAGENET_TERMS,
            ),
            Fetch(
                "ILSVRC2012_img_val.tar",
                size=6_744_924_160,
                digest="md5:29b22e2961454d5413ddabcf34fc5622",
                place=((".", "val"),),
                kind="imagenet val",
                helpers=(
                    Fetch(
                        "ILSVRC2012_devkit_t12.tar.gz",
                        digest="md5:fa75699e90414af021442c21a62c3abf",
                        by_hand=_IMAGENET_TERMS,
                    ),
                ),
                by_hand=_IMAGENET_TERMS,
            ),
        ),
    ),
    Entry(
        key="imagenetv2",
        about="ImageNetV2, matched frequency: a second test set for ImageNet",
        folders=("imagenetv2",),
        layout=NumberedFolders(test="imagenetv2-matched-frequency-format-val"),
        classes=1000,
        sizes=(0, 0, 10_000),
        licence="MIT (collection); images under their own terms",
        fetches=(
            Fetch(
                "imagenetv2-matched-frequency.tar.gz",
                urls=(
                    "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/"
                    "imagenetv2-matched-frequency.tar.gz",
                ),
                size=1_264_079_360,
                digest="sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c",
                place=(
                    (
                        "imagenetv2-matched-frequency-format-val",
                        "imagenetv2-matched-frequency-format-val",
                    ),
                ),
            ),
        ),
    ),
    Entry(
        key="imagenet_sketch",
        about="ImageNet-Sketch: drawings of ImageNet's classes",
        folders=("imagenet-sketch",),
        layout=WordNetFolders(test="images"),
        classes=1000,
        sizes=(0, 0, 50_889),
        licence="MIT (collection); images under their own terms",
        fetches=(
            Fetch(
                "ImageNet-Sketch.zip",
                urls=(
                    "https://huggingface.co/datasets/songweig/imagenet_sketch/resolve/main/data/"
                    "ImageNet-Sketch.zip",
                    _drive("1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA"),
                ),
                size=7_593_573_012,
                digest="sha256:4d3ce6b82a7c48aabf14aeac105eb533e75707f152cc858f55bfc022031a72ed",
                place=(("sketch", "images"),),
            ),
        ),
    ),
    Entry(
        key="imagenet_a",
        about="ImageNet-A: natural images of 200 ImageNet classes that mislead models",
        folders=("imagenet-adversarial",),
        layout=WordNetFolders(test="imagenet-a"),
        classes=200,
        sizes=(0, 0, 7_500),
        licence="MIT (collection); images under their own terms",
        fetches=(
            Fetch(
                "imagenet-a.tar",
                urls=("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",),
                size=687_552_512,
                digest="sha256:3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
                place=(("imagenet-a", "imagenet-a"),),
            ),
        ),
    ),
    Entry(
        key="imagenet_r",
        about="ImageNet-R: art, cartoons and other renditions of 200 ImageNet classes",
        folders=("imagenet-rendition",),
        layout=WordNetFolders(test="imagenet-r"),
        classes=200,
        sizes=(0, 0, 30_000),
        licence="MIT (collection); images under their own terms",
        fetches=(
            Fetch(
                "imagenet-r.tar",
                urls=("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",),
                size=2_191_079_936,
                digest="sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
                place=(("imagenet-r", "imagenet-r"),),
            ),
        ),
    ),
    Entry(
        key="caltech101",
        about="Caltech-101: objects",
        folders=("caltech-101", "caltech101"),
        layout=_split(_CALTECH_SPLIT, "101_ObjectCategories", RANDOM),
        classes=100,
        sizes=(4128, 1649, 2465),
        licence="CC BY 4.0",
        fetches=(
            _CALTECH_SPLIT,
            Fetch(
                "caltech-101.zip",
                urls=("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
                size=137_414_764,
                digest="sha256:331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91",
                place=(("101_ObjectCategories", "101_ObjectCategories"),),
                inner=("caltech-101/101_ObjectCategories.tar.gz",),
            ),
        ),
    ),
    Entry(
        key="oxford_pets",
        about="Oxford-IIIT Pet: breeds of cats and dogs",
        folders=("oxford_pets", "oxford-iiit-pet"),
        layout=_split(_PETS_SPLIT, "images", OFFICIAL_TEST),
        classes=37,
        sizes=(2944, 736, 3669),
        licence="CC BY-SA 4.0",
        fetches=(
            _PETS_SPLIT,
            Fetch(
                "images.tar.gz",
                urls=(
                    "https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
                    _VGG + "pets/data/images.tar.gz",
                ),
                size=791_918_971,
                digest="sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                place=(("images", "images"),),
            ),
        ),
    ),
    Entry(
        key="stanford_cars",
        about="Stanford Cars: make, model and year",
        folders=("stanford_cars",),
        layout=_split(_CARS_SPLIT, ".", OFFICIAL_TEST),
        classes=196,
        sizes=(6509, 1635, 8041),
        licence="research only",
        fetches=(
            _CARS_SPLIT,
            Fetch(
                "cars_train.tgz",
                urls=("http://ai.stanford.edu/~jkrause/car196/cars_train.tgz",),
                size=979_269_282,
                digest="sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
                place=(("cars_train", "cars_train"),),
                by_hand="the original address has been dead since 2023; copies that rename files "
                "(some on Kaggle) do not fit the split",
            ),
            Fetch(
                "cars_test.tgz",
                urls=("http://ai.stanford.edu/~jkrause/car196/cars_test.tgz",),
                size=977_350_468,
                digest="sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
                place=(("cars_test", "cars_test"),),
                by_hand="the original address has been dead since 2023",
            ),
        ),
    ),
    Entry(
        key="oxford_flowers",
        about="Oxford Flowers 102: species of flowers",
        folders=("oxford_flowers", "flowers-102"),
        layout=_split(_FLOWERS_SPLIT, "jpg", RANDOM),
        classes=102,
        sizes=(4093, 1633, 2463),
        licence="not stated",
        fetches=(
            _FLOWERS_SPLIT,
            Fetch(
                "102flowers.tgz",
                urls=(_VGG + "flowers/102/102flowers.tgz",),
                size=344_862_509,
                digest="sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
                place=(("jpg", "jpg"),),
            ),
        ),
    ),
    Entry(
        key="food101",
        about="Food-101: dishes",
        folders=("food-101",),
        layout=_split(_FOOD_SPLIT, "images", RANDOM),
        classes=101,
        sizes=(50_500, 20_200, 30_300),
        licence="research",
        fetches=(
            _FOOD_SPLIT,
            Fetch(
                "food-101.tar.gz",
                urls=("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",),
                size=4_996_278_331,
                digest="sha256:d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
                place=(("food-101/images", "images"), ("food-101/meta", "meta")),
            ),
        ),
    ),
    Entry(
        key="fgvc_aircraft",
        about="FGVC-Aircraft: variants of aircraft",
        folders=("fgvc_aircraft", "fgvc-aircraft-2013b/data"),
        layout=VariantLists(),
        classes=100,
        sizes=(3334, 3333, 3333),
        licence="non-commercial research",
        fetches=(
            Fetch(
                "fgvc-aircraft-2013b.tar.gz",
                urls=(_VGG + "fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
                place=tuple(
                    (f"fgvc-aircraft-2013b/data/{path}", path)
                    for path in (
                        "images",
                        "variants.txt",
                        "images_variant_train.txt",
                        "images_variant_val.txt",
                        "images_variant_test.txt",
                    )
                ),
            ),
        ),
    ),
    Entry(
        key="sun397",
        about="SUN397: scenes",
        folders=("sun397", "."),
        layout=_split(_SUN_SPLIT, "SUN397", "official partition 01, train 80/20"),
        classes=397,
        sizes=(15_880, 3970, 19_850),
        licence="research",
        fetches=(
            _SUN_SPLIT,
            Fetch(
                "SUN397.tar.gz",
                urls=("https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",),
                size=39_077_296_924,
                digest="sha256:f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
                place=(("SUN397", "SUN397"),),
                by_hand="the original address has been dead since 2025",
            ),
        ),
    ),
    Entry(
        key="dtd",
        about="Describable Textures: adjectives for textures",
        folders=("dtd", "dtd/dtd"),
        layout=_split(_DTD_SPLIT, "images", RANDOM),
        classes=47,
        sizes=(2820, 1128, 1692),
        licence="research",
        fetches=(
            _DTD_SPLIT,
            Fetch(
                "dtd-r1.0.1.tar.gz",
                urls=(_VGG + "dtd/download/dtd-r1.0.1.tar.gz",),
                size=625_239_812,
                digest="sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
                place=(("dtd/images", "images"), ("dtd/labels", "labels"), ("dtd/imdb", "imdb")),
            ),
        ),
    ),
    Entry(
        key="eurosat",
        about="EuroSAT: land use seen by a satellite",
        folders=("eurosat",),
        layout=_split(_EUROSAT_SPLIT, "2750", RANDOM),
        classes=10,
        sizes=(13_500, 5400, 8100),
        licence="MIT",
        fetches=(
            _EUROSAT_SPLIT,
            Fetch(
                "EuroSAT.zip",
                urls=(
                    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                    "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                    "https://madm.dfki.de/files/sentinel/EuroSAT.zip",
                ),
                size=94_280_567,
                digest="sha256:8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
                place=(("2750", "2750"),),
            ),
        ),
    ),
    Entry(
        key="ucf101",
        about="UCF101: human actions, one frame of each video",
        folders=("ucf101",),
        layout=_split(_UCF_SPLIT, "UCF-101-midframes", "official list 01, train 80/20"),
        classes=101,
        sizes=(7639, 1898, 3783),
        licence="not stated",
        fetches=(
            _UCF_SPLIT,
            Fetch(
                "UCF-101-midframes.zip",
                urls=(_drive("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"),),
                place=(("UCF-101-midframes", "UCF-101-midframes"),),
                by_hand="open https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O "
                "in a browser",
            ),
        ),
    ),
    Entry(
        key="svhn",
        about="Street View House Numbers: digits",
        folders=("svhn",),
        layout=SplitFileAndTestFolder(
            ("split_mlai_SVHN.json", "split_SVHN.json"),
            train="train",
            test="test",
            made="official test, train 70/30",
        ),
        classes=10,
        sizes=(None, None, 26_032),
        licence="non-commercial",
        fetches=(
            _mlai_split("split_mlai_SVHN.json", drive="1dnjnMX-sr7FClb6EUywc-tNx6e1YaGpu"),
            Fetch(
                "train_32x32.mat",
                urls=("http://ufldl.stanford.edu/housenumbers/train_32x32.mat",),
                size=182_040_794,
                digest="sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                place=((".", "train"),),
                kind="svhn",
            ),
            Fetch(
                "test_32x32.mat",
                urls=("http://ufldl.stanford.edu/housenumbers/test_32x32.mat",),
                size=64_275_384,
                digest="sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
                place=((".", "test"),),
                kind="svhn",
            ),
        ),
    ),
    Entry(
        key="resisc45",
        about="NWPU-RESISC45: scenes seen from the air",
        folders=("resisc45",),
        layout=SplitFile("split_mlai_Resisc45.json", images="NWPU-RESISC45", made=RANDOM),
        classes=45,
        sizes=(15_750, 6300, 9450),
        licence="CC BY-NC 4.0",
        fetches=(
            _mlai_split("split_mlai_Resisc45.json", drive="1QTThkyN-p58hAxN7wpBntO4CncTf9qtF"),
            Fetch(
                "NWPU-RESISC45.zip",
                urls=(
                    "https://huggingface.co/datasets/isaaccorley/resisc45/resolve/"
                    "883edc0eee77b2c84225472f10f126e3ed83fa6e/NWPU-RESISC45.zip",
                ),
                digest="sha256:beeecd0b63656290ae6d65cf7763185b0c1c4c54a753ef8088d6fba3faaf1f53",
                place=(("NWPU-RESISC45", "NWPU-RESISC45"),),
                by_hand="elsewhere it is a .rar file, which has to be unpacked by hand",
            ),
        ),
    ),
    Entry(
        key="clevr",
        about="CLEVR: how many objects (3 to 10) are in a rendered scene",
        folders=("CLEVR_v1.0", "clevr/CLEVR_v1.0"),
        layout=SplitFile(
            "split_mlai_CLEVR.json", images="images", made="official val as test, train 80/20"
        ),
        classes=8,
        sizes=(None, None, 15_000),
        licence="CC BY 4.0",
        fetches=(
            _mlai_split("split_mlai_CLEVR.json", drive="1L4DjruSBez66W_Uezyo2mN7siDORkgeO"),
            Fetch(
                "CLEVR_v1.0.zip",
                urls=("https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip",),
                size=19_021_600_724,
                digest="sha256:5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1",
                place=(
                    ("CLEVR_v1.0/images/train", "images/train"),
                    ("CLEVR_v1.0/images/val", "images/val"),
                    ("CLEVR_v1.0/scenes", "scenes"),
                ),
            ),
        ),
    ),
    _cifar(
        10,
        CifarBatches(
            train=tuple(f"data_batch_{number}" for number in range(1, 6)),
            test="test_batch",
            meta="batches.meta",
            labels="labels",
            names="label_names",
        ),
        170_498_071,
        "c58f30108f718f92721af3b95e74349a",
    ),
    _cifar(
        100,
        CifarBatches(("train",), "test", "meta", "fine_labels", "fine_label_names"),
        169_001_437,
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
    _mnist(
        "mnist",
        "MNIST: handwritten digits, grey, 28 x 28 pixels",
        "MNIST",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "CC BY-SA 3.0",
        tuple("0123456789"),
        (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        (28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
        (1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
        (4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    _mnist(
        "fashion_mnist",
        "Fashion-MNIST: clothes, grey, 28 x 28 pixels",
        "FashionMNIST",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "MIT",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (29_515, "25c81989df183df01b3e8a0aad5dffbe"),
        (4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
        (5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    Entry(
        key="stl10",
        about="STL-10: objects and animals, 96 x 96 pixels",
        folders=("stl10_binary", "stl10/stl10_binary"),
        layout=StlBinary(),
        classes=10,
        sizes=(4_000, 1_000, 8_000),
        licence="images from ImageNet, under its terms",
        fetches=(
            Fetch(
                "stl10_binary.tar.gz",
                urls=tuple(
                    f"{scheme}://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
                    for scheme in ("https", "http")
                ),
                size=2_640_397_119,
                digest="md5:91f7769df0f17e558f3565bffb0c7dfb",
                place=tuple((f"stl10_binary/{file}", file) for file in StlBinary().files),
            ),
        ),
    ),
)

CATALOG: Final[dict[str, Entry]] = {entry.key: entry for entry in _ENTRIES}
