"""The published forms against the papers' formulas, written down once more here in plain numpy.

Only what is drawn at random (A, z, directions) and what the black box answers is taken from the
run; every other number is worked out anew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from soft_box import NAMES, Bench, SoftBox, make_task

from llmopt.heads.predictor import HeadedPredictor
from llmopt.search.base import Optimizer, Outcome
from llmopt.search.soft import zip as zip_form
from llmopt.search.soft.bbt_published import BbtReleased, hinge_over_all
from llmopt.search.soft.bptvlm_published import BptVlmReleased
from llmopt.search.soft.cbbt_published import CbbtReleased
from llmopt.search.soft.coop_published import CoopReleased
from llmopt.search.soft.craft_published import CraftReleased
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.schedules import warmed_up_rate
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.subspace import Subspace
from llmopt.search.soft.zip_published import ZipReleased

Array = np.ndarray[Any, Any]
K, SCALE = len(NAMES), 20.0


class Spy(SoftBox):
    """Remembers the contexts and the images it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[torch.Tensor] = []
        self.encoded: list[Array] = []

    def soft_features(self, contexts: Any, classnames: Any, *, grad: bool = False) -> Any:
        self.contexts.append(contexts.detach().clone())
        return super().soft_features(contexts, classnames, grad=grad)

    def image_features(self, images: Any) -> Any:
        self.encoded.append(super().image_features(images))
        return self.encoded[-1]


class Seen:
    """A run, and what was drawn in it.

    Attributes:
        bench, outcome: of the run.
        asked, told, drawn: of CMA-ES, a generation each.
        projection: A.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Optimizer[Any]):
        self.box = Spy()
        self.task = make_task(self.box, shots=2)[0]
        self.asked: list[Array] = []
        self.told: list[Array] = []
        self.drawn: list[Array] = []
        ask, tell, draw, init = CmaSearch.ask, CmaSearch.tell, CmaSearch.draw, Subspace.__init__

        def started(subspace: Subspace, *parts: Any) -> None:
            init(subspace, *parts)
            self.projection = subspace.projection.double().numpy()

        monkeypatch.setattr(Subspace, "__init__", started)
        monkeypatch.setattr(CmaSearch, "ask", lambda c: self.kept(self.asked, ask(c)))
        monkeypatch.setattr(CmaSearch, "draw", lambda c: self.kept(self.drawn, draw(c)))
        monkeypatch.setattr(
            CmaSearch, "tell", lambda c, values: tell(c, self.kept(self.told, values))
        )
        with Bench(folder, self.task, self.box) as self.bench:
            self.outcome: Outcome = optimizer.run(self.bench.search)

    @staticmethod
    def kept(rows: list[Array], new: Array) -> Array:
        rows.append(np.array(new))
        return new

    @property
    def labels(self) -> Array:
        return self.task.train.labels

    def p0(self, words: str) -> Array:
        return self.box.embed_text(words).astype(np.float64)

    def scores(self, features: Array, contexts: Array | torch.Tensor) -> Array:
        """(B, N, K) by the definition: scale times the cosine."""
        text = SoftBox.soft_features(self.box, torch.as_tensor(contexts).float(), NAMES)
        return SCALE * np.einsum("nd,bkd->bnk", features.astype(np.float64), text.double().numpy())


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def cross_entropy(scores: Array, labels: Array) -> Array:
    return -np.log(softmax(scores)[..., np.arange(len(labels)), labels]).mean(axis=-1)


def kl(p: Array, q: Array) -> Array:
    return (p * np.log(p / q)).sum(axis=-1).mean(axis=-1)


class Adam:
    """Kingma and Ba, 2015, algorithm 1; ``decay`` is an L2 penalty in the gradient."""

    def __init__(self, decay: float = 0.0) -> None:
        self.m: Any = 0.0
        self.v: Any = 0.0
        self.t, self.decay = 0, decay

    def step(self, w: Array, g: Array, rate: float) -> Array:
        g, self.t = g + self.decay * w, self.t + 1
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g * g
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return w - rate * m / (np.sqrt(v) + 1e-8)


@pytest.fixture
def see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Seen]:
    return lambda optimizer: Seen(tmp_path, monkeypatch, optimizer)


# ------------------------------------------------------------------------------- learning rates


def test_the_learning_rates_of_coop_and_cbbt() -> None:
    """A first epoch at 1e-5; the second one at the full rate, for the cosine is counted anew."""
    rates = [warmed_up_rate(epoch, 12, 2e-3) for epoch in range(12)]
    cosine = [2e-3 * (1 + np.cos(np.pi * i / 12)) / 2 for i in range(12)]
    np.testing.assert_allclose(rates, [1e-5, *cosine[:11]], rtol=1e-12)
    assert rates[1] == 2e-3
    # What counting on without a new start would leave out.
    assert sum(cosine[1:]) / sum(rates[1:]) == pytest.approx(0.849, abs=1e-3)
    fifty = [warmed_up_rate(epoch, 50, 1.0) for epoch in range(1, 50)]
    late = [(1 + np.cos(np.pi * i / 50)) / 2 for i in range(1, 50)]
    assert sum(late) / sum(fifty) == pytest.approx(0.961, abs=1e-3)


# ---------------------------------------------------------------------------------------- CraFT


@pytest.mark.parametrize("head", ["residual", "none"])
def test_craft(see: Any, monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    from llmopt.heads.residual import Refinement

    start: dict[str, Array] = {}
    init = Refinement.__init__

    def started(module: Any, *parts: Any, **named: Any) -> None:
        init(module, *parts, **named)
        start.update({name: w.detach().double().numpy() for name, w in module.named_parameters()})

    monkeypatch.setattr(Refinement, "__init__", started)
    seen = see(CraftReleased(population=6, dim=8, budget=18, row="food101", head=head))
    p0, weights, adams = seen.p0("a photo of a"), dict(start), {name: Adam() for name in start}
    weight = 1.0 if head == "residual" else 0.0  # food101's w
    fixed = seen.box.encoded[0]
    contexts = iter(seen.box.contexts)

    def refined(scores: Array) -> tuple[Array, Array]:
        hidden = np.maximum(scores @ weights["w1"].T + weights["b1"], 0)
        return scores + hidden @ weights["w2"].T + weights["b2"], hidden

    for turn in range(3):
        prompts = p0 + (seen.asked[turn] @ seen.projection.T).reshape(6, *p0.shape)
        np.testing.assert_allclose(next(contexts).numpy(), prompts, atol=1e-4)
        raw = seen.scores(fixed, prompts)
        fitness = cross_entropy(raw, seen.labels)
        fitness += weight * kl(softmax(refined(raw)[0]), softmax(raw)) if weight else 0.0
        np.testing.assert_allclose(seen.told[turn], fitness, rtol=1e-4, atol=1e-4)

        context = p0 + (seen.drawn[turn] @ seen.projection.T).mean(axis=0).reshape(p0.shape)
        if head == "none":
            continue
        np.testing.assert_allclose(next(contexts)[0].numpy(), context, atol=1e-4)
        # One batch holds all images; its scores are larger by the norm that is forgotten.
        s = 10.0 * seen.scores(seen.box.encoded[1 + turn], context[None])[0]
        out, hidden = refined(s)
        q, q_refined, truth = softmax(s), softmax(out), np.eye(K)[seen.labels]
        slope = ((q_refined - truth) + weight * (q_refined - q)) / len(s)  # of CE + w KL(q || q')
        back = (slope @ weights["w2"]) * (hidden > 0)
        gradients = {"w1": back.T @ s, "b1": back.sum(axis=0)}
        gradients |= {"w2": slope.T @ hidden, "b2": slope.sum(axis=0)}
        weights = {name: adams[name].step(w, gradients[name], 1e-3) for name, w in weights.items()}

    assert next(contexts, None) is None
    assert seen.bench.ledger["soft_prompt_encodings"] == K * (18 + 3 * (head == "residual"))
    assert seen.outcome.summary == {"evaluations_as_published": 18}
    predictor = seen.outcome.predictor
    if isinstance(predictor, HeadedPredictor):
        for name, w in weights.items():
            np.testing.assert_allclose(predictor.fitted.tensors[name], w, atol=2e-4)
        predictor = predictor.base
    assert isinstance(predictor, SoftPredictor)
    np.testing.assert_allclose(predictor.context, context, atol=1e-4)


# ----------------------------------------------------------------------------------------- CBBT


def test_cbbt(see: Any) -> None:
    seen = see(CbbtReleased(epochs=4, directions=6, adapter="none", flip=False))
    p, adam = seen.p0("a"), Adam(decay=5e-4)
    size = p.size
    eps = max(1 / size, 0.001)
    contexts = iter(seen.box.contexts)
    order = [seen.bench.search.rng("epoch", epoch).permutation(10) for epoch in range(4)]
    for epoch in range(4):
        np.testing.assert_allclose(next(contexts)[0].numpy(), p, atol=2e-5)
        moved = next(contexts).double().numpy()
        assert len(moved) == 6
        u = (moved - p).reshape(6, size) / eps
        np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, atol=1e-3)
        features, labels = seen.box.encoded[epoch], seen.labels[order[epoch]]
        loss = cross_entropy(seen.scores(features, p[None]), labels)
        losses = cross_entropy(seen.scores(features, moved), labels)
        gradient = ((losses - loss)[:, None] / eps * u).mean(axis=0) / eps
        gradient *= min(1.0, 5 / np.linalg.norm(gradient))
        rate = 1e-5 if epoch == 0 else 2e-3 * (1 + np.cos(np.pi * (epoch - 1) / 4)) / 2
        p = adam.step(p, gradient.reshape(p.shape), rate)
    assert next(contexts, None) is None
    np.testing.assert_allclose(seen.outcome.predictor.context, p, atol=2e-5)
    assert seen.bench.ledger["soft_prompt_encodings"] == K * 4 * 7
    assert seen.bench.ledger["image_encodings"] == 4 * 10


def test_the_tip_adapter_of_cbbt(see: Any) -> None:
    seen = see(CbbtReleased(epochs=12, directions=2, adapter="tip", flip=False))
    ledger, head = seen.bench.ledger, seen.outcome.predictor.fitted
    # The prompt is alone for ten epochs; ten more views of each image make the keys.
    assert ledger["image_encodings"] == (12 + 10) * 10
    assert ledger["soft_prompt_encodings"] == K * 12 * 3
    assert head.name == "tip-f"
    np.testing.assert_allclose(head.tensors["values"], 1.17 * np.eye(K)[seen.labels])
    views = np.mean(seen.box.encoded[11:21], axis=0)  # the eleventh batch was encoded before
    keys = views / np.linalg.norm(views, axis=1, keepdims=True)
    adam = Adam()
    order = [seen.bench.search.rng("epoch", epoch).permutation(10) for epoch in (10, 11)]
    clean = [c[0].double().numpy() for c in seen.box.contexts if len(c) == 1]
    for place, batch in enumerate((10, 21)):
        x, labels = seen.box.encoded[batch].astype(np.float64), seen.labels[order[place]]
        near = np.exp(-(1 - x @ keys.T))
        votes = 1.17 * near @ np.eye(K)[seen.labels]
        q = softmax(seen.scores(x, clean[10 + place][None])[0] + votes)
        slope = (q - np.eye(K)[labels]) / len(x)
        gradient = (1.17 * slope @ np.eye(K)[seen.labels].T * near).T @ x
        rate = 1e-3 * (1 + np.cos(np.pi * place / 2)) / 2
        adam_eps = 1e-4
        adam.t += 1
        adam.m, adam.v = 0.9 * adam.m + 0.1 * gradient, 0.999 * adam.v + 0.001 * gradient**2
        m, v = adam.m / (1 - 0.9**adam.t), adam.v / (1 - 0.999**adam.t)
        keys = keys * (1 - rate * 0.01) - rate * m / (np.sqrt(v) + adam_eps)
    np.testing.assert_allclose(head.tensors["keys"], keys, atol=1e-5)
    scores = seen.outcome.predictor.scores(seen.bench.metered, seen.task.train)
    x = SoftBox.image_features(seen.box, seen.task.train.images).astype(np.float64)
    expected = seen.scores(x, seen.outcome.predictor.base.context[None])[0]
    expected += 1.17 * np.exp(-(1 - x @ keys.T)) @ np.eye(K)[seen.labels]
    np.testing.assert_allclose(scores, expected, atol=1e-3)


# ----------------------------------------------------------------------------------------- CoOp


@pytest.mark.parametrize("class_specific", [False, True])
def test_coop(see: Any, class_specific: bool) -> None:
    seen = see(CoopReleased(epochs=5, tokens=3, class_specific=class_specific, flip=False))
    shown = [context[0] for context in seen.box.contexts]
    assert len(shown) == 5
    assert shown[0].shape == ((K, 3, 16) if class_specific else (3, 16))
    assert float(shown[0].std()) == pytest.approx(0.02, rel=0.25)
    if class_specific:  # drawn for each class
        assert np.abs(np.corrcoef(shown[0].reshape(K, -1)) - np.eye(K)).max() < 0.6
    p, momentum = shown[0].double(), torch.zeros(())
    for epoch in range(5):
        torch.testing.assert_close(shown[epoch].double(), p, atol=1e-6, rtol=1e-4)
        labels = seen.labels[seen.bench.search.rng("epoch", epoch).permutation(10)]
        w = shown[epoch].clone().requires_grad_()
        text = SoftBox.soft_features(seen.box, w[None], NAMES, grad=True)[0]
        scores = SCALE * torch.from_numpy(seen.box.encoded[epoch]) @ text.T
        likelihood = scores.softmax(dim=-1)[torch.arange(10), torch.from_numpy(labels)]
        (gradient,) = torch.autograd.grad(-likelihood.log().mean(), w)
        momentum = 0.9 * momentum + gradient.double() + 5e-4 * p
        rate = 1e-5 if epoch == 0 else 2e-3 * (1 + np.cos(np.pi * (epoch - 1) / 5)) / 2
        p = p - rate * momentum
    np.testing.assert_allclose(seen.outcome.predictor.context, p.numpy(), atol=1e-6, rtol=1e-4)


# ------------------------------------------------------------------------------------------ ZIP


def test_zip(see: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    directions: list[Array] = []
    walked: list[Array] = []
    draw, contexts = zip_form.segmented_uniform, zip_form.Reparameterisation.contexts
    monkeypatch.setattr(
        zip_form, "segmented_uniform", lambda *given: Seen.kept(directions, draw(*given))
    )
    monkeypatch.setattr(
        zip_form.Reparameterisation,
        "contexts",
        lambda space, w: contexts(space, Seen.kept(walked, w)),
    )
    seen = see(ZipReleased(budget=30, tokens=2, flip=False))
    tokens, rank, rows = 2, 5, 250
    delta = tokens * rank + rank + rows * rank + rows
    w = np.concatenate([np.zeros(tokens * rank), np.ones(rank), np.zeros(rows * rank + rows)])
    w[15 : 15 + rows * rank] = walked[0].mean(axis=0)[15 : 15 + rows * rank]  # V, drawn
    for step in range(3):
        k, d = step + 1, directions[step]
        assert d.shape == (5, delta)
        width, rate = 0.01 / k**0.1, 0.01 / (k + 1) ** 0.4
        np.testing.assert_allclose(walked[step][:5], w + width * d, atol=1e-9)
        np.testing.assert_allclose(walked[step][5:], w - width * d, atol=1e-9)
        labels = seen.labels[seen.bench.search.rng("epoch", step).permutation(10)]
        losses = cross_entropy(seen.scores(seen.box.encoded[step], seen.box.contexts[step]), labels)
        gradient = ((losses[:5] - losses[5:]) / (2 * width))[:, None] * (1 / d)
        gradient = gradient.mean(axis=0)
        if (norm := np.linalg.norm(gradient)) >= np.sqrt(delta):
            gradient *= np.sqrt(delta) / norm
        w = w - rate * gradient
        if step < 2:  # rounding of the losses, not of the rule
            np.testing.assert_allclose(walked[step + 1].mean(axis=0), w, atol=2e-5)
            w = walked[step + 1].mean(axis=0)
    assert seen.outcome.summary == {"calls_as_published": 30}


# --------------------------------------------------------------------------------- BBT, BPT-VLM


def test_hinge_counts_every_other_class() -> None:
    scores = np.array([[[5.0, 1.0, 4.0], [0.0, 3.0, 2.0]], [[1.0, 1.0, 0.0], [9.0, 0.0, 0.0]]])
    labels = np.array([0, 1])
    expected = [
        np.mean(
            [
                sum(max(0.0, 2 + row[k] - row[y]) for k in range(3) if k != y)
                for row, y in zip(candidate, labels, strict=True)
            ]
        )
        for candidate in scores
    ]
    found = hinge_over_all(torch.from_numpy(scores), torch.from_numpy(labels))
    np.testing.assert_allclose(found.numpy(), expected)


@pytest.mark.parametrize(("loss", "population"), [("ce", 20), ("hinge", 30)])
def test_bbt(see: Any, loss: str, population: int) -> None:
    seen = see(BbtReleased(budget=420, dim=10, population=population, loss=loss))
    p0 = seen.p0("a photo of a")
    assert seen.projection.std() == pytest.approx(1.0 / np.sqrt(10), rel=0.1)  # the box's std is 1
    x = SoftBox.image_features(seen.box, seen.task.train.images)
    val = SoftBox.image_features(seen.box, seen.task.val.images)
    z = np.concatenate(seen.asked)
    assert len(z) == 420
    prompts = p0 + (z @ seen.projection.T).reshape(-1, *p0.shape)
    scores = seen.scores(x, prompts)
    if loss == "ce":
        fitness = cross_entropy(scores, seen.labels)
    else:
        true = scores[:, np.arange(len(x)), seen.labels][..., None]
        short = np.maximum(0, 2 + scores - true)
        fitness = (short.sum(axis=-1) - 2).mean(axis=-1)  # the true class falls short by 2
    np.testing.assert_allclose(np.concatenate(seen.told), fitness, rtol=1e-4, atol=1e-4)
    looked = [99, 199, 299, 399]  # the candidate just scored, every 100 evaluations
    found = seen.scores(val, prompts[looked]).argmax(axis=-1) == seen.task.val.labels
    best = looked[int(found.mean(axis=1).argmax())]
    np.testing.assert_allclose(seen.outcome.predictor.context, prompts[best], atol=1e-4)
    assert seen.bench.ledger["soft_prompt_encodings"] == K * (420 + 4)
    bounds = BbtReleased(budget=420, dim=10, population=population).bounds(seen.task)
    assert bounds["soft_prompt_encodings"] == K * (420 + 4)
    assert seen.outcome.summary == {"calls_as_published": 420}


def test_bptvlm(see: Any) -> None:
    seen = see(BptVlmReleased(budget=90, dim=12, tokens=3))
    x = SoftBox.image_features(seen.box, seen.task.train.images)
    z = np.concatenate(seen.asked)
    prompts = (z @ seen.projection.T).reshape(90, 3, 16)  # from zero vectors
    fitness = cross_entropy(seen.scores(x, prompts), seen.labels)
    np.testing.assert_allclose(np.concatenate(seen.told), fitness, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(seen.outcome.predictor.context, prompts[fitness.argmin()], atol=1e-4)
    assert seen.bench.ledger["soft_prompt_encodings"] == K * 90
