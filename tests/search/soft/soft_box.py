"""A small soft black box that counts for itself, and tasks with a known right prompt.

The text tower is a recurrent net: causal, sensitive to order, differentiable, and the same for
words and for free vectors. Images are 8x8 pictures whose four quarters spell out a feature, so that
real augmentation can be applied to them.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image as PillowImage

from llmopt.images import Image
from llmopt.search.base import Search
from llmopt.spend.checkpoint import Checkpoints
from llmopt.spend.events import Progress
from llmopt.spend.journal import Journal
from llmopt.spend.ledger import Caps, Ledger
from llmopt.task import FewShot, FloatArray, Labelled, Task, TestSet
from llmopt.template import Template, display_name
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.metered import MeteredBox

WIDTH, HIDDEN, DIM = 16, 32, 12
NAMES = ("circle", "square", "big_star", "cross", "ring")
PLANTED = "one lonely {}."
PLAIN = "a photo of a {}."


@dataclass(frozen=True)
class Picture:
    """An 8x8 picture of a feature's twelve numbers in [-1, 1]."""

    name: str
    values: tuple[float, ...]

    def key(self) -> str:
        return f"{self.name}:{zlib.crc32(repr(self.values).encode())}"

    def load(self) -> PillowImage.Image:
        quarters = np.asarray(self.values).reshape(2, 2, 3)
        pixels = np.clip(np.rint((quarters + 1) * 127.5), 0, 255).astype(np.uint8)
        return PillowImage.fromarray(pixels.repeat(4, axis=0).repeat(4, axis=1))


class SoftBox(BlackBox):
    """Level ``soft`` unless told otherwise; ``asked`` is what it was asked to do."""

    def __init__(self, access: Access = Access.SOFT, scale: float = 20.0) -> None:
        rng = np.random.default_rng(5)
        self._into = torch.tensor(rng.normal(0, 1.0, (WIDTH, HIDDEN)), dtype=torch.float32)
        self._again = torch.tensor(rng.normal(0, 1.8 / HIDDEN**0.5, (HIDDEN, HIDDEN))).float()
        self._out = torch.tensor(rng.normal(0, 1, (HIDDEN, DIM)), dtype=torch.float32)
        self._access, self._scale = access, scale
        self.asked: Counter[str] = Counter()

    @property
    def info(self) -> BoxInfo:
        return BoxInfo("soft-box", "", self._access, "0" * 64, logit_scale=self._scale)

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        self.asked["image_encodings"] += len(images)
        rows = []
        for image in images:
            picture = image.load().resize((2, 2), PillowImage.Resampling.BOX)
            rows.append(np.asarray(picture, dtype=np.float64).ravel() / 127.5 - 1)
        features = np.stack(rows)
        return np.asarray(
            features / np.linalg.norm(features, axis=1, keepdims=True), dtype=np.float32
        )

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        self.asked["text_encodings"] += len(prompts)
        with torch.no_grad():
            rows = [self._read(self._vectors(prompt)) for prompt in prompts]
        return torch.stack(rows).numpy()

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        self.asked["soft_prompt_encodings"] += len(contexts) * len(classnames)
        with torch.set_grad_enabled(grad):
            columns = []
            for k, name in enumerate(classnames):
                own = contexts[:, k] if contexts.ndim == 4 else contexts
                tail = self._vectors(f"{display_name(name)}.")
                columns.append(self._read(torch.cat([own, tail.expand(len(own), -1, -1)], dim=1)))
            return torch.stack(columns, dim=1)

    def embed_text(self, text: str) -> FloatArray:
        return self._vectors(text).numpy()

    @property
    def embedding_std(self) -> float:
        return 1.0

    def _vectors(self, text: str) -> torch.Tensor:
        return torch.stack([_word(word) for word in text.lower().replace(".", " .").split()])

    def _read(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(*x.shape[:-2], HIDDEN)
        for t in range(x.shape[-2]):
            h = torch.tanh(x[..., t, :] @ self._into + h @ self._again)
        return torch.nn.functional.normalize(h @ self._out, dim=-1)


@cache
def _word(word: str) -> torch.Tensor:
    vector = np.random.default_rng(zlib.crc32(word.encode())).normal(size=WIDTH)
    return torch.tensor(vector, dtype=torch.float32)


def picture(box: SoftBox, name: str, feature: np.ndarray[Any, Any], noise: float) -> Picture:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = feature + rng.normal(0, noise, len(feature))
    return Picture(name, tuple(float(v) for v in np.clip(values, -1, 1)))


def make_task(
    box: SoftBox,
    shots: int = 2,
    seed: int = 1,
    start: str = PLAIN,
    planted: str = PLANTED,
    noise: float = 0.1,
    val: bool = True,
) -> tuple[Task, TestSet]:
    """A task whose images look like the prompts of ``planted``, and its test images."""
    centres = box.text_features(Template(planted).fill_all(NAMES))
    box.asked.clear()

    def draw(split: str, per_class: int) -> Labelled:
        labels = np.arange(per_class * len(NAMES), dtype=np.int64) % len(NAMES)
        images = tuple(
            picture(box, f"{split}/{seed}/{i:04d}", centres[label], noise)
            for i, label in enumerate(labels)
        )
        return Labelled(images, labels)

    train, test = draw("train", shots), draw("test", 40)
    held = draw("val", min(shots, 4) if val else 0)
    task = Task(
        dataset="planted",
        classnames=NAMES,
        train=FewShot(train.images, train.labels),
        val=FewShot(held.images, held.labels),
        shots=shots,
        seed=seed,
        start=Template(start),
        split_sha256="0" * 64,
    )
    return task, TestSet(test.images, test.labels)


class Bench:
    """A run folder with a search in it; make another in the same folder to resume."""

    def __init__(
        self, folder: Path, task: Task, box: SoftBox, caps: Caps | None = None, seed: int = 1
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.box = box
        self.journal = Journal(folder / "journal.jsonl")
        self.ledger = Ledger(caps, clock=lambda: 0.0)
        self.metered = MeteredBox(box, self.ledger)
        self.told: list[Progress] = []
        self.search = Search(
            task=task,
            box=self.metered,
            chat=None,
            seed=seed,
            journal=self.journal,
            ledger=self.ledger,
            checkpoints=Checkpoints(folder / "state.safetensors", self.ledger, self.journal),
            on_progress=self.told.append,
        )

    def spent(self) -> dict[str, float]:
        """The ledger's account of what :attr:`SoftBox.asked` counts."""
        kinds = ("image_encodings", "text_encodings", "soft_prompt_encodings")
        return {kind: self.ledger[kind] for kind in kinds if self.ledger[kind]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.journal.close()
