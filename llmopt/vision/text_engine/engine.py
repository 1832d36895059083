"""Text features of an open_clip model without computing any token twice.

In a causal text tower that reads its feature at the end-of-text token, padding after that token
changes nothing, and prompts that begin alike share the states of their beginning. The engine
computes each distinct beginning once (:mod:`~llmopt.vision.text_engine.tree_encoder`), for text
prompts and for soft prompts, which put free vectors in place of a template's words. Other towers
run as the model itself does (:mod:`~llmopt.vision.text_engine.padded_encoder`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llmopt.errors import AccessError, ConfigError, ModelError, TemplateError, nearest
from llmopt.template import display_name
from llmopt.vision.text_engine.device import index, to_device
from llmopt.vision.text_engine.padded_encoder import PaddedEncoder
from llmopt.vision.text_engine.row_cache import RowCache
from llmopt.vision.text_engine.token_tree import TokenTree
from llmopt.vision.text_engine.towers import NotCausal, read_tower
from llmopt.vision.text_engine.tree_encoder import TreeEncoder
from llmopt.vision.text_engine.words import WordTokenizer
from llmopt.vision.vocabulary import Vocabulary

Form = tuple[int, ...]
"""Token ids of a text as far as the tower looks: equal forms have equal features."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CACHE_BYTES = 256 * 2**20
FORMS = 2**16
"""Texts whose token ids are remembered: a search asks for each a few times in a row."""

# Long and short, beginning alike and not: what both paths must agree on.
_PROBES = ("a photo of a cat.", "a photo of a small dog in the snow.", "itap of a cat.", "texture")

# Largest difference of normalised features that rounding explains.
_TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.bfloat16: 3e-2,
    torch.float16: 5e-3,
}


@dataclass
class TextCounts:
    """What an engine has done since it was made.

    Attributes:
        texts: texts asked for.
        computed: how many of them were computed. The rest were equal to another text of the same
            call, token for token, or kept from an earlier one.
    """

    texts: int = 0
    computed: int = 0


class TextEngine:
    """Text features of an open_clip model.

    Args:
        model: an open_clip model on its device; put into evaluation mode. Its text weights must
            not change while the engine is in use.
        tokenizer: what ``open_clip.get_tokenizer`` gives for it.
        precision: of matrix products, ``fp32``, ``bf16`` or ``fp16``; None takes the weights'.
            Norms, sums, the residual stream and results are fp32, or fp64 where the weights are.
            Padded towers run under autocast instead, never above the precision of their weights.
        cache_bytes: bound of the features kept from earlier calls.

    Attributes:
        path: ``"trie"`` or ``"padded"``.
        why: a sentence on what decided it.
        context_length: longest text in tokens, start and end included.
        dim: length d of a feature.
        dtype: of features: float32, or float64 where the weights are.
        device: where the model is and results lie.
        counts: see :class:`TextCounts`.

    Raises:
        ConfigError: the precision is unknown.
        ModelError: model and tokenizer do not belong together.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        precision: str | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise ConfigError(
                f"precision {precision!r} is not one of {', '.join(PRECISIONS)}"
                + nearest(precision, PRECISIONS)
            )
        dtype = PRECISIONS[precision] if precision else None
        probes = tokenizer(list(_PROBES))
        self.context_length: int = probes.shape[1]
        self.device: torch.device = next(model.parameters()).device
        self.counts = TextCounts()

        self._tokenizer = tokenizer
        self._vocabulary: int = getattr(model, "vocab_size", 0)  # 0: it does not tell
        self._encoder, self.why = _choose_encoder(model.eval(), probes, dtype)
        self.path = self._encoder.kind
        words, cut = WordTokenizer(tokenizer, self.context_length), self._encoder.cut
        # Without padding, where nothing is read there.
        bare = list(map(cut, words.rows(_PROBES))) == list(map(cut, probes.tolist()))
        self._rows = words.rows if bare else words.padded
        self._padding = 0 if self.path == "trie" else self._padding_beside_end(probes)
        with torch.inference_mode():
            ((_, probe),) = self._encoder.encode([self._encoder.cut(probes[0].tolist())])
        self.dim: int = probe.shape[1]
        self.dtype = probe.dtype
        self._forms: dict[str, Form] = {}
        self._cache = RowCache(cache_bytes)
        self._last_soft: tuple[tuple[tuple[str, ...], int, bool], TokenTree] | None = None

    # ------------------------------------------------------------------------------ text prompts

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(n, d) L2-normalised features, on :attr:`device`.

        Texts longer than :attr:`context_length` are cut, as the tokenizer does it.
        """
        return self._encode_forms(self.normal_forms(texts))

    def encode_tokens(self, ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """Features of token ids: (n, context_length) as the tokenizer gives them, or normal forms.

        Raises:
            ValueError: a sequence is empty, too long, or has an id outside of the vocabulary.
        """
        rows = ids.tolist() if isinstance(ids, Tensor) else ids
        for row in rows:
            if not 0 < len(row) <= self.context_length:
                raise ValueError(f"{len(row)} tokens; expected 1 to {self.context_length}")
            if min(row) < 0 or (0 < self._vocabulary <= max(row)):
                raise ValueError(f"token ids {list(row)} are not all in the model's vocabulary")
        return self._encode_forms([self._encoder.cut(row) for row in rows])

    def normal_form(self, text: str) -> Form:
        """Token ids up to and including the end of the text; equal ids, equal feature.

        On padded towers all ids, with the padding folded into one.
        """
        return self.normal_forms([text])[0]

    def normal_forms(self, texts: Sequence[str]) -> list[Form]:
        """The normal form of each text."""
        kept = self._forms
        forms = {text: kept[text] for text in texts if text in kept}
        new = [text for text in dict.fromkeys(texts) if text not in forms]
        for start in range(0, len(new), 1024):  # bounds the ids held at once
            some = new[start : start + 1024]
            forms.update(zip(some, map(self._encoder.cut, self._rows(some)), strict=True))
        if len(kept) + len(new) > FORMS:
            kept = self._forms = {}
        kept.update((text, forms[text]) for text in new[:FORMS])
        return [forms[text] for text in texts]

    def forget(self) -> None:
        """Drop the features and token ids of earlier texts; their words stay known."""
        self._forms = {}
        self._cache.clear()

    def token_length(self, text: str) -> int:
        """Tokens of the whole text with start and end, even where :meth:`encode` would cut it.

        :attr:`context_length` where a tokenizer does not tell padding from text.
        """
        room, form = self.context_length, self.normal_form(text)
        if len(form) == room:  # and perhaps cut to that
            room = max(room, 2 * len(text.encode()) + 2)  # never more tokens than bytes
            (row,) = self._tokenizer([text], context_length=room).tolist()
            form = self._encoder.cut(row)
        untold = self.path == "padded" and len(form) == room
        return self.context_length if untold else len(form) - self._padding

    def _padding_beside_end(self, probes: Tensor) -> int:
        """How many ids of a padded form are no part of the text: none if padding is the end."""
        (cut_short,) = self._tokenizer(["long " * self.context_length]).tolist()
        return int(cut_short[-1] != int(probes[-1, -1]))

    def _encode_forms(self, forms: Sequence[Form]) -> Tensor:
        unique = {form: place for place, form in enumerate(dict.fromkeys(forms))}
        keys = list(unique)
        # Made outside of inference mode, so that it may serve in somebody's gradient.
        features = torch.empty(len(keys), self.dim, dtype=self.dtype, device=self.device)
        missing = self._cache.take(keys, features)
        self.counts.texts += len(forms)
        self.counts.computed += len(missing)
        if missing:
            with torch.inference_mode():
                for piece, rows in self._encoder.encode([keys[place] for place in missing]):
                    places = [missing[i] for i in piece]
                    features.index_copy_(0, index(places, self.device), rows)
                    self._cache.put([keys[place] for place in places], rows)
        if len(keys) == len(forms):
            return features
        return features.index_select(0, index([unique[form] for form in forms], self.device))

    # ------------------------------------------------------------------------------ soft prompts

    def encode_soft(
        self, contexts: Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> Tensor:
        """Features of soft prompts ``[start | context | "class name." | end]``.

        Args:
            contexts: (B, m, e), B candidates of m vectors for all classes, or (B, K, m, e) with
                vectors of their own for each class.
            classnames: K names; underscores count as spaces.
            grad: keep gradients with respect to ``contexts``.

        Returns:
            (B, K, d), L2-normalised. Memory beyond it is bounded, except with ``grad``.

        Raises:
            AccessError: the model's text tower takes no soft prompts.
            ValueError: the shape does not fit.
            TemplateError: a prompt would be too long.
        """
        encoder = self._soft_encoder()
        width = encoder.tower.width
        shared = contexts.ndim == 3
        fits = shared or (contexts.ndim == 4 and contexts.shape[1] == len(classnames))
        if not fits or contexts.shape[-1] != width or contexts.shape[-2] == 0:
            raise ValueError(
                f"contexts have shape {tuple(contexts.shape)}; expected (B, m, {width}) "
                f"or (B, {len(classnames)}, m, {width}), m > 0"
            )
        tree = self._soft_tree(tuple(classnames), contexts.shape[-2], shared)
        vectors = contexts.to(self.device, self.dtype).reshape(len(contexts), -1, width)
        places = to_device(tree.inverse, self.device)
        if grad:
            with torch.enable_grad():
                pieces = list(encoder.encode_soft(tree, vectors))
                return torch.cat(pieces).index_select(1, places)

        shape = len(contexts), len(classnames), self.dim
        features = torch.empty(shape, dtype=self.dtype, device=self.device)
        with torch.inference_mode():
            start = 0
            for piece in encoder.encode_soft(tree, vectors):
                stop = start + len(piece)
                features[start:stop] = piece.index_select(1, places)
                start = stop
        return features

    def embed_text(self, text: str) -> Tensor:
        """(L, e) float32 token vectors of a text, without start and end: a starting context.

        Raises:
            AccessError: the model's text tower takes no soft prompts.
        """
        table = self._soft_encoder().tower.embedding
        return F.embedding(index(self.normal_form(text)[1:-1], self.device), table).float()

    @cached_property
    def embedding_std(self) -> float:
        """Standard deviation over all entries of the token-embedding table.

        Raises:
            AccessError: the model's text tower takes no soft prompts.
        """
        return float(self._soft_encoder().tower.embedding.float().std())

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens and their vectors.

        Raises:
            AccessError: the model's text tower takes no soft prompts.
        """
        decoder = getattr(self._tokenizer, "tokenizer", self._tokenizer)  # or open_clip's HF wrap
        return Vocabulary(self._soft_encoder().tower.embedding, decoder.decode)

    def _soft_encoder(self) -> TreeEncoder:
        if isinstance(self._encoder, TreeEncoder):
            return self._encoder
        raise AccessError(f"this model takes no soft prompts: {self.why}")

    def _soft_tree(self, classnames: tuple[str, ...], m: int, shared: bool) -> TokenTree:
        """The tree of ``[start | soft tokens | "name." | end]``, soft tokens as negative ids."""
        key = (classnames, m, shared)
        if self._last_soft is not None and self._last_soft[0] == key:  # a search asks for one only
            return self._last_soft[1]
        forms = self.normal_forms([f"{display_name(name)}." for name in classnames])
        sequences = []
        for k, (start, *suffix) in enumerate(forms):
            if 1 + m + len(suffix) > self.context_length:
                raise TemplateError(
                    f"{m} context vectors and class name {classnames[k]!r} make "
                    f"{1 + m + len(suffix)} tokens; the model takes {self.context_length}"
                )
            first = 0 if shared else k * m
            sequences.append((start, *(-1 - i for i in range(first, first + m)), *suffix))
        tree = TokenTree.build(sequences)
        self._last_soft = key, tree
        return tree


def _choose_encoder(
    model: Any, probes: Tensor, dtype: torch.dtype | None
) -> tuple[TreeEncoder | PaddedEncoder, str]:
    """The tree where the model allows it and both paths agree on ``probes``; and why."""
    length = probes.shape[1]
    padded = PaddedEncoder(model, length, dtype)
    because = f"every prompt is padded to {length} tokens, because"
    try:
        tower = read_tower(model, dtype)
    except NotCausal as reason:
        return padded, f"{because} {reason}"
    if length != tower.context_length:
        raise ModelError(
            f"the tokenizer gives {length} tokens and the model takes {tower.context_length}; "
            "use open_clip.get_tokenizer with the model's name"
        )

    tree = TreeEncoder(tower)
    with torch.inference_mode():
        expected = padded.features(probes.numpy())
        found = torch.empty_like(expected)
        for places, rows in tree.encode([tower.cut(row) for row in probes.tolist()]):
            found[places] = rows
        difference = float((found - expected).abs().max())
    if difference <= _tolerance(tree.dtype):
        return tree, (
            "each shared beginning is computed once: the text tower is causal and reads its "
            f"feature at the end of the text (checked to {difference:.0e})"
        )
    why = f"{because} shared beginnings gave features {difference:.0e} from the model's own"
    warnings.warn(f"{type(model).__name__}: {why}", RuntimeWarning, stacklevel=3)
    return padded, why


def _tolerance(dtype: torch.dtype) -> float:
    if dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return _TOLERANCE[torch.bfloat16]
    return _TOLERANCE[dtype]
