"""utils/data/draws.py draws the numbers of Python's `random` in bulk, and leaves the stream at the same place."""
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data.draws import Draws

SEEDS = st.integers(0, 2 ** 70)
AROUND_POWERS = sorted({max(1, 2 ** power + offset) for power in range(1, 32) for offset in (-1, 0, 1)} | {2 ** 32 - 1})
BOUNDS = st.one_of(st.integers(1, 20), st.integers(1, 2 ** 32 - 1), st.sampled_from(AROUND_POWERS))
COUNTS = [*range(70), *(2 ** power + offset for power in range(7, 15) for offset in (-1, 0, 1))]


def shuffled(generator, count):
    order = list(range(count))
    generator.shuffle(order)
    return order


@pytest.mark.parametrize("bound", AROUND_POWERS)
def test_whole_numbers_below_any_bound_are_those_of_randint(bound):
    generator = random.Random(bound)
    assert Draws(bound).below(bound, 100).tolist() == [generator.randint(0, bound - 1) for _ in range(100)]


@pytest.mark.parametrize("count", COUNTS)
def test_the_order_of_any_number_of_elements_is_that_of_shuffle(count):
    assert Draws(1234).shuffled(count).tolist() == shuffled(random.Random(1234), count)


def test_the_order_of_many_elements_is_that_of_shuffle():
    np.testing.assert_array_equal(Draws(7).shuffled(300000), shuffled(random.Random(7), 300000))


@settings(deadline=None)
@given(SEEDS, st.lists(st.tuples(BOUNDS, st.integers(0, 300), st.integers(0, 700)), max_size=5))
def test_each_call_goes_on_where_the_last_one_stopped(seed, calls):
    draws, generator = Draws(seed), random.Random(seed)
    for bound, count, elements in calls:
        assert draws.below(bound, count).tolist() == [generator.randint(0, bound - 1) for _ in range(count)]
        assert draws.shuffled(elements).tolist() == shuffled(generator, elements)


@pytest.mark.parametrize("count", [0, 1])
def test_a_list_without_a_choice_takes_nothing_from_the_stream(count):
    draws = Draws(5)
    assert draws.shuffled(count).tolist() == list(range(count))
    assert draws.below(1000, 10).tolist() == Draws(5).below(1000, 10).tolist()
