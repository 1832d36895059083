"""Features of prompts, kept in memory up to a bound and encoded in blocks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from llmopt.task import FloatArray
from llmopt.vision.shelf import Shelf

BLOCK = 8192
"""Prompts encoded at a time by a box in this process."""


class TextRows:
    """Features by the normal form of their prompts, those used last.

    Args:
        size: bytes.
        encode: (n, d) features of n prompts.
        block: prompts to encode at a time; None encodes all of them at once.
    """

    def __init__(
        self, size: int, encode: Callable[[Sequence[str]], FloatArray], block: int | None
    ) -> None:
        self._kept: Shelf[Hashable, FloatArray] = Shelf(size)
        self._encode, self._block = encode, block

    def new(self, forms: Sequence[Hashable], prompts: Sequence[str]) -> dict[Hashable, str]:
        """Of the forms that are not kept, a prompt each."""
        new: dict[Hashable, str] = {}
        for form, prompt in zip(forms, prompts, strict=True):
            if form not in self._kept:
                new.setdefault(form, prompt)
        return new

    def rows(self, forms: Sequence[Hashable], new: Mapping[Hashable, str]) -> FloatArray:
        """(n, d) features of n forms, after encoding the :meth:`new` ones.

        Each block goes straight to its place: encoded all at once, they would lie there twice.
        """
        if not new:
            return np.stack([self._kept[form] for form in forms])
        first: dict[Hashable, int] = {}
        for place, form in enumerate(forms):
            first.setdefault(form, place)
        prompts, places = list(new.values()), [first[form] for form in new]
        block = self._block or len(prompts)
        found: FloatArray | None = None
        for start in range(0, len(prompts), block):
            some = slice(start, start + block)
            encoded = self._encode(prompts[some])
            if found is None:
                found = np.empty((len(forms), encoded.shape[1]), np.float32)
            found[places[some]] = encoded
        assert found is not None
        for place, form in enumerate(forms):
            if first[form] != place:
                found[place] = found[first[form]]
            elif form not in new:
                found[place] = self._kept[form]
        # What is given is what is kept, not a copy of it, where most of it is new.
        kept = map(found.__getitem__, places) if 2 * len(new) > len(forms) else found[places]
        for form, row in zip(new, kept, strict=True):
            self._kept.put(form, row, row.nbytes)
        return found
