"""Which rows go into which step and forward pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.batching import Rows, Sizes, epoch_batches, micro_batches, steps_per_epoch

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 1000), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_holds_every_row_once_in_the_same_number_of_full_steps(
    lengths: list[int], batch_tokens: int, seed: int, epoch: int
) -> None:
    sizes = Sizes.of(lengths)
    batches = epoch_batches(sizes, batch_tokens, seed, epoch)
    assert len(batches) == steps_per_epoch(sizes, batch_tokens)
    assert all(len(batch) for batch in batches)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))


def test_steps_hold_nearly_equal_numbers_of_tokens() -> None:
    sizes = Sizes.of(np.random.default_rng(0).integers(1, 50, 1000).tolist())
    tokens = [int(sizes.tokens[batch].sum()) for batch in epoch_batches(sizes, 1000, 0, 0)]
    assert max(tokens) - min(tokens) <= 2 * 50


def test_a_row_longer_than_many_steps_leaves_no_step_empty() -> None:
    batches = epoch_batches(Sizes.of([1, 1, 10_000, 1]), 100, 0, 0)
    assert [len(batch) for batch in batches] == [1, 1, 1, 1]


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    sizes = Sizes.of([3] * 50)
    orders = {
        (seed, epoch): tuple(np.concatenate(epoch_batches(sizes, 30, seed, epoch)))
        for seed in (0, 1)
        for epoch in (0, 1)
        for _ in range(2)
    }
    assert len(set(orders.values())) == 4
    assert orders[0, 1] == tuple(np.concatenate(epoch_batches(sizes, 30, 0, 1)))


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 600), st.integers(1, 4))
def test_a_piece_never_exceeds_the_budget_unless_it_is_one_row(lengths: list[int], budget: int, parts: int) -> None:
    sizes = Sizes.of(lengths)
    pieces = micro_batches(np.arange(len(lengths)), sizes, budget, parts)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(lengths)))
    assert all(len(piece) == 1 or sizes.tokens[piece].sum() <= budget for piece in pieces)


def test_rows_of_like_length_share_a_piece() -> None:
    sizes = Sizes.of([2, 9, 3, 8])
    assert [piece.tolist() for piece in micro_batches(np.arange(4), sizes, 18)] == [[1, 3], [2, 0]]


def test_pieces_are_of_nearly_equal_size() -> None:
    sizes = Sizes.of([10] * 12)
    assert [len(piece) for piece in micro_batches(np.arange(12), sizes, 100)] == [6, 6]


def test_there_is_a_piece_for_each_process_where_there_are_rows_enough() -> None:
    sizes = Sizes.of([10] * 12)
    assert [len(piece) for piece in micro_batches(np.arange(12), sizes, 1000, processes=3)] == [4, 4, 4]
    assert [len(piece) for piece in micro_batches(np.arange(12), sizes, 50, processes=2)] == [3, 3, 3, 3]
    assert len(micro_batches(np.arange(2), sizes, 1000, processes=3)) == 2


def padded_tokens(pieces: list[Rows], lengths: list[int]) -> list[int]:
    return [len(piece) * max(lengths[i] for i in piece) for piece in pieces]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 600), st.integers(1, 4))
def test_where_passes_are_padded_padding_counts(lengths: list[int], budget: int, parts: int) -> None:
    pieces = micro_batches(np.arange(len(lengths)), Sizes.of(lengths, pads=True), budget, parts)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(lengths)))
    tokens = padded_tokens(pieces, lengths)
    assert all(len(piece) == 1 or size <= budget for piece, size in zip(pieces, tokens, strict=True))


def test_padded_pieces_are_as_few_as_can_be_and_nearly_equal() -> None:
    lengths = [100] + [10] * 30
    pieces = micro_batches(np.arange(31), Sizes.of(lengths, pads=True), 200)
    assert [len(piece) for piece in pieces] == [1, 15, 15]
    assert padded_tokens(pieces, lengths) == [100, 150, 150]
    assert [len(piece) for piece in micro_batches(np.arange(31), Sizes.of(lengths), 200)] == [11, 20]


def test_there_is_a_padded_piece_for_each_process_where_there_are_rows_enough() -> None:
    sizes = Sizes.of([10] * 12, pads=True)
    assert [len(piece) for piece in micro_batches(np.arange(12), sizes, 1000, processes=3)] == [4, 4, 4]
    assert [len(piece) for piece in micro_batches(np.arange(12), sizes, 50, processes=2)] == [3, 3, 3, 3]
    assert len(micro_batches(np.arange(2), sizes, 1000, processes=3)) == 2


@pytest.mark.parametrize(("budget", "pieces"), [(60, [[0], [1, 2, 3]]), (239, [[0], [1, 2, 3]]), (240, [[0, 1, 2, 3]])])
def test_all_sequences_of_a_row_are_padded(budget: int, pieces: list[list[int]]) -> None:
    rows = [[5, 30], [10, 10, 10], [4], [3, 3]]
    sizes = replace(Sizes.of_several(rows, [1.0] * 4), pads=True)
    assert (sizes.tokens.tolist(), sizes.sequences.tolist()) == ([35, 30, 4, 6], [2, 3, 1, 2])
    assert [piece.tolist() for piece in micro_batches(np.arange(4), sizes, budget)] == pieces
