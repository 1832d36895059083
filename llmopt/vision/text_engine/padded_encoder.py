"""Runs a model's own ``encode_text`` on padded prompts: right for every tower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmopt.vision.device import Portion
from llmopt.vision.text_engine.device import to_device, wide

# Bounds the activations; larger batches have nothing left to gain.
_TOKENS = {"cpu": 8192, "cuda": 65536}


class PaddedEncoder:
    """Features of token sequences, each padded to full length.

    Args:
        model: any model with ``encode_text``.
        length: tokens of a padded prompt.
        dtype: run under autocast to this precision; None, float32 and float64 leave the model as
            it is.
    """

    kind = "padded"

    def __init__(self, model: Any, length: int, dtype: torch.dtype | None = None) -> None:
        self._model = model
        self._length = length
        self._device: torch.device = next(model.parameters()).device
        self._autocast = None if dtype in (torch.float32, torch.float64) else dtype
        tokens = _TOKENS.get(self._device.type, _TOKENS["cuda"])
        self._batch = Portion(tokens // length, 1, "padded prompt")

    def cut(self, row: Sequence[int]) -> tuple[int, ...]:
        """A padded row with its padding, a run of one id at the end, folded into one."""
        end = len(row)
        while end > 1 and row[end - 2] == row[-1]:
            end -= 1
        return tuple(row[:end])

    def encode(self, forms: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Features of sequences (see :meth:`cut`), in pieces.

        Each piece is places in ``forms`` and their features (places, d), L2-normalised.
        """
        start = 0
        while start < len(forms):
            batch = forms[start : start + self._batch.size]
            rows = [[*form, *[form[-1]] * (self._length - len(form))] for form in batch]
            with self._batch.halved_if_full():
                features = self.features(np.array(rows))
                yield list(range(start, start + len(batch))), features
                start += len(batch)

    def features(self, ids: npt.NDArray[np.int64]) -> Tensor:
        """(n, d) L2-normalised features of padded token ids (n, length)."""
        context: AbstractContextManager[Any] = nullcontext()
        if self._autocast is not None:
            context = torch.autocast(self._device.type, self._autocast)
        with context:
            features = self._model.encode_text(to_device(ids, self._device))
        return F.normalize(wide(features), dim=-1)
