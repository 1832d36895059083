"""What every head must do, whichever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from llmopt.heads.base import Config, Head, Shots
from llmopt.heads.fitted import FittedHead


def world(
    classes: int = 4,
    shots: int = 3,
    views: int = 3,
    width: int = 10,
    *,
    seed: int = 0,
    noise: float = 0.6,
    text_noise: float = 0.5,
    scale: float = 15.0,
    test: int = 20,
) -> tuple[Shots, Shots]:
    """Training shots and ``test`` test images a class, with the geometry of CLIP's features.

    Classes lie in a cone, texts in another, and noise is unequal.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    cone = rng.normal(size=width)
    uneven = np.sqrt(np.linspace(4.0, 0.1, width))
    text = unit(centres + text_noise * rng.normal(size=centres.shape) + rng.normal(size=width))

    def draw(count: int) -> Shots:
        labels = np.repeat(np.arange(classes), count)
        images = centres[labels] + cone + noise * uneven * rng.normal(size=(len(labels), width))
        seen = images[:, None] + 0.2 * rng.normal(size=(len(labels), views, width))
        features = unit(seen)
        base = np.asarray(scale * features @ text.T, dtype=np.float32)
        return Shots(base, labels, features, text, scale)

    return draw(shots), draw(test)


def unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The same directions, of length one."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


def refit(head: Head[Any], shots: Shots, config: Config) -> npt.NDArray[Any]:
    """``h`` of each plain image, (N, K), by fitting to all other images."""
    rows, features = np.arange(len(shots)), shots.plain_features
    assert features is not None
    fits = [head.fit(shots.of(rows != i), config, 0) for i in rows]
    each = [slice(i, i + 1) for i in rows]
    pairs = zip(fits, each, strict=True)
    return np.concatenate([head.correct(f, shots.plain[i], features[i]) for f, i in pairs])


class HeadContract:
    """Give it the fixture ``head``."""

    @pytest.fixture
    def head(self) -> Head[Any]:
        """The head."""
        raise NotImplementedError("override the fixture 'head'")

    @pytest.mark.parametrize(("shots", "views"), [(1, 1), (1, 3), (2, 1), (3, 4)])
    def test_no_image_is_judged_by_a_fit_that_saw_it(
        self, head: Head[Any], shots: int, views: int
    ) -> None:
        """An exact head is equal to brute force; others give what they should for every image."""
        few, _ = world(shots=shots, views=views)
        candidates = list(head.held_out(few, seed=0))
        assert candidates
        for config, left_out in candidates:
            assert left_out.shape == few.plain.shape
            assert np.isfinite(left_out).all()
            if head.left_out == "exact":
                expected = refit(head, few, config)
                scale = max(1.0, float(np.abs(expected).max()))
                np.testing.assert_allclose(left_out / scale, expected / scale, atol=2e-5)

    def test_a_seed_decides_everything_and_the_fit_survives_a_file(
        self, head: Head[Any], tmp_path: Path
    ) -> None:
        """The same seed gives the same arrays, and they are all that is needed."""
        few, test = world()
        config, left_out = next(iter(head.held_out(few, seed=0)))
        np.testing.assert_array_equal(next(iter(head.held_out(few, seed=0)))[1], left_out)
        tensors = FittedHead(head.name, head.fit(few, config, 0), config).save()[0]
        again = head.fit(few, config, 0)
        assert tensors.keys() == again.keys()
        for name, array in again.items():
            np.testing.assert_array_equal(tensors[name], array)
        save_file(tensors, tmp_path / "head.safetensors")
        kept = load_file(tmp_path / "head.safetensors")
        features = test.plain_features if head.looks_at_features else None
        expected = head.correct(again, test.plain, features)
        assert expected.shape == test.plain.shape
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(head.correct(kept, test.plain, features), expected)
        assert np.isfinite(head.strengths(few.plain, left_out)).all()
