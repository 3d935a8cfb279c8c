"""Rows are batched by length, each once, and what was found of them goes back to where they stood."""

import numpy as np
import pytest

from stillhouse.data.batches import in_order, like_lengths
from stillhouse.data.encode import Example


def rows(lengths: list[int]) -> list[Example]:
    return [
        Example(f"k{at}", str(at), [1] * length, [1] * length, [0], 1) for at, length in enumerate(lengths)
    ]


def computed(examples: list[Example], batches: list[list[int]]) -> int:
    """Tokens that a model computes, padding included."""
    return sum(len(some) * max(len(examples[at].input_ids) for at in some) for some in batches)


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_each_row_is_in_one_batch_the_longest_come_first_and_no_order_pads_less(size: int) -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 25).tolist()
    examples = rows(lengths)
    batches = like_lengths(examples, size)
    assert sorted(at for some in batches for at in some) == list(range(25))
    assert [len(some) for some in batches] == [size] * (25 // size) + ([25 % size] if 25 % size else [])
    assert [lengths[at] for some in batches for at in some] == sorted(lengths, reverse=True)
    for seed in range(20):
        drawn = np.random.default_rng(seed).permutation(25).tolist()
        other = [drawn[start : start + size] for start in range(0, 25, size)]
        assert computed(examples, batches) <= computed(examples, other)


def test_the_batches_are_the_same_rows_whatever_order_they_came_in() -> None:
    examples = rows([5, 5, 5, 2, 9, 9, 5])
    turned = examples[::-1]
    one, other = (
        [[some[at].key for at in batch] for batch in like_lengths(some, 2)] for some in (examples, turned)
    )
    assert one == other


def test_what_was_found_batch_by_batch_goes_back_to_the_rows() -> None:
    examples = rows([3, 8, 1, 8, 5])
    batches = like_lengths(examples, 2)
    parts = [{"at": np.array(some), "wide": np.array([[at, -at] for at in some])} for some in batches]
    found = in_order(parts, batches)
    assert found["at"].tolist() == [0, 1, 2, 3, 4]
    assert found["wide"].tolist() == [[at, -at] for at in range(5)]
