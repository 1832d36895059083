"""The tree holds each beginning once, and in its chunks nodes see their ancestors only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.vision.text_engine.token_tree import BLOCK, TokenTree

TOKENS = st.integers(-2, 4)  # few, so that beginnings are shared
SEQUENCES = st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=60)


def path(tree: TokenTree, node: int) -> list[int]:
    """The nodes from the root to ``node``, by the definition of depth-first order."""
    found = [node]
    for earlier in range(node - 1, -1, -1):
        if tree.depth[earlier] == tree.depth[found[0]] - 1:
            found.insert(0, earlier)
    return found


@given(SEQUENCES)
def test_each_beginning_is_one_node(sequences: list[list[int]]) -> None:
    tree = TokenTree.build(sequences)
    beginnings = {tuple(s[:i]) for s in sequences for i in range(1, len(s) + 1)}
    words = [tuple(tree.tokens[path(tree, node)]) for node in range(len(tree))]
    assert len(words) == len(set(words))
    assert set(words) == beginnings
    for sequence, row in zip(sequences, tree.inverse, strict=True):
        assert words[tree.ends[row]] == tuple(sequence)


@given(SEQUENCES, st.integers(1, 3 * BLOCK), st.integers(0, 5))
def test_chunks_see_ancestors_only(sequences: list[list[int]], size: int, start: int) -> None:
    tree = TokenTree.build(sequences)
    start = min(start, len(tree) - 1)
    slots = path(tree, start)[:-1]  # the node each slot holds
    begin, reads = start, []
    for chunk in tree.chunks(start, len(tree), size):
        count = len(chunk.tokens)
        np.testing.assert_array_equal(chunk.tokens, tree.tokens[begin : begin + count])
        np.testing.assert_array_equal(chunk.depth, tree.depth[begin : begin + count])
        slots = [*slots, *range(begin, begin + count)]
        assert chunk.keys.shape[1] % 8 == 0
        for place in range(count):
            block, query = divmod(place, BLOCK)
            seen = [slots[key] for key in chunk.keys[block][chunk.mask[block, query]]]
            assert sorted(seen) == path(tree, begin + place)
        assert chunk.mask.any(axis=2).all()
        reads.extend(begin + chunk.reads)
        slots = [slots[slot] for slot in chunk.path]
        begin += count
        assert begin == len(tree) or slots == path(tree, begin)[:-1]
    assert begin == len(tree)
    assert reads == [end for end in tree.ends if end >= start]


def test_shared_are_the_nodes_before_any_soft_token() -> None:
    assert TokenTree.build([(7, 8, -1, 2), (7, 8, -2, 3)]).shared == 2
    assert TokenTree.build([(7, 8)]).shared == 2


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_empty_sequences_are_refused(sequences: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        TokenTree.build(sequences)
