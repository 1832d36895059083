"""Pictures that are opened when they are needed, and refused by name when they can't be.

Three kinds, all with the :class:`~llmopt.task.Image` protocol: a file, a stretch of bytes inside an
uncompressed archive, and pixels in memory. Every picture of the tool is opened here, by
:func:`decode`: its bytes choose among the formats named here and no others, however it is called.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from llmopt.errors import ConfigError, DatasetError

MAX_PIXELS: Final = 89_478_485
"""Larger pictures are refused: 256 MiB as RGB, Pillow's own limit for a decompression bomb."""

MAX_RATIO: Final = 100
"""Longer pictures are refused (long side over short side): models scale the short side to some 224
pixels, and a picture of 1 x 1,000,000 would take 5 GB then."""

MAX_BYTES: Final = 2**30
"""Larger files are refused: no picture of MAX_PIXELS needs as much, and a sparse one has no end."""

FORMATS: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
    "TGA": (".tga",),  # last: it has no signature
}
"""What photographs, screenshots and data sets come in: Pillow's decoders, and how files are called.

Pillow knows some thirty more, of which EPS starts another program."""

WIRE: Final = ("PNG",)
"""What goes to a remote box."""

SUFFIXES: Final = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""What counts as an image where a folder is listed (lower case)."""

REMEDY: Final = "replace it, or leave such images out with --skip-unreadable"


_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)


@runtime_checkable
class Image(Protocol):
    """A picture that can be opened when it is needed."""

    @property
    def name(self) -> str:
        """What people call it: a path, or ``shapes-small/test/00017``."""
        ...

    def key(self) -> str:
        """Content key: equal for equal pixels, different for different ones."""
        ...

    def load(self) -> PillowImage.Image:
        """The decoded RGB picture."""
        ...


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image: a known suffix, and not hidden (``._x.jpg``)."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image file.

    Attributes:
        root: the folder that ``relative`` starts from; shared by all images of a data set.
        relative: path below ``root``, with forward slashes; also the image's name.
    """

    root: Path
    relative: str

    @property
    def name(self) -> str:
        """The path below ``root``."""
        return self.relative

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.root / self.relative

    def key(self) -> str:
        """SHA-256 of the file's bytes; read once per version of the file.

        Raises:
            DatasetError: the file is missing or not readable.
        """
        try:
            state = regular(self.path)
            return _file_digest(self.path, state.st_size, state.st_mtime_ns)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def load(self) -> PillowImage.Image:
        """The upright RGB picture.

        Raises:
            DatasetError: the file is missing, no image, truncated, corrupt or too large.
        """
        return decode(self.path, str(self.path))

    def read(self) -> bytes:
        """The file's bytes; raises as :meth:`key`."""
        try:
            regular(self.path)
            return self.path.read_bytes()
        except OSError as error:
            raise unreadable(self.path, error) from error


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image inside an uncompressed tar, read in place.

    Attributes:
        archive: the tar.
        offset: where the image's bytes begin in it.
        size: how many they are.
        name: the archive's path below the data set's folder, and the member's in the archive.
    """

    archive: Path
    offset: int
    size: int
    name: str

    def key(self) -> str:
        """SHA-256 of the image's bytes."""
        return hashlib.sha256(self.read()).hexdigest()

    def load(self) -> PillowImage.Image:
        """The upright RGB picture; raises as :meth:`FileImage.load`."""
        return decode(BytesIO(self.read()), f"{self.name} in {self.archive}")

    def read(self) -> bytes:
        """The image's bytes."""
        try:
            regular(self.archive, most=math.inf)
            _check_bytes(self.size, self.name)
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise unreadable(self.archive, error) from error
        if len(content) < self.size:
            raise DatasetError(f"archive {self.archive} ends inside {self.name}; fetch it again")
        return content


@dataclass(frozen=True, slots=True, eq=False)
class PixelImage:
    """Pixels in memory.

    Attributes:
        name: what people call it.
        pixels: (height, width) or (height, width, 3) uint8.
    """

    name: str
    pixels: npt.NDArray[np.uint8] = field(repr=False)

    def key(self) -> str:
        """SHA-256 of shape and pixels."""
        sha = hashlib.sha256(repr(self.pixels.shape).encode())
        sha.update(np.ascontiguousarray(self.pixels).tobytes())
        return sha.hexdigest()

    def load(self) -> PillowImage.Image:
        """The RGB picture."""
        return PillowImage.fromarray(self.pixels).convert("RGB")


def regular(path: str | Path, most: float = MAX_BYTES) -> os.stat_result:
    """What the system knows of a file, which is not opened: a pipe or a device may have no end.

    Raises:
        OSError: it is missing or out of reach; a folder, pipe, socket or device; or longer than
            ``most`` bytes.
    """
    state = os.stat(path)  # noqa: PTH116 (pathlib takes most of the time)
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "device")
        raise OSError(errno.EINVAL, f"it is a {kind}, not a file", str(path))
    _check_bytes(state.st_size, str(path), most)
    return state


_KINDS: Final = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


def _check_bytes(size: int, name: str, most: float = MAX_BYTES) -> None:
    if size > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", name)


def decode(
    source: Path | BinaryIO, name: str, formats: Collection[str] = tuple(FORMATS)
) -> PillowImage.Image:
    """The picture in ``source`` as upright RGB: of whatever mode, turned as its EXIF says.

    Transparency is dropped, as the benchmarks' reference code does; 16-bit and float pictures are
    scaled to 8 bits.

    Args:
        source: where its bytes are.
        name: what people call it.
        formats: of :data:`FORMATS`, those that may be decoded.

    Raises:
        DatasetError: ``name`` is missing, no image of these formats, truncated, corrupt or too
            large.
    """
    try:
        if isinstance(source, Path):
            regular(source)
        with PillowImage.open(source, formats=_decoders(tuple(formats))) as image:
            _check_size(*image.size)
            image.load()
            _turn_upright(image)
            return _rgb(image, name)
    except DatasetError:
        raise
    except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning) as error:
        raise unreadable(name, _too_large()) from error
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise unreadable(name, error) from error


_TURNED: Final = 0x0112  # EXIF


def plain_jpeg(image: Image) -> tuple[bytes, int] | None:
    """A JPEG file's bytes and number of pixels, if every decoder shows it as :func:`decode` does.

    None for other images, and for what decoders differ in or take silently: grey or with four
    colours, RGB stored as such, turned by EXIF, without its end; too large; damaged in its head.

    Raises:
        DatasetError: its bytes are missing or not readable.
    """
    if not isinstance(image, FileImage | ArchivedImage):
        return None
    content = image.read()
    try:
        with PillowImage.open(BytesIO(content), formats=("JPEG",)) as opened:
            _check_size(*opened.size)
            whole = content.rstrip(b"\0").endswith(b"\xff\xd9")
            upright = opened.getexif().get(_TURNED, 1) == 1
            usual = opened.mode == "RGB" and opened.info.get("adobe_transform", 1) == 1
            return (content, math.prod(opened.size)) if whole and upright and usual else None
    except Exception:  # what is the matter, decoding says
        return None


def size(source: BinaryIO, name: str, formats: Collection[str] = tuple(FORMATS)) -> tuple[int, int]:
    """Width and height of a picture that is not decoded.

    Raises:
        DatasetError: as :func:`decode`, as far as that shows without decoding.
    """
    try:
        with PillowImage.open(source, formats=_decoders(tuple(formats))) as image:
            _check_size(*image.size)
            return image.size
    except Exception as error:  # Pillow's readers raise almost anything on damaged files
        raise unreadable(name, error) from error


def unreadable(name: str | Path, error: Exception) -> DatasetError:
    """What to say of an image that cannot be had."""
    if isinstance(error, FileNotFoundError):
        return DatasetError(f"image {name} is missing: there is no such file")
    if isinstance(error, PermissionError):
        return DatasetError(f"image {name} may not be read: permission denied")
    if isinstance(error, UnidentifiedImageError):
        return DatasetError(f"{name} is not an image of a format that is read; {REMEDY}")
    if isinstance(error, OSError) and error.strerror:
        return DatasetError(f"image {name} cannot be read: {error.strerror}; {REMEDY}")
    return DatasetError(f"image {name} is damaged ({error}); {REMEDY}")


def without_remedy(error: DatasetError) -> str:
    """What is wrong with an image, said to whoever has no data set to leave it out of."""
    return str(error).removesuffix(f"; {REMEDY}")


@cache
def _decoders(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    PillowImage.init()
    return tuple(name for name in formats if name in PillowImage.OPEN)


def _check_size(width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short * long > MAX_PIXELS:
        raise _too_large()
    if not short or long > MAX_RATIO * short:
        raise OSError(
            errno.EFBIG,
            f"it is {width} x {height} pixels, one side more than {MAX_RATIO} times the other",
        )


def _too_large() -> OSError:
    return OSError(errno.EFBIG, f"it has more than {MAX_PIXELS:,} pixels")


def _turn_upright(image: PillowImage.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged metadata is no reason to refuse sound pixels
        return


def _rgb(image: PillowImage.Image, name: str) -> PillowImage.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return PillowImage.fromarray(_eight_bits(image, name)).convert("RGB")
    if image.mode in ("P", "PA"):
        # Straight to RGB, Pillow warns of palettes with transparency.
        image = image.convert("RGBA")
    return image.convert("RGB")


_WHITE: Final = (255.0, 4095.0, 65535.0)
"""White in 8, 12 and 16 bits. A file seldom says which it holds, so the brightest pixel does."""


def _eight_bits(image: PillowImage.Image, name: str) -> npt.NDArray[np.uint8]:
    """Deep grey pixels scaled to 0..255 (``convert`` would clip them to white).

    NaN, infinities and a single value above 16 bits mean "no data" and become black, as negative
    values do.
    """
    pixels = np.array(image, dtype=np.float32)
    finite = np.isfinite(pixels)
    beyond = finite & (pixels > _WHITE[-1])
    known = finite & ~beyond
    if beyond.any() and pixels[beyond].min() < pixels[beyond].max():
        raise DatasetError(
            f"image {name} has values up to {pixels[finite].max():g}, and no more than "
            f"{_WHITE[-1]:,.0f} are read; store it with 8 or 16 bits, or leave such images out "
            "with --skip-unreadable"
        )
    if not known.any():
        raise DatasetError(f"image {name} holds no data in any pixel; {REMEDY}")
    pixels[~known] = 0.0
    top = float(pixels.max())
    white = next(value for value in _WHITE if value >= top)
    if image.mode == "F" and top < 2.0:  # of 0 to 1, with what resampling adds to it
        white = 1.0
    pixels *= 255.0 / white
    return np.asarray(np.clip(np.rint(pixels), 0.0, 255.0), dtype=np.uint8)


@lru_cache(maxsize=1 << 17)
def _file_digest(path: Path, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file; ``size`` and ``mtime_ns`` only tell its versions apart."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_image(given: Any, number: int = 0) -> Image:
    """A path, the bytes of a file, a Pillow image or an array as an image.

    Args:
        given: one of these; an array is (height, width[, 3 or 4]) uint8.
        number: its place among others, for its name.

    Raises:
        ConfigError: it is something else.
        DatasetError: its bytes are no image, it has too many pixels, or one side is far longer than
            the other.
    """
    name = f"image {number}"
    if isinstance(given, str) and _ADDRESS.match(given):
        raise ConfigError(
            f"{given:.60} is an address, and llmopt fetches no pictures: what an address gives can "
            "change or be private; download it, and give the file or its bytes"
        )
    if isinstance(given, (bytes, bytearray, memoryview)):
        given = decode(BytesIO(given), name)
    if isinstance(given, (str, Path)):
        path = Path(given)
        return FileImage(path.parent, path.name)
    if isinstance(given, PillowImage.Image):
        given = np.asarray(_rgb(given, name))
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.shape[2:] not in ((), (3,), (4,)) or given.ndim < 2:
            raise ConfigError(
                f"an array of pixels must be (height, width, 3) uint8, not {given.shape} "
                f"{given.dtype}"
            )
        try:
            _check_size(given.shape[1], given.shape[0])
        except OSError as error:
            raise unreadable(name, error) from error
        return PixelImage(name, given)
    if isinstance(given, Image):
        return given
    raise ConfigError(
        "an image is a path, the bytes of a file, a Pillow image or an array, "
        f"not {type(given).__name__}"
    )
