"""open_clip models as a black box of level ``soft``."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import socket
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from llmopt._optional import require
from llmopt._torchvision import ensure_operators
from llmopt.errors import LlmoptError, ModelError, nearest
from llmopt.images import Image, PixelImage
from llmopt.task import FloatArray
from llmopt.template import clean
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.boxes import split_tag
from llmopt.vision.decoders import PILLOW, make_decoder
from llmopt.vision.device import Portion, choose, whole_fp32
from llmopt.vision.device import name as device_name
from llmopt.vision.model_files import SCHEMAS, WEIGHTS, check_model, no_foreign_code
from llmopt.vision.precision import HALF, by_rule

ensure_operators()
import open_clip  # noqa: E402

from llmopt.data.loading import load_batches  # noqa: E402
from llmopt.vision import shapes_tiny  # noqa: E402
from llmopt.vision.text_engine.device import wide  # noqa: E402
from llmopt.vision.text_engine.engine import TextEngine  # noqa: E402
from llmopt.vision.vocabulary import Vocabulary  # noqa: E402

_IN_CACHE = 16  # images
_DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class OpenClipBlackBox(BlackBox):
    """An open_clip model on CPU or GPU.

    Args:
        name: ``shapes-tiny``, an open_clip architecture, ``local-dir:PATH`` or ``hf-hub:ORG/NAME``.
        pretrained: open_clip's weight tag, or a weights file; leave empty for the names that carry
            their weights with them.
        device: ``auto`` (CUDA if there is a card, else MPS, else the CPU; ``shapes-tiny`` is too
            small to gain by it and stays where it repeats, on the CPU), ``cpu``, ``cuda``,
            ``cuda:1``, ``mps`` …
        precision: ``auto`` (fp32 on CPU, fp16 on GPU; fp64 for ``shapes-tiny``, fp32 on MPS, which
            has no fp64), ``full`` (the same, but fp32 on GPU), ``fp64`` (on any machine the same
            features to the last bit of float32), ``fp32``, ``fp16``, ``bf16``.
        batch_size: images encoded at a time; None is 256 on a GPU and 16 on a CPU, whose cache then
            holds the activations, or 64 of the embedded model's small ones. Halved, and remembered,
            when the memory of the device does not suffice.
        decoder: who decodes images, ``pillow`` or ``nvjpeg``: see :mod:`llmopt.vision.decoders`.

    Raises:
        ModelError: the model or its weights are unknown, missing, truncated or do not fit.
    """

    def __init__(
        self,
        name: str = shapes_tiny.NAME,
        pretrained: str = "",
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        decoder: str = PILLOW,
    ) -> None:
        self.device = choose("cpu" if (name, device) == (shapes_tiny.NAME, "auto") else device)
        on_gpu = self.device.type != "cpu"
        self.precision = by_rule(precision, self.device.type, name == shapes_tiny.NAME)
        self.half = self.precision in HALF
        self._name, self._pretrained = name, pretrained
        model, self.preprocess, self._tokenizer = load_model(name, pretrained, self.precision)
        self.decoder = make_decoder(decoder, self.preprocess, self.device)
        self._format = _format(model, self.precision, on_gpu)
        in_cache = 64 if name == shapes_tiny.NAME else _IN_CACHE
        self._batch = Portion(batch_size or (256 if on_gpu else in_cache), 1, "image")
        with self._able_to_compute():
            self._model = model.eval().requires_grad_(False)
            self._model.to(self.device, memory_format=self._format)
            self._check_weights()
            half = self.precision if self.half else None
            self.engine = TextEngine(self._model, self._tokenizer, precision=half, cache_bytes=0)
            self._check_features()

    @contextlib.contextmanager
    def _able_to_compute(self) -> Iterator[None]:
        """Turn what a device or a precision cannot do into words, before anything is spent."""
        try:
            yield
        except LlmoptError:
            raise
        except Exception as error:  # and in odd models, much else
            said = " ".join(str(error).split())[:200]
            raise ModelError(
                f"model '{self._name}' cannot compute in {self.precision} on {self.device}: "
                f"{said}; use another --precision, or --device cpu"
            ) from error

    def _check_weights(self) -> None:
        weights = self._model.named_parameters()
        if bad := next((name for name, w in weights if not bool(w.isfinite().all())), ""):
            raise self._not_finite(f"the weights '{bad}'")
        if not math.isfinite(float(self._model.logit_scale.exp())):
            raise self._not_finite("the logits")

    def _check_features(self) -> None:
        self.text_features(["a photo of a cat."])
        grey = np.full((64, 64, 3), 128, np.uint8)
        self.image_features([PixelImage("a grey picture", grey)])

    def _finite(self, features: FloatArray, of: Sequence[str]) -> FloatArray:
        """The features, if all are numbers: half precision ends at 65,504."""
        if features.size and not np.isfinite([features.min(), features.max()]).all():
            bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
            raise self._not_finite(f"the features of {of[bad[0]]!r}")
        return features

    def _not_finite(self, what: str) -> ModelError:
        other = "" if self.precision not in HALF else ", or use --precision fp32"
        return ModelError(
            f"{what} of model '{self._name}' are not finite in {self.precision}: the file of "
            f"weights may be damaged; fetch it again{other}"
        )

    @cached_property
    def info(self) -> BoxInfo:
        """Name, access level, weights and logit scale."""
        bias = getattr(self._model, "logit_bias", None)
        other = "" if self.decoder.name == PILLOW else f", images by {self.decoder.name}"
        return BoxInfo(
            name=self._name,
            pretrained=self._pretrained,
            access=Access.SOFT if self.engine.path == "trie" else Access.FEATURES,
            weights_sha256=self._sha256(),
            logit_scale=float(self._model.logit_scale.exp()),
            logit_bias=0.0 if bias is None else float(bias),
            detail=f"open_clip on {self.device}, {self.precision}{other}; {self.engine.why}",
            repeatable=self.precision == "fp64" and self.device.type == "cpu",
            device=device_name(self.device),
            precision=self.precision,
        )

    def normal_forms(self, prompts: Sequence[str]) -> Sequence[Hashable]:
        """Token ids up to the end-of-text token."""
        return self.engine.normal_forms([clean(prompt) for prompt in prompts])

    def token_excess(self, prompt: str) -> int:
        """Tokens over the context length of the text tower, start and end included."""
        return self.engine.token_length(clean(prompt)) - self.engine.context_length

    @torch.inference_mode()
    def image_features(self, images: Sequence[Image]) -> FloatArray:
        """(N, d) float32, L2-normalised; files are decoded while others are encoded."""
        # Reserved first: a row kept among a batch's activations would leave a hole in the heap that
        # the next batch's do not fit in, and the process would grow with the number of images.
        shape = len(images), self.engine.dim
        found = torch.empty(shape, dtype=torch.float32, device=self.device)
        load, stack = self.decoder.load, self.decoder.stack
        for places, batch in load_batches(images, load, stack, self._batch.size):
            done = 0
            while done < len(batch):
                with self._batch.halved_if_full():
                    piece = batch[done : done + self._batch.size]
                    start = int(places[done])
                    # Not waited for: a GPU works on while the next batch is collected.
                    found[start : start + len(piece)] = self._encode_pixels(piece)
                    done += len(piece)
        return self._finite(found.cpu().numpy(), [image.name for image in images])

    def _encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, d) float32, L2-normalised, on the device."""
        dtype, mixed = _DTYPES[self.precision], self.half
        pixels = pixels.to(self.device, dtype, True, memory_format=self._format)
        # Some towers mix precisions: open_clip keeps norms, scales and pools in fp32.
        with (
            whole_fp32(),
            torch.autocast(self.device.type, dtype if mixed else None, enabled=mixed),
        ):
            features = wide(self._model.encode_image(pixels))
        return torch.nn.functional.normalize(features, dim=-1).float()

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        """(M, d) float32, L2-normalised."""
        features = self.engine.encode([clean(p) for p in prompts]).float().cpu().numpy()
        return self._finite(features, prompts)

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        """(B, K, d) float32 features of soft prompts."""
        return self.engine.encode_soft(contexts, [clean(n) for n in classnames], grad=grad).float()

    def embed_text(self, text: str) -> FloatArray:
        """(L, e) float32 token vectors."""
        return self.engine.embed_text(text).cpu().numpy()

    @property
    def embedding_std(self) -> float:
        """Spread of the token-embedding table."""
        return self.engine.embedding_std

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens and their vectors."""
        return self.engine.vocabulary

    def _sha256(self) -> str:
        other = "" if self.decoder.name == PILLOW else f" {self.decoder.name}"
        sha = hashlib.sha256(f"{self.preprocess!r} {self.precision}{other}".encode())
        for name, tensor in sorted(self._model.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
        return sha.hexdigest()


def open_address(address: str) -> OpenClipBlackBox:
    """The model ``NAME`` or ``NAME@TAG``, with the device, precision and batch size that suit."""
    return OpenClipBlackBox(*split_tag(address))


def load_model(name: str, pretrained: str, precision: str = "fp32") -> tuple[Any, Any, Any]:
    """The open_clip model on the CPU, its evaluation transform and its tokenizer.

    Raises:
        ModelError: see :class:`OpenClipBlackBox`.
        ConfigError: its text goes through transformers, which is not installed.
    """
    wider = precision == "fp64"  # which open_clip has no word for
    built = "fp32" if wider else precision
    if name == shapes_tiny.NAME:
        if pretrained:
            raise ModelError(f"{name} carries its own weights; leave out --pretrained {pretrained}")
        try:
            model, preprocess, tokenizer = shapes_tiny.load(precision=built)
        except (OSError, ValueError) as error:
            raise ModelError(str(error)) from error
        return model.double() if wider else model, preprocess, tokenizer
    if not name.startswith(SCHEMAS):
        _check_names(name, pretrained)
    elif pretrained:
        raise ModelError(f"{name} brings its own weights; leave out --pretrained {pretrained}")
    try:
        with _quiet_hub(), no_foreign_code():
            check_model(name)
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=pretrained or None,
                precision=built,
                device="cpu",
                pretrained_text=False,
                require_pretrained=True,
            )
            text = open_clip.get_model_config(name)["text_cfg"]
            never = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
            tokenizer = open_clip.get_tokenizer(name, **never)
    except ModelError:
        raise
    except Exception as error:  # open_clip, hub and file formats fail in many ways
        if getattr(error, "name", "") == "transformers" or "install transformers" in str(error):
            _require_transformers(name)
        raise ModelError(_unloadable(name, pretrained, error)) from error
    return model.double() if wider else model, preprocess, tokenizer


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep open_clip and the hub from filling the terminal; what fails is reported once, by us.

    Without a network the hub would ask again for a minute before it gave up, so a machine that
    cannot even resolve its name is treated as offline.
    """
    from huggingface_hub import constants

    logging.disable(logging.CRITICAL)
    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        logging.disable(logging.NOTSET)


def _check_names(name: str, pretrained: str) -> None:
    known = open_clip.list_models()
    if name not in known:
        raise ModelError(
            f"unknown model '{name}'{nearest(name, [*known, shapes_tiny.NAME])} "
            "('llmopt models list' names them all)"
        )
    config = open_clip.get_model_config(name) or {}
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "a weights file"
        raise ModelError(f"model '{name}' needs --pretrained: {tags}")
    if any(key in config.get("text_cfg", {}) for key in ("hf_tokenizer_name", "hf_model_name")):
        _require_transformers(name)  # before gigabytes of weights are fetched
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        if Path(pretrained).is_file():
            return
        if os.sep in pretrained or Path(pretrained).suffix in WEIGHTS:
            raise ModelError(f"there is no weights file '{pretrained}' for model '{name}'")
        raise ModelError(
            f"model '{name}' has no weights '{pretrained}'{nearest(pretrained, tags)}; "
            f"it has: {', '.join(tags) or 'none, give a weights file'}"
        )
    # Weights trained with QuickGELU lose accuracy silently under GELU, and the other way round.
    trained_quick = bool(open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False))
    built_quick = bool(config.get("quick_gelu", False))
    if trained_quick != built_quick:
        other = f"{name}-quickgelu" if trained_quick else name.removesuffix("-quickgelu")
        raise ModelError(
            f"weights '{pretrained}' were trained with {'Quick' if trained_quick else ''}GELU, "
            f"but '{name}' is built without it and would lose accuracy silently; "
            f"use --model {other}"
        )


def _require_transformers(name: str) -> None:
    require("transformers", "transformers", f"the text tower or tokenizer of model '{name}'")


def _unloadable(name: str, pretrained: str, error: Exception) -> str:
    what = f"model '{name}'" + (f" with weights '{pretrained}'" if pretrained else "")
    said = " ".join(str(error).split()) or type(error).__name__
    reason = said.partition(". ")[0][:200]
    if name.startswith("local-dir:") or Path(pretrained).is_file():
        return f"cannot load {what}: {reason}; is the file complete and made for this model?"
    return (
        f"the weights of {what} are not on this machine and could not be fetched ({reason}). "
        "With a network, run the same command again: they are downloaded once. Without, copy an "
        "open_clip folder (open_clip_config.json and weights) here and use --model local-dir:PATH, "
        "or try the tool with --model shapes-tiny"
    )


def _format(model: Any, precision: str, on_gpu: bool) -> torch.memory_format:
    """How pixels and weights lie: channels last where that makes convolutions faster.

    By kind of tower, so that it is the same in every run (``benchmarks/results/cpu_images.md``); a
    tower whose one convolution cuts patches gains nothing. Kernels for fp64 have no such form, and
    on a GPU fp32 gains nothing.
    """
    convolutions = sum(isinstance(part, torch.nn.Conv2d) for part in model.visual.modules())
    gains = precision in HALF or (precision == "fp32" and not on_gpu)
    return torch.channels_last if gains and convolutions > 1 else torch.preserve_format
