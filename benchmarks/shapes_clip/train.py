"""Train ``shapes-tiny``, a CLIP model of the shapes world, from scratch.

    python benchmarks/shapes_clip/train.py --out llmopt/assets/shapes-tiny

The towers are open_clip's own; the recipe is in ``config.json``. Two losses:

* contrastive, in both directions, over a batch of images and fresh captions. A caption is often
  true of more than one image of the batch; every true pair is a positive.
* a binary cross-entropy that reads from the image embedding which (shape, attribute) pairs are in
  the picture. It teaches what belongs to which object early on; its head is thrown away.

Words outside the world's vocabulary share one learned vector, so only the rows of the token table
that captions use are trained and stored.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from captions import ATTRIBUTES, UNKNOWN, Caption, describe, vocabulary  # noqa: E402

from llmopt._torchvision import ensure_operators  # noqa: E402
from llmopt.data.shapes import (  # noqa: E402
    SHAPES,
    TASKS,
    Scene,
    ShapesDataset,
    planted_template,
    pool_image,
)

ensure_operators()

from open_clip import CLIP, SimpleTokenizer  # noqa: E402
from open_clip.model import text_global_pool  # noqa: E402

_PUNCTUATION = ".!,:-()"


@dataclass(frozen=True)
class Training:
    """The ``training`` section of the config."""

    seed: int
    pool: int
    batch: int
    steps: int
    warmup: int
    learning_rate: float
    weight_decay: float
    pair_weight: float
    log_every: int
    check_every: int


# ------------------------------------------------------------------------------------------ text


class Vocabulary:
    """The token ids that captions use, numbered densely; one more number for all others.

    The end token keeps the largest number, because CLIP reads a text's features where the largest
    id stands.
    """

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length
        self._tokenizer = SimpleTokenizer(context_length=context_length)
        words = sorted(vocabulary()) + list(_PUNCTUATION)
        known = {token for word in words for token in self._tokenizer.encode(word)}
        self.ids = [*sorted(known), self._tokenizer.sot_token_id, self._tokenizer.eot_token_id]
        self._row = {token: row for row, token in enumerate(self.ids[:-1], start=1)}  # 0 pads
        self.unknown, self.end = len(self.ids), len(self.ids) + 1
        self.known = [*self._row.values(), self.end]
        """The rows of :attr:`ids`, in their order."""
        self._start = self._row[self._tokenizer.sot_token_id]
        self._rows: dict[str, list[int]] = {UNKNOWN: [self.unknown]}

    def __len__(self) -> int:
        return len(self.ids) + 2

    def _encode_word(self, word: str) -> list[int]:
        if word not in self._rows:
            # Punctuation may touch a placeholder, so what surrounds it is encoded by itself.
            rows: list[int] = []
            for i, part in enumerate(word.split(UNKNOWN)):
                rows += [self.unknown] if i else []
                rows += [self._row.get(t, self.unknown) for t in self._tokenizer.encode(part)]
            self._rows[word] = rows
        return self._rows[word]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(B, L) int64 rows, cut to the longest text's length L; over-long texts lose their end."""
        encoded = []
        for text in texts:
            rows = [row for word in text.split() for row in self._encode_word(word)]
            encoded.append([self._start, *rows[: self.context_length - 2], self.end])
        out = np.zeros((len(encoded), max(map(len, encoded))), dtype=np.int64)
        for line, rows in zip(out, encoded, strict=True):
            line[: len(rows)] = rows
        return torch.from_numpy(out)


def encode_text(model: CLIP, rows: Tensor) -> Tensor:
    """(B, d) text features of (B, L) rows.

    CLIP's own ``encode_text`` wants the full context. Attention is causal and the features are read
    at the end token, so leaving out the padding after the longest text changes nothing.
    """
    length = rows.shape[1]
    x = model.token_embedding(rows) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    pooled = text_global_pool(model.ln_final(x), rows, "argmax")
    return pooled @ model.text_projection


def encode_by_length(model: CLIP, rows: Tensor, groups: int = 4) -> Tensor:
    """The same for a whole batch, similar lengths together: most captions are half the context."""
    lengths = (rows != 0).sum(1)
    order = lengths.argsort()
    features = [
        encode_text(model, rows[part, : int(lengths[part].max())]) for part in order.chunk(groups)
    ]
    return torch.cat(features)[order.argsort()]


# ---------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class Pool:
    """N images of the world, with what is in them.

    Attributes:
        pixels: (N, 3, 48, 48) uint8.
        scenes: the N scenes.
        shapes: (N, 2) int64, index of each object's shape.
        attributes: (N, 2, A) float32, 1 where the object has the attribute.
    """

    pixels: Tensor
    scenes: list[Scene]
    shapes: Tensor
    attributes: Tensor

    def pairs(self, index: Tensor) -> Tensor:
        """(B, S * A) float32: 1 for each (shape, attribute) pair that is in the picture."""
        one_hot = F.one_hot(self.shapes[index], len(SHAPES)).float()
        present = torch.einsum("bos,boa->bsa", one_hot, self.attributes[index])
        return present.flatten(1)


def _draw(indices: range) -> tuple[NDArray[np.uint8], list[Scene]]:
    images = [pool_image(index) for index in indices]
    return np.stack([np.asarray(image.load()) for image in images]), [i.scene for i in images]


def draw_pool(count: int) -> Pool:
    """The first ``count`` images of the world's pool."""
    chunks = [range(start, min(start + 2000, count)) for start in range(0, count, 2000)]
    pixels, scenes = [], []
    with ProcessPoolExecutor() as workers:
        for drawn, chunk_scenes in workers.map(_draw, chunks):
            pixels.append(torch.from_numpy(drawn).permute(0, 3, 1, 2))
            scenes += chunk_scenes
    shapes = [[SHAPES.index(thing.shape) for thing in scene] for scene in scenes]
    has = [[[thing.has(a) for a in ATTRIBUTES] for thing in scene] for scene in scenes]
    return Pool(
        torch.cat(pixels), scenes, torch.tensor(shapes), torch.tensor(has, dtype=torch.float32)
    )


class Normalise:
    """uint8 pixels to the tower's input, as the model's preprocessing does it."""

    def __init__(self, preprocess_cfg: dict[str, Any]) -> None:
        mean, std = (torch.tensor(preprocess_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
        self._scale, self._shift = 1 / (255 * std), mean / std

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float32, channels last (twice as fast in the image tower)."""
        floats = pixels.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(self._scale).sub_(self._shift)


# ---------------------------------------------------------------------------------------- losses


def truth(pool: Pool, index: Tensor, captions: Sequence[Caption]) -> Tensor:
    """(B, C) float32: 1 where image ``index[b]`` shows all that caption ``c`` claims."""
    shapes, attributes = pool.shapes[index], pool.attributes[index]
    result = torch.ones(len(index), len(captions), dtype=torch.bool)
    for number in range(2):
        claims = [caption.claims[min(number, len(caption.claims) - 1)] for caption in captions]
        shape = torch.tensor([SHAPES.index(claim.shape) for claim in claims])
        wanted = torch.tensor(
            [[float(a in claim.attributes) for a in ATTRIBUTES] for claim in claims]
        )
        fits = [
            (shapes[:, None, thing] == shape) & ((1 - attributes[:, thing]) @ wanted.T == 0)
            for thing in range(2)
        ]
        result &= fits[0] | fits[1]
    return result.float()


def contrastive_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of (B, B) logits in both directions against all true pairs, evenly weighted."""
    rows = -(logits.log_softmax(1) * positive).sum(1) / positive.sum(1)
    columns = -(logits.log_softmax(0) * positive).sum(0) / positive.sum(0)
    return (rows.mean() + columns.mean()) / 2


# -------------------------------------------------------------------------------------- training


def build(config: dict[str, Any], words: Vocabulary) -> CLIP:
    """open_clip's CLIP with a token table of only the known words."""
    cfg = config["model_cfg"]
    text_cfg = {**cfg["text_cfg"], "vocab_size": len(words)}
    return CLIP(cfg["embed_dim"], cfg["vision_cfg"], text_cfg)


def optimizer_for(model: nn.Module, head: nn.Module, training: Training) -> torch.optim.Optimizer:
    """AdamW; biases, norms, gains and the embeddings are not decayed."""
    decayed, rest = [], []
    for name, parameter in [*model.named_parameters(), *head.named_parameters()]:
        plain = parameter.ndim < 2 or "embedding" in name
        (rest if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def rate(step: int, training: Training) -> float:
    """Learning-rate factor: linear warm-up, then a cosine to zero."""
    if step < training.warmup:
        return (step + 1) / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def batches(pool: Pool, training: Training) -> Iterator[tuple[Tensor, list[Caption]]]:
    """Shuffled passes over the pool, with a fresh caption for every image each time."""
    shuffle = torch.Generator().manual_seed(training.seed)
    words = random.Random(training.seed)
    while True:
        order = torch.randperm(len(pool.scenes), generator=shuffle)
        for index in order.split(training.batch):
            if len(index) == training.batch:
                yield index, [describe(pool.scenes[i], words) for i in index.tolist()]


def train(config: dict[str, Any], folder: Path, *, quiet: bool = False) -> CLIP:
    """Train as ``config`` says; write weights, open_clip's config and the log to ``folder``."""
    training = Training(**config["training"])
    if training.batch > training.pool:
        raise ValueError(f"batch {training.batch} is larger than the pool of {training.pool}")
    folder.mkdir(parents=True, exist_ok=True)
    architecture = {key: config[key] for key in ("model_cfg", "preprocess_cfg")}
    (folder / "open_clip_config.json").write_text(json.dumps(architecture, indent=2) + "\n")
    torch.manual_seed(training.seed)
    words = Vocabulary(config["model_cfg"]["text_cfg"]["context_length"])
    normalise = Normalise(config["preprocess_cfg"])
    model = build(config, words).to(memory_format=torch.channels_last)
    head = nn.Linear(config["model_cfg"]["embed_dim"], len(SHAPES) * len(ATTRIBUTES))
    optimizer = optimizer_for(model, head, training)
    pool = draw_pool(training.pool)

    start = time.monotonic()
    log_path = folder / "training_log.jsonl"
    log_path.unlink(missing_ok=True)
    source = batches(pool, training)
    model.train()
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * rate(step, training)
        index, captions = next(source)
        images = normalise(pool.pixels[index])
        rows = words.encode([caption.text for caption in captions])
        # On a CPU, the fused attention's backward pass is slower than plain matrix products.
        with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            image, text = model.encode_image(images), encode_by_length(model, rows)
        image, text = image.float(), text.float()
        pairs = F.binary_cross_entropy_with_logits(head(image), pool.pairs(index))
        cosine = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        contrast = contrastive_loss(model.logit_scale.exp() * cosine, truth(pool, index, captions))
        optimizer.zero_grad(set_to_none=True)
        (contrast + training.pair_weight * pairs).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, math.log(100.0))

        done = step + 1
        if done % training.log_every == 0 or done == training.steps:
            entry = {
                "step": done,
                "samples": done * training.batch,
                "seconds": round(time.monotonic() - start, 1),
                "contrastive": round(contrast.item(), 4),
                "pairs": round(pairs.item(), 4),
                "logit_scale": round(model.logit_scale.exp().item(), 2),
            }
            if done % training.check_every == 0 or done == training.steps:
                save(model, words, folder / "weights.safetensors")
                entry |= check(model, words, normalise)
            line = json.dumps(entry)
            with log_path.open("a") as log:
                log.write(line + "\n")
            if not quiet:
                print(line, flush=True)
    return model.eval()


def check(model: CLIP, words: Vocabulary, normalise: Normalise) -> dict[str, float]:
    """Mean accuracy over the tasks' validation images, with the plain and the right template."""
    totals = {"plain": 0.0, "planted": 0.0}
    model.eval()
    with torch.inference_mode():
        for task in TASKS:
            images, labels = ShapesDataset(task).split("val")
            drawn = np.stack([np.asarray(image.load()) for image in images])
            pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2)
            features = model.encode_image(normalise(pixels))
            templates = {"plain": ShapesDataset.template, "planted": planted_template(task)}
            for name, template in templates.items():
                rows = words.encode([template.replace("{}", shape) for shape in SHAPES])
                text = F.normalize(encode_text(model, rows), dim=-1)
                right = (features @ text.T).argmax(1) == torch.from_numpy(labels)
                totals[name] += right.float().mean().item() / len(TASKS)
    model.train()
    return {name: round(value, 4) for name, value in totals.items()}


def save(model: CLIP, words: Vocabulary, path: Path) -> None:
    """Write the weights: float32, the token table as known rows with their ids plus one vector."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    table = state.pop("token_embedding.weight")
    state["token_embedding.known"] = table[words.known]
    state["token_embedding.known_ids"] = torch.tensor(words.ids, dtype=torch.int32)
    state["token_embedding.unknown"] = table[words.unknown]
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in state.items()}, partial)
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "config.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and log")
    for name in ("steps", "pool", "batch", "seed"):
        parser.add_argument(f"--{name}", type=int, help="instead of the config's")
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text())
    for name in ("steps", "pool", "batch", "seed"):
        value = getattr(arguments, name)
        if value is not None:
            config["training"][name] = value
    train(config, arguments.out)


if __name__ == "__main__":
    main()
