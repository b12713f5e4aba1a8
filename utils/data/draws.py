"""What Python's `random.Random(seed)` draws, drawn in bulk: the same numbers, tens of times as fast.

Python and NumPy have the same generator, MT19937, whose stream is of 32-bit words. Python's `randint` and `shuffle`
take whole numbers below n from it so: with k = n.bit_length(), the upper k bits of the next word, drawn again until
they are below n. Here arrays of words are taken from NumPy's generator, started in the state of Python's. Nothing is
taken ahead: never more words than the draws asked for are sure to need, so that the next draw finds its own.
"""
import random

import numpy as np


class Draws:
    """The draws of `random.Random(seed)`, one call after another; bounds of at most 2**32 - 1."""

    def __init__(self, seed):
        _, state, _ = random.Random(seed).getstate()
        self._words = np.random.RandomState()
        self._words.set_state(("MT19937", np.array(state[:-1], np.uint32), state[-1]))

    def _upper_bits(self, bits, count):
        """`getrandbits(bits)`, `count` times: uint32 [count]; bits from 1 to 32."""
        return self._words.randint(0, 1 << 32, size=count, dtype=np.uint32) >> np.uint32(32 - bits)

    def below(self, bound, count):
        """`randint(0, bound - 1)`, `count` times: uint32 [count]."""
        drawn = np.empty(count, np.uint32)
        done = 0
        while done < count:
            bits = self._upper_bits(bound.bit_length(), count - done)
            bits = bits[bits < bound]
            drawn[done:done + len(bits)] = bits
            done += len(bits)
        return drawn

    def shuffled(self, count):
        """The order in which `shuffle` leaves a list of 0 .. count - 1: int32 [count]; count at most 2**31 - 1."""
        order = np.arange(count, dtype=np.int32)
        scratch = np.empty_like(order)
        last = count - 1
        for others in self._below_each(count):
            _swap(order, np.arange(last, last - len(others), -1), others, scratch)
            last -= len(others)
        return order

    def _below_each(self, bound):
        """`randint(0, n - 1)` for n = bound, bound - 1, .. 2, in pieces: int64 arrays, none of them empty."""
        while bound > 1:
            bits = bound.bit_length()
            least = 1 << bits - 1  # the least bound of as many bits
            count = min(bound - max(least, 2) + 1, max(bound // 64, 64))  # a small part of bound, see below
            drawn = self._upper_bits(bits, count).astype(np.int64)
            taken = drawn[_below_falling(drawn, bound)]
            bound -= len(taken)
            if len(taken):
                yield taken


def _below_falling(drawn, bound):
    """Which of `drawn` are taken: those below a bound that starts at `bound` and falls by one with each one taken.

    Whether a number is taken depends on how many before it are. Starting from a guess, all are decided anew, until
    nothing changes. Then each agrees with those before it, which only the one right answer does; and as a decision is
    right from the round on after all before it are, that comes. It takes about 4 rounds where the bound is large against
    the length of `drawn`, as few decisions are then in doubt.
    """
    taken = drawn < bound
    while True:
        before = np.cumsum(taken)
        before -= taken
        again = drawn < bound - before
        if np.array_equal(again, taken):
            return taken
        taken = again


def _swap(order, places, others, scratch):
    """Swaps order[places[s]] with order[others[s]] for s = 0, 1, ..; `scratch` is an array as long as `order`.

    Steps that share no place with another can be done in any order, so they are done at once, and the others, a
    fiftieth where there are few steps against the length of `order`, one by one. (For 2.6 million steps 0.2 s
    instead of the 1.9 s of a list that is swapped one by one, or the 0.7 s of an array.)
    """
    touched = np.concatenate([places, others])
    step = np.tile(np.arange(len(places), dtype=np.int32), 2)
    scratch[touched] = step  # of several steps that touch a place, one is left there
    shared = touched[scratch[touched] != step]
    scratch[shared] = -1
    alone = (scratch[touched] == step).reshape(2, -1).all(axis=0)
    left, right = places[alone], others[alone]
    order[left], order[right] = order[right], order[left]
    for place, other in zip(places[~alone].tolist(), others[~alone].tolist()):
        order[place], order[other] = order[other], order[place]
