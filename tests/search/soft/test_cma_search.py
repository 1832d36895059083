from __future__ import annotations

import numpy as np
import pytest

from llmopt.search.soft.machinery.cma_search import CmaSearch


def sphere(z: np.ndarray) -> np.ndarray:
    return ((z - 0.3) ** 2).sum(axis=1)


def run(search: CmaSearch, generations: int, draws: bool = False) -> None:
    for _ in range(generations):
        search.tell(sphere(search.ask()))
        if draws:
            search.draw()


def test_it_finds_a_minimum() -> None:
    search = CmaSearch(8, 1.0, 12, seed=1)
    run(search, 80)
    np.testing.assert_allclose(search.mean, 0.3, atol=0.02)
    assert search.generation == 80
    assert search.sigma < 0.1


def test_it_starts_at_zero() -> None:
    search = CmaSearch(32, 0.5, 14, seed=1)
    np.testing.assert_array_equal(search.mean, np.zeros(32))
    assert search.population == 14
    assert search.sigma == 0.5


@pytest.mark.parametrize("draws", [False, True])
def test_a_replayed_search_goes_on_the_same(draws: bool) -> None:
    whole = CmaSearch(10, 1.0, 8, seed=3, bound=5.0)
    run(whole, 12, draws)
    first = CmaSearch(10, 1.0, 8, seed=3, bound=5.0)
    run(first, 5, draws)
    second = CmaSearch(10, 1.0, 8, seed=3, bound=5.0)
    second.replay(first.state())
    run(second, 7, draws)
    np.testing.assert_array_equal(whole.mean, second.mean)
    np.testing.assert_array_equal(whole.ask(), second.ask())
    assert whole.sigma == second.sigma


def test_a_fresh_search_has_a_state_too() -> None:
    search = CmaSearch(4, 1.0, 6, seed=0)
    assert search.state()["cma.told"].shape == (0, 6)
    search.replay(search.state())
    assert search.generation == 0


def test_it_neither_uses_nor_moves_the_global_generator() -> None:
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    run(CmaSearch(4, 1.0, 6, seed=0), 3)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


def test_candidates_stay_within_the_bound() -> None:
    search = CmaSearch(6, 3.0, 10, seed=1, bound=2.0)
    for _ in range(5):
        z = search.ask()
        assert np.abs(z).max() <= 2.0
        search.tell(-z.sum(axis=1))
    assert np.abs(search.mean).max() <= 2.0


def test_a_second_draw_is_allowed_at_the_published_dimension() -> None:
    search = CmaSearch(512, 1.0, 40, seed=1, bound=5.0)
    run(search, 1, draws=True)
    assert search.draw().shape == (40, 512)


def test_it_says_which_rule_stopped_it() -> None:
    search = CmaSearch(2, 1.0, 6, seed=1)
    assert search.stopped == ""
    for _ in range(400):
        search.tell(np.zeros_like(sphere(search.ask())))
        if search.stopped:
            break
    assert "tol" in search.stopped
