"""A small world for tests: pictures, a task, a black box that counts for itself, a search.

The world: five classes; every picture shows two of them, and the label is the one that the word
``small`` points at (``large`` points at the other). So the plain template is right half of the
time, a template with ``small`` nearly always, one with ``large`` nearly never; ``tiny``, ``little``
and ``big``, ``huge`` do the same more weakly. All other words do little.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PillowImage

from llmopt.images import Image
from llmopt.search.base import Search
from llmopt.spend.checkpoint import Checkpoints
from llmopt.spend.events import Progress
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Caps, Ledger
from llmopt.task import FewShot, FloatArray, Labelled, Task, TestSet
from llmopt.template import PLAIN, Template, display_name
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.metered import MeteredBox

if TYPE_CHECKING:
    import torch

NAMES = ("circle", "square", "big_star", "cross", "ring")
PLANTED = "a small {}."

_POINTERS = {"small": 1.5, "tiny": 0.7, "little": 0.7, "large": -1.5, "big": -0.7, "huge": -0.7}
_CLASSES = len(NAMES)
_WIDTH = 2 + _CLASSES + 2  # two gates, the classes, noise
_LIMIT = 24  # words a prompt may hold


# ------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Picture:
    """An 8x8 picture whose four quarters spell out twelve numbers in [0, 1]."""

    name: str
    values: tuple[float, ...]

    def key(self) -> str:
        """What tells its content apart."""
        content = np.asarray(self.load()).tobytes()
        return f"{zlib.crc32(content):08x}{zlib.adler32(content):08x}"

    def load(self) -> PillowImage.Image:
        """It as Pillow has it."""
        quarters = np.asarray(self.values).reshape(2, 2, 3)
        pixels = np.clip(np.rint(quarters * 255), 0, 255).astype(np.uint8)
        return PillowImage.fromarray(pixels.repeat(4, axis=0).repeat(4, axis=1))


def picture(name: str, label: int) -> Picture:
    """A picture of two classes, the first of them pointed at by ``small``."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    other = (label + 1 + int(rng.integers(_CLASSES - 1))) % _CLASSES
    values = rng.uniform(0.0, 0.25, 2 * _CLASSES + 2)
    values[label] += 0.6
    values[_CLASSES + other] += 0.6
    return Picture(name, tuple(float(v) for v in values))


def pictures(split: str, per_class: int, seed: int = 0) -> Labelled:
    """Labelled pictures, class after class."""
    labels = np.repeat(np.arange(_CLASSES, dtype=np.int64), per_class)
    images = tuple(
        picture(f"{split}/{seed}/{i:04d}.png", label) for i, label in enumerate(labels.tolist())
    )
    return Labelled(images, labels)


def make_task(shots: int = 2, seed: int = 1, *, val: int | None = None, start: str = PLAIN) -> Task:
    """A task of this world; no test images belong to it."""
    train = pictures("train", shots, seed)
    held = pictures("val", min(shots, 4) if val is None else val, seed)
    return Task(
        dataset="fake",
        classnames=NAMES,
        train=FewShot(train.images, train.labels),
        val=FewShot(held.images, held.labels),
        shots=shots,
        seed=seed,
        start=Template(start),
        split_sha256="0" * 64,
        handcrafted=(Template("a photo of a {}, a type of shape."),),
    )


def held_out(per_class: int = 20) -> TestSet:
    """What measures a finished search."""
    images = pictures("test", per_class)
    return TestSet(images.images, images.labels)


# ------------------------------------------------------------------------------------ black box


class FakeBox(BlackBox):
    """A box in memory that counts what it is asked.

    Attributes:
        asked: what it did, in the ledger's currencies.
        prompts: every text it was given, in order.
        images: names of the images it was given, each once.
        before: called before every use, to make trouble.
        flat: give every prompt the same scores.
    """

    def __init__(
        self, access: Access = Access.FEATURES, *, flat: bool = False, scale: float = 10.0
    ) -> None:
        self._access, self._flat, self._scale = access, flat, scale
        self.asked: Counter[str] = Counter()
        self.prompts: list[str] = []
        self.images: set[str] = set()
        self.before: Callable[[], None] = lambda: None

    @property
    def info(self) -> BoxInfo:
        """It is fake."""
        return BoxInfo("fake", "", self._access, "f" * 64, logit_scale=self._scale)

    def token_excess(self, prompt: str) -> int:
        """Words over the limit."""
        return len(prompt.split()) - _LIMIT

    def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> Any:
        """(N,) places of the best scores."""
        return np.asarray(self._pairs(images, prompts).argmax(axis=1), dtype=np.int64)

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        """(N, M) float32 logits."""
        self._require(Access.SCORES, "scores")
        return self._pairs(images, prompts)

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        """(N, 12) float32."""
        self._require(Access.FEATURES, "image features")
        self._note(image_encodings=len(images))
        return self._see(images)

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        """(M, 12) float32."""
        self._require(Access.FEATURES, "text features")
        self._note(text_encodings=len(prompts))
        return self._read(prompts)

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        """(B, K, 12) float32."""
        import torch

        self._require(Access.SOFT, "features of soft prompts")
        self._note(soft_prompt_encodings=len(contexts) * len(classnames))
        with torch.set_grad_enabled(grad):
            tails = torch.tensor(np.stack([_vectors(f"{n}.").sum(0) for n in classnames])).float()
            heads = contexts.sum(dim=-2)
            heads = heads if contexts.ndim == 4 else heads[:, None]
            total = heads + tails
            gates = torch.exp(total[..., :1] - total[..., 1:2])
            classes, noise = total[..., 2:-2], 0.3 * torch.tanh(total[..., -2:])
            rows = torch.cat([gates * classes, classes / gates, noise], dim=-1)
            return torch.nn.functional.normalize(rows, dim=-1)

    def embed_text(self, text: str) -> FloatArray:
        """(L, 9) float32, a row a word."""
        self._require(Access.SOFT, "token vectors")
        return _vectors(text)

    @property
    def embedding_std(self) -> float:
        """About that of :func:`_vector`."""
        self._require(Access.SOFT, "token vectors")
        return 0.5

    def agrees_with(self, ledger: Ledger) -> None:
        """Fail where a ledger says something else than this box counted."""
        received = ["image_encodings", "text_encodings", "soft_prompt_encodings", "black_box_calls"]
        if self._access < Access.FEATURES:
            received.append("pairs_scored")
        for currency in received:
            assert ledger[currency] == self.asked[currency], currency

    def _pairs(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        self._note(
            image_encodings=len(images),
            text_encodings=len(prompts),
            pairs_scored=len(images) * len(prompts),
        )
        found: FloatArray = self.logits(self._see(images), self._read(prompts))
        return found

    def _note(self, **amounts: int) -> None:
        self.before()
        self.asked.update(amounts)
        self.asked["black_box_calls"] += 1

    def _see(self, images: Sequence[Image]) -> FloatArray:
        self.images.update(image.name for image in images)
        rows = []
        for image in images:
            small = image.load().resize((2, 2), PillowImage.Resampling.BOX)
            rows.append(np.asarray(small, dtype=np.float64).ravel() / 255)
        return _normal(np.stack(rows))

    def _read(self, prompts: Sequence[str]) -> FloatArray:
        self.prompts += prompts
        if self._flat:
            return _normal(np.ones((len(prompts), 2 * _CLASSES + 2)))
        total = np.stack([_vectors(prompt).sum(axis=0) for prompt in prompts])
        gates = np.exp(total[:, :1] - total[:, 1:2])
        classes, noise = total[:, 2:-2], 0.3 * np.tanh(total[:, -2:])
        return _normal(np.concatenate([gates * classes, classes / gates, noise], axis=1))


def _vectors(text: str) -> FloatArray:
    words = display_name(text).lower().replace(".", " ").replace(",", " ").split()
    return np.stack([_vector(word) for word in words or ["nothing"]])


@cache
def _vector(word: str) -> FloatArray:
    row = np.zeros(_WIDTH, dtype=np.float32)
    for label, name in enumerate(NAMES):
        parts = display_name(name).split()
        if word in parts[-1:]:
            row[2 + label] = 1.0
    rng = np.random.default_rng(zlib.crc32(word.encode()))
    row[:2] = rng.uniform(-0.04, 0.04, 2)
    row[-2:] = rng.uniform(-0.5, 0.5, 2)
    row[0] += max(0.0, _POINTERS.get(word, 0.0))
    row[1] += max(0.0, -_POINTERS.get(word, 0.0))
    return row


def _normal(rows: Any) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


# --------------------------------------------------------------------------------------- search


@dataclass
class Stage:
    """A search on a run folder of its own."""

    search: Search
    box: BlackBox
    journal: Journal
    ledger: Ledger
    chat: Any
    told: list[Progress] = field(default_factory=list)


@contextmanager
def stage(
    folder: Path,
    task: Task,
    box: BlackBox | None = None,
    *,
    chat: Any = None,
    caps: Caps | None = None,
    seed: int = 1,
    clock: Callable[[], float] = lambda: 0.0,
) -> Any:
    """A :class:`Stage`; entering it again on the same folder resumes."""
    folder.mkdir(parents=True, exist_ok=True)
    box = box or FakeBox()
    journal = Journal(folder / "journal.jsonl")
    ledger = Ledger(caps, clock)
    told: list[Progress] = []
    try:
        search = Search(
            task=task,
            box=MeteredBox(box, ledger),
            chat=_metered(chat, ledger, journal) if chat is not None else None,
            seed=seed,
            journal=journal,
            ledger=ledger,
            checkpoints=Checkpoints(folder / "checkpoint.safetensors", ledger, journal),
            on_progress=told.append,
        )
        yield Stage(search, box, journal, ledger, chat, told)
    finally:
        journal.close()


def _metered(chat: Any, ledger: Ledger, journal: Journal) -> Any:
    from llmopt.language.llm import Llm
    from llmopt.language.metered import MeteredChat
    from llmopt.language.settings import LlmSettings

    settings = LlmSettings(attempts=3, first_pause=0.0)
    return MeteredChat(Llm("test:model", settings=settings, model=chat), ledger, journal)
