"""The metered black box: the one place that counts, caps and caches what a box is asked.

Optimizers only ever see this. It knows templates and class names, so that a prompt met before, in
whatever case or spacing, is not paid for again. What it charges is what the box receives: a box
that takes images and prompts together gets both again with each call, and a try that fails is a
call as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from llmopt.images import Image
from llmopt.task import FloatArray, Labelled
from llmopt.template import Template
from llmopt.vision.answers import numbers
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.calls import Calls
from llmopt.vision.kept import kept_for_good
from llmopt.vision.scoring import Reduction, reduced
from llmopt.vision.spoken import Said, meanings, of_class, packed, said, weights
from llmopt.vision.text_rows import BLOCK, TextRows

if TYPE_CHECKING:
    import torch

    from llmopt.spend.ledger import Ledger
    from llmopt.vision.feature_cache import FeatureCache
    from llmopt.vision.kept import KeptAnswers, OnTheWay
    from llmopt.vision.vocabulary import Vocabulary

T = TypeVar("T")
TEXT_CACHE_BYTES = 512 * 2**20


class MeteredBox:
    """A black box behind a ledger.

    Args:
        box: what is behind it.
        ledger: charged before every use; :class:`~llmopt.errors.BudgetExhausted` comes from here.
        features: image features on disk, shared between runs; None keeps them in memory only.
        kept: answers of earlier sittings of the run, counted but not asked for again; those of a
            box that costs money are kept for all runs.
        way: notes what is on its way to the box, so that a run that dies knows what it lost.
        run: that asks; what earlier ones had bought is told apart.
        text_cache_bytes: bound of the text features kept in memory, the oldest leave first.

    Safe to use from several threads; calls to the box are made one at a time.
    """

    def __init__(
        self,
        box: BlackBox,
        ledger: Ledger,
        features: FeatureCache | None = None,
        kept: KeptAnswers | None = None,
        way: OnTheWay | None = None,
        run: str = "",
        text_cache_bytes: int = TEXT_CACHE_BYTES,
    ) -> None:
        self._box, self._ledger = box, ledger
        # Answers that cost something are kept with what they cost, or not at all.
        billed = box.info.access >= Access.FEATURES and box.dues(1, ())
        self._disk = None if box.paid or billed else features
        self._calls = Calls(box, ledger, kept_for_good(box, run) if box.paid else kept, way)
        self._images: dict[str, FloatArray] = {}
        self._rows: dict[str, FloatArray] = {}
        self._width: int | None = None
        block = None if box.address else BLOCK
        self._texts = TextRows(text_cache_bytes, self._ask_for_texts, block)
        self._pairs: set[tuple[str, Hashable]] = set()
        self._answers: dict[tuple[Hashable, ...], dict[str, npt.NDArray[Any]]] = {}
        self._lock = threading.RLock()

    @property
    def info(self) -> BoxInfo:
        """What the box says of itself."""
        return self._box.info

    @property
    def access(self) -> Access:
        """The access level it offers."""
        return self._box.info.access

    @property
    def sends_again(self) -> bool:
        """Whether images go to the box anew with each template."""
        return self.access < Access.FEATURES and not self._box.holds_images

    @property
    def seconds(self) -> float:
        """Spent in the box so far."""
        return self._calls.seconds

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

    def probe(self, ask: Callable[[], T]) -> T:
        """What the box gives for a picture that no run is about; charged as any other."""
        with self._lock:
            return self._calls.one(ask, lambda: self._cost(1, ()))

    def embed_text(self, text: str) -> FloatArray:
        """(L, e) token vectors of a text: a table look-up, but a call where the box is remote."""
        with self._lock:
            cost = {"black_box_calls": int(bool(self._box.address))}
            return self._calls.one(lambda: self._box.embed_text(text), lambda: cost)

    def check(self, template: Template, classnames: Sequence[str]) -> None:
        """Raise :class:`~llmopt.errors.TemplateError` if the box would cut the template short."""
        self._box.check(template, classnames)

    def fits(self, prompt: str) -> bool:
        """Whether the box would not cut a prompt short."""
        return self._box.token_excess(prompt) <= 0

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
        predicted class and 0 elsewhere, so that likelihood ranks as accuracy does. Where it ranks
        its answers, the class named second has 1/2, the third 1/3 ...

        Raises:
            BudgetExhausted: before anything is spent, if a cap does not allow all of it.
        """
        sets = [template.fill_all(classnames) for template in templates]
        return self.score_prompts(images, sets, reduce, classnames)

    def score_prompts(
        self,
        images: Labelled,
        sets: Sequence[Sequence[str]],
        reduce: Reduction | None = None,
        classnames: Sequence[str] = (),
    ) -> npt.NDArray[Any]:
        """As :meth:`score_templates`, of T sets of K prompts, one for each class.

        A box that answers in words may say a class name in place of its prompt.
        """
        with self._lock:
            if self.access >= Access.FEATURES:
                visual = self.image_features(images)
                text = self.prompt_features(sets, images)

                def logits(some: slice, rows: slice) -> FloatArray:
                    found: FloatArray = self._box.logits(visual[None, rows], text[some])
                    return found
            else:
                # Scored by the box, and kept, one template at a time.
                found = [self._told(images, prompts, classnames) for prompts in sets]
                if self.access < Access.SCORES:
                    columns = {of_class(k): k for k in range(len(sets[0]))}
                    found = [weights(answers, columns, len(columns)) for answers in found]

                def logits(some: slice, rows: slice) -> FloatArray:
                    return np.stack([scores[rows] for scores in found[some]])

            if reduce is None:
                return logits(slice(None), slice(None))
            return reduced(logits, len(sets), images.labels, len(sets[0]), reduce)

    def answers(self, images: Labelled, template: Template, classnames: Sequence[str]) -> Said:
        """(N, RANKS) answers of a box of level ``labels``, paid for once (see :mod:`.spoken`)."""
        with self._lock:
            found: Said = self._told(images, template.fill_all(classnames), classnames)
            return found

    def image_features(self, images: Labelled) -> FloatArray:
        """(N, d) features; each image is paid for once in a run."""
        with self._lock:
            known = images.digest in self._images
            keys = () if known else images.keys
            new = {
                key: image
                for key, image in zip(keys, images.images, strict=not known)
                if key not in self._rows
            }
            self._ledger.charge(
                image_encodings=len(new),
                black_box_calls=len(self._calls.split(list(new), self._box.images_per_call)),
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

    def passing_features(self, images: Labelled) -> FloatArray:
        """(N, d) features of images that will not be met again: paid for, and kept nowhere."""
        with self._lock:
            calls = len(self._calls.split(images.images, self._box.images_per_call))
            self._ledger.charge(image_encodings=len(images), black_box_calls=calls)
            return self._ask_for_images(images.images)

    def text_features(
        self,
        templates: Sequence[Template],
        classnames: Sequence[str],
        scored_on: Labelled | None = None,
    ) -> FloatArray:
        """(T, K, d) features; ``scored_on`` are the images they will be compared with."""
        return self.prompt_features([t.fill_all(classnames) for t in templates], scored_on)

    def prompt_features(
        self, sets: Sequence[Sequence[str]], scored_on: Labelled | None = None
    ) -> FloatArray:
        """As :meth:`text_features`, (T, K, d) of T sets of K prompts."""
        with self._lock:
            prompts = [prompt for some in sets for prompt in some]
            forms = self._box.normal_forms(prompts)
            new = self._texts.new(forms, prompts)
            pairs: set[tuple[str, Hashable]] = set()
            if scored_on is not None:
                pairs = {(scored_on.digest, form) for form in forms} - self._pairs
            calls = self._calls.split(list(new.values()), self._box.prompts_per_call)
            self._ledger.charge(
                text_encodings=len(new),
                pairs_scored=len(pairs) * len(scored_on) if scored_on is not None else 0,
                black_box_calls=len(calls),
                cache_hits=len(forms) - len(new),
            )
            self._pairs |= pairs
            return self._texts.rows(forms, new).reshape(len(sets), len(sets[0]), -1)

    def soft_features(self, contexts: torch.Tensor, classnames: Sequence[str]) -> torch.Tensor:
        """(B, K, d) text features of (B, m, e) contexts; B * K soft-prompt encodings."""
        with self._lock:
            encodings = len(contexts) * len(classnames)
            cost = {"soft_prompt_encodings": encodings, "black_box_calls": 1}
            return self._calls.one(
                lambda: self._box.soft_features(contexts, classnames), lambda: cost
            )

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

        encodings = contexts.shape[0] * len(classnames)
        cost = {
            "soft_prompt_encodings": encodings,
            "pairs_scored": encodings * len(images),
            "black_box_calls": 1,
        }
        with self._lock:
            text = self._calls.one(
                lambda: self._box.soft_features(contexts, classnames, grad=grad), lambda: cost
            )
            visual = torch.as_tensor(images, dtype=text.dtype, device=text.device)
            return self._box.logits(visual, text)  # type: ignore[no-any-return]

    def _told(
        self, images: Labelled, prompts: Sequence[str], classnames: Sequence[str]
    ) -> npt.NDArray[Any]:
        """(N, K) scores from a box that gives scores only, (N, RANKS) answers from one of labels.

        An image that was asked about with these prompts before, among any others, is not sent
        again.
        """
        forms = tuple(self._box.normal_forms(prompts))
        known = self._answers.setdefault(forms, {})
        new = {
            key: image
            for key, image in zip(images.keys, images.images, strict=True)
            if key not in known
        }
        if not new:
            self._ledger.charge(cache_hits=len(prompts))
            return np.stack([known[key] for key in images.keys])
        first = {form: place for place, form in reversed(list(enumerate(forms)))}
        where = sorted(first.values())
        asked = [prompts[place] for place in where]
        batches = self._calls.split(list(new), self._box.images_per_call)

        def pictures(some: Sequence[str]) -> list[Image]:
            return [new[key] for key in some]

        def cost(some: Sequence[str], calls: int = 1) -> dict[str, float]:
            return {
                "image_encodings": self._box.to_send(pictures(some)),
                "text_encodings": calls * len(asked),
                "pairs_scored": len(some) * len(asked),
                "black_box_calls": calls,
                **self._box.dues(len(some), asked, calls),
            }

        def name(some: Sequence[str]) -> list[Any]:
            return [list(some), asked]

        # All of it or nothing, unless tries fail.
        unknown = [batch for batch in batches if not self._calls.kept(name(batch))]
        if unknown:
            everything = [key for batch in unknown for key in batch]
            self._ledger.reserve(**cost(everything, len(unknown))).release()
        speaks = self.access < Access.SCORES
        ask = self._box.answers if speaks else self._box.scores
        meant = meanings(prompts, classnames) if speaks else {}

        def check(some: Sequence[str], told: Any) -> npt.NDArray[Any]:
            if speaks:
                return packed(said(told, len(some), where, meant))
            return numbers(told, (len(some), len(asked)))

        found = self._calls.each(
            lambda batch: ask(pictures(batch), asked), batches, cost, check, name=name
        )
        if speaks:
            found = said(found, len(new), where, meant)
        else:
            column = {form: found[:, n] for n, form in enumerate(forms[p] for p in where)}
            found = np.stack([column[form] for form in forms], axis=1)
        known.update(zip(new, found, strict=True))
        return np.stack([known[key] for key in images.keys])

    def _encode_images(self, images: Sequence[Image]) -> FloatArray:
        """(N, d) features of images that are paid for, from disk where they are known."""
        if self._disk is None:
            return self._ask_for_images(images)
        return self._disk.features(images, self._box, self._ask_for_images)

    def _ask_for_images(self, images: Sequence[Image]) -> FloatArray:
        batches = self._calls.split(images, self._box.images_per_call)
        ask, cost = self._box.image_features, lambda some: self._cost(len(some), ())

        def name(some: Sequence[Image]) -> list[Any]:
            return [image.key() for image in some]

        return self._calls.each(ask, batches, cost, self._same_width, paid=True, name=name)

    def _ask_for_texts(self, prompts: Sequence[str]) -> FloatArray:
        """(n, d) features of prompts that are paid for."""
        batches = self._calls.split(prompts, self._box.prompts_per_call)
        ask, cost = self._box.text_features, lambda some: self._cost(0, some)
        return self._calls.each(ask, batches, cost, self._same_width, paid=True, name=list)

    def _cost(self, images: int, prompts: Sequence[str]) -> dict[str, float]:
        sent = {"image_encodings": images, "text_encodings": len(prompts), "black_box_calls": 1}
        return {**sent, **self._box.dues(images, prompts)}

    def _same_width(self, some: Sequence[Any], told: Any) -> FloatArray:
        """(n, d) features, of the d that all images and prompts before had."""
        found = numbers(told, (len(some), self._width))
        self._width = found.shape[1]
        return found
