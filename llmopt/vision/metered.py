"""The metered black box: the one place that counts, caps and caches what a box is asked.

Optimizers only ever see this. It knows templates and class names, so that a prompt met before, in
whatever case or spacing, is not paid for again.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmopt.images import Image
from llmopt.task import FloatArray, Labelled
from llmopt.template import Template
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.scoring import Reduction, reduced

if TYPE_CHECKING:
    import torch

    from llmopt.spend.ledger import Ledger
    from llmopt.vision.feature_cache import FeatureCache
    from llmopt.vision.vocabulary import Vocabulary

TEXT_CACHE_BYTES = 512 * 2**20


class MeteredBox:
    """A black box behind a ledger.

    Args:
        box: what is behind it.
        ledger: charged before every use; :class:`~llmopt.errors.BudgetExhausted` comes from here.
        features: image features on disk, shared between runs; None keeps them in memory only.
        text_cache_bytes: bound of the text features kept in memory, the oldest leave first.

    Safe to use from several threads; calls to the box are made one at a time.
    """

    def __init__(
        self,
        box: BlackBox,
        ledger: Ledger,
        features: FeatureCache | None = None,
        text_cache_bytes: int = TEXT_CACHE_BYTES,
    ) -> None:
        self._box = box
        self._ledger = ledger
        self._disk = features
        self._images: dict[str, FloatArray] = {}
        self._rows: dict[str, FloatArray] = {}
        self._image_keys: set[str] = set()
        self._texts: OrderedDict[Hashable, FloatArray] = OrderedDict()
        self._text_bytes = 0
        self._text_cache_bytes = text_cache_bytes
        self._pairs: set[tuple[str, Hashable]] = set()
        self._columns: dict[tuple[str, tuple[Hashable, ...]], FloatArray] = {}
        self._lock = threading.RLock()
        self.seconds = 0.0

    @property
    def info(self) -> BoxInfo:
        """What the box says of itself."""
        return self._box.info

    @property
    def access(self) -> Access:
        """The access level it offers."""
        return self._box.info.access

    @property
    def embedding_std(self) -> float:
        """Spread of the token-embedding table (``soft`` boxes)."""
        return self._box.embedding_std

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the model and their vectors, where the box shows them."""
        return self._box.vocabulary

    def logits(self, image_features: Any, text_features: Any) -> Any:
        """Logits of features already paid for; see :meth:`BlackBox.logits`."""
        return self._box.logits(image_features, text_features)

    def embed_text(self, text: str) -> FloatArray:
        """(L, e) token vectors of a text (``soft`` boxes); a table look-up, not a query."""
        return self._box.embed_text(text)

    def check(self, template: Template, classnames: Sequence[str]) -> None:
        """Raise :class:`~llmopt.errors.TemplateError` if the box would cut the template short."""
        self._box.check(template, classnames)

    def normal_form(self, template: Template, classnames: Sequence[str]) -> Hashable:
        """Equal for templates the box cannot tell apart."""
        return self._box.normal_forms([template.fill(classnames[0])])[0]

    def score_templates(
        self,
        images: Labelled,
        templates: Sequence[Template],
        classnames: Sequence[str],
        reduce: Reduction | None = None,
    ) -> npt.NDArray[Any]:
        """Logits of every template: (T, N, K) float32, or what ``reduce`` makes of them.

        Reduced, to (T, N, ...), the logits never exist all at once (see
        :mod:`llmopt.vision.scoring`).

        A box of level ``labels`` gives no scores; its predictions come back as logits of 1 for the
        predicted class and 0 elsewhere, so that likelihood ranks as accuracy does.

        Raises:
            BudgetExhausted: before anything is spent, if a cap does not allow all of it.
        """
        with self._lock:
            if self.access >= Access.FEATURES:
                visual = self.image_features(images)
                text = self.text_features(templates, classnames, images)

                def logits(some: slice, rows: slice) -> FloatArray:
                    product = self._box.logits(visual[None, rows], text[some])
                    return np.asarray(product, dtype=np.float32)
            else:
                # Scored by the box, and kept, one template at a time.
                found = [self._score_prompts(images, t.fill_all(classnames)) for t in templates]

                def logits(some: slice, rows: slice) -> FloatArray:
                    return np.stack([scores[rows] for scores in found[some]])

            if reduce is None:
                return logits(slice(None), slice(None))
            return reduced(logits, len(templates), images.labels, len(classnames), reduce)

    def image_features(self, images: Labelled) -> FloatArray:
        """(N, d) features; each image is paid for once in a run."""
        with self._lock:
            known = images.digest in self._images
            keys = [] if known else [image.key() for image in images.images]
            new = {
                key: image
                for key, image in zip(keys, images.images, strict=not known)
                if key not in self._rows
            }
            self._ledger.charge(
                image_encodings=len(new),
                black_box_calls=1 if new else 0,
                cache_hits=len(images) - len(new),
            )
            if new:
                rows = self._encode_images(list(new.values()))
                self._rows.update(zip(new, rows, strict=True))
                if len(new) == len(keys):
                    self._images[images.digest] = rows
            if images.digest not in self._images:
                self._images[images.digest] = np.stack([self._rows[key] for key in keys])
            return self._images[images.digest]

    def text_features(
        self,
        templates: Sequence[Template],
        classnames: Sequence[str],
        scored_on: Labelled | None = None,
    ) -> FloatArray:
        """(T, K, d) features; ``scored_on`` are the images they will be compared with."""
        with self._lock:
            prompts = [prompt for t in templates for prompt in t.fill_all(classnames)]
            forms = self._box.normal_forms(prompts)
            new: dict[Hashable, str] = {}
            for form, prompt in zip(forms, prompts, strict=True):
                if form not in self._texts:
                    new.setdefault(form, prompt)
            pairs: set[tuple[str, Hashable]] = set()
            if scored_on is not None:
                pairs = {(scored_on.digest, form) for form in forms} - self._pairs
            self._ledger.charge(
                text_encodings=len(new),
                pairs_scored=len(pairs) * len(scored_on) if scored_on is not None else 0,
                black_box_calls=1 if new else 0,
                cache_hits=len(forms) - len(new),
            )
            self._pairs |= pairs
            fresh: dict[Hashable, FloatArray] = {}
            if new:
                with self._timing():
                    rows = self._box.text_features(list(new.values()))
                fresh = dict(zip(new, rows, strict=True))
            found = [fresh[f] if f in fresh else self._recent(f) for f in forms]
            for form, row in fresh.items():
                self._keep(form, row)
            return np.stack(found).reshape(len(templates), len(classnames), -1)

    def soft_features(self, contexts: torch.Tensor, classnames: Sequence[str]) -> torch.Tensor:
        """(B, K, d) text features of (B, m, e) contexts; B * K soft-prompt encodings."""
        with self._lock:
            self._ledger.charge(
                soft_prompt_encodings=len(contexts) * len(classnames), black_box_calls=1
            )
            with self._timing():
                return self._box.soft_features(contexts, classnames)

    def soft_logits(
        self,
        images: FloatArray | torch.Tensor,
        contexts: torch.Tensor,
        classnames: Sequence[str],
        *,
        grad: bool = False,
    ) -> torch.Tensor:
        """Logits of soft prompts on image features: (B, N, K) float32.

        Args:
            images: (N, d) features from :meth:`image_features`.
            contexts: (B, m, e) candidate contexts.
            classnames: K names.
            grad: keep gradients with respect to ``contexts``.

        Every candidate counts ``K`` soft-prompt encodings and ``N * K`` pairs, met before or not.

        Raises:
            BudgetExhausted: before anything is spent.
        """
        import torch

        candidates, count = contexts.shape[0], len(classnames)
        with self._lock:
            self._ledger.charge(
                soft_prompt_encodings=candidates * count,
                pairs_scored=candidates * count * len(images),
                black_box_calls=1,
            )
            with self._timing():
                text = self._box.soft_features(contexts, classnames, grad=grad)
            visual = torch.as_tensor(images, dtype=text.dtype, device=text.device)
            return self._box.logits(visual, text)  # type: ignore[no-any-return]

    def _score_prompts(self, images: Labelled, prompts: list[str]) -> FloatArray:
        """(N, K) scores from a box that gives scores or labels only, one template at a time."""
        forms = tuple(self._box.normal_forms(prompts))
        if (images.digest, forms) not in self._columns:
            new_images = {image.key() for image in images.images} - self._image_keys
            self._ledger.charge(
                image_encodings=len(new_images),
                text_encodings=len(set(forms)),
                pairs_scored=len(images) * len(prompts),
                black_box_calls=1,
            )
            self._image_keys |= new_images
            with self._timing():
                if self.access >= Access.SCORES:
                    scores = self._box.scores(images.images, prompts)
                else:
                    predicted = self._box.labels(images.images, prompts)
                    scores = np.eye(len(prompts), dtype=np.float32)[predicted]
            self._columns[images.digest, forms] = scores
        else:
            self._ledger.charge(cache_hits=len(prompts))
        return self._columns[images.digest, forms]

    def _encode_images(self, images: Sequence[Image]) -> FloatArray:
        with self._timing():
            if self._disk is None:
                return self._box.image_features(images)
            return self._disk.features(images, self._box)

    @contextlib.contextmanager
    def _timing(self) -> Iterator[None]:
        before = self._ledger.seconds()
        try:
            yield
        finally:
            self.seconds += self._ledger.seconds() - before

    def _recent(self, form: Hashable) -> FloatArray:
        self._texts.move_to_end(form)
        return self._texts[form]

    def _keep(self, form: Hashable, row: FloatArray) -> None:
        self._texts[form] = row
        self._text_bytes += row.nbytes
        while self._text_bytes > self._text_cache_bytes and self._texts:
            _, dropped = self._texts.popitem(last=False)
            self._text_bytes -= dropped.nbytes
