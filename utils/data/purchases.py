"""Who buys what in the generated data set: make_sample.py tells how people buy, and how it is drawn."""
from typing import NamedTuple

import numpy as np

# Repeats that are parted, and interests that reach over the end of their style, take back a part of these shares: in
# the small sample 0.89 of the purchases lie in the user's interests, 0.86 of those in his style of the interest.
STYLES = 4  # at most this many styles in a category...
ITEMS_PER_STYLE = 6  # ...and at least this many items in each
STICKINESS = 0.9  # share of purchases in the user's style of that interest; the others are of any style there
OFF_INTEREST = 0.05  # share of purchases from anywhere at all
INTERESTS, INTERESTS_GROWTH = 0.9, 0.5  # a history of n purchases has INTERESTS * n ** INTERESTS_GROWTH interests

# The shapes, as (least, excess): the k-th of n numbers is least + floor(excess * exp(sigma * z)), z the quantile k/n of
# the normal distribution; the total settles sigma. Measured on Amazon's 5-core data (Beauty): reviews per user median
# 6, mean 8.6, 95% 19, 99% 37, 99.9% 83; reviews per item median 9, mean 15.6, 99% 107; items per category median 7,
# mean 28, 99% 332. The small sample has these means and follows. The full set has more reviews per item (mean 26.8)
# and more items per category (mean 78.7): the same medians, and longer tails.
REVIEWS_PER_USER = (5, 1.9)
REVIEWS_PER_ITEM = (5, 4.5)
ITEMS_PER_CATEGORY = (1, 6.5)


class Sizes(NamedTuple):
    """The counts of a sample."""
    users: int
    items: int  # reviewed products
    categories: int
    reviews: int
    products: int  # meta lines, those of the items among them
    text_bytes: int  # about the mean of a review's text


SIZES = {"small": Sizes(users=10000, items=5500, categories=200, reviews=86000, products=7700, text_bytes=150),
         "full": Sizes(users=192403, items=63001, categories=801, reviews=1689188, products=498196, text_bytes=650)}


class Purchases(NamedTuple):
    """Who bought what and when, and why: columns of whole numbers."""
    user: np.ndarray  # [reviews]
    item: np.ndarray  # [reviews]
    day: np.ndarray  # [reviews] in days since 1970
    category: np.ndarray  # [items]
    style: np.ndarray  # [items]
    interest_user: np.ndarray  # [interests] whose interest it is
    interest_category: np.ndarray  # [interests]
    interest_style: np.ndarray  # [interests] the user's style in that category


def make_purchases(sizes, seed):
    """Returns the `Purchases` of a sample; every user and item has at least 5, no user buys an item twice.

    `ValueError` where no data can have these sizes.
    """
    random = np.random.RandomState(seed)
    category, style, copies_of_item = _make_items(random, sizes)
    pool = category * STYLES + style

    by_pool = np.argsort(pool, kind="stable")
    item = np.repeat(by_pool, copies_of_item[by_pool])  # the line of copies
    pool_at, category_at, style_at = pool[item], category[item], style[item]

    interest_user, interest_length, interest_start = _lay_interests(random, sizes, category_at)
    user = np.repeat(interest_user, interest_length)

    whole_line = np.zeros_like(pool_at)  # one group
    _shuffle_within(random, item, np.arange(sizes.reviews), pool_at)
    astray = np.flatnonzero(random.random_sample(sizes.reviews) >= STICKINESS)
    _shuffle_within(random, item, astray, category_at)
    astray = np.flatnonzero(random.random_sample(sizes.reviews) < OFF_INTEREST)
    _shuffle_within(random, item, astray, whole_line)

    _part_repeats(random, user, item, ((pool_at, 8), (category_at, 8), (whole_line, 100)))

    # A user buys anywhere in a stretch of years of his, rarely twice on one day.
    first_day = 10957 + random.randint(3500, size=sizes.users)  # 10957: 2000-01-01
    stretch = random.randint(300, 1800, size=sizes.users)
    day = first_day[user] + (random.randint(1 << 20, size=sizes.reviews) * stretch[user] >> 20)
    return Purchases(user, item, day, category, style,
                     interest_user, category_at[interest_start], style_at[interest_start])


def spread(count, total, least, excess):
    """Returns `count` whole numbers, ascending, of this shape (see above) and total; ValueError if there are none."""
    grid = np.linspace(-6, 6, 12001)
    density = np.exp(-grid * grid / 2)
    cumulated = np.cumsum(density) - density / 2
    z = np.interp((np.arange(count) + 0.5) / count, cumulated / density.sum(), grid)

    def numbers_of(millionths):
        return least + np.floor(excess * np.exp(millionths / 1e6 * z)).astype(np.int64)

    low, high = 0, 4000000
    if not numbers_of(low).sum() <= total < numbers_of(high).sum():
        raise ValueError("%d numbers from %d on, with a median near %g, can't add up to %d"
                         % (count, least, least + excess, total))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if numbers_of(middle).sum() <= total else (low, middle)
    numbers = numbers_of(low)
    return numbers + (total - numbers.sum() + np.arange(count)) // count  # what is missing, one more for the last


def _make_items(random, sizes):
    """Returns the category, the style and the number of reviews of each item, each [items]."""
    items_of_category = random.permutation(spread(sizes.categories, sizes.items, *ITEMS_PER_CATEGORY))
    category = np.repeat(np.arange(sizes.categories), items_of_category)
    place = np.arange(sizes.items) - np.repeat(np.cumsum(items_of_category) - items_of_category, items_of_category)
    style = place % np.clip(items_of_category // ITEMS_PER_STYLE, 1, STYLES)[category]

    appeal = random.standard_normal(sizes.items)  # ranks the items
    reviews_of_item = np.empty(sizes.items, dtype=np.int64)
    reviews_of_item[np.argsort(appeal, kind="stable")] = spread(sizes.items, sizes.reviews, *REVIEWS_PER_ITEM)
    return category, style, reviews_of_item


def _lay_interests(random, sizes, category_at):
    """Lays the users' interests on the line in random order; returns the user, length and start of each, [interests].

    An interest is in the category and style of the copy at its start, so interests are drawn in proportion to sales.
    The last purchases of one that reaches over the end of its style are of the next style.
    """
    purchases = spread(sizes.users, sizes.reviews, *REVIEWS_PER_USER)  # [users]
    interests = INTERESTS * purchases.astype(np.float64) ** INTERESTS_GROWTH
    interests = np.maximum(1, np.floor(interests.round(6) + 0.5)).astype(np.int64)  # [users], the same on every libm
    first_interest, choices = np.cumsum(interests) - interests, np.repeat(interests, purchases)
    interest = (random.random_sample(sizes.reviews) * choices).astype(np.int64) + np.repeat(first_interest, purchases)

    length = np.bincount(interest, minlength=interests.sum())
    user = np.repeat(np.arange(sizes.users), interests)
    order = random.permutation(len(length))
    order = order[length[order] > 0]
    user, length = user[order], length[order]
    start = np.cumsum(length) - length

    # A user's interests are to be in different categories: those that share one change places with others as long.
    for _ in range(8):
        clash, _ = _repeats(user * sizes.categories + category_at[start])
        chosen = np.unique(np.concatenate([clash, random.randint(len(user), size=len(clash))]))
        _shuffle_within(random, user, chosen, length)
    return user, length, start


def _shuffle_within(random, values, places, group_at):
    """Shuffles `values[places]` in place among those of `places` that have the same group (`group_at[places]`)."""
    group = group_at[places]
    order = random.permutation(len(places))
    to = places[np.argsort(group, kind="stable")]
    values[to] = values[places[order[np.argsort(group[order], kind="stable")]]]


def _repeats(keys):
    """Returns the places of `keys`, ascending, at which a key stands that stood before; and `keys`, sorted."""
    order = np.argsort(keys, kind="stable")
    ascending = keys[order]
    return np.sort(order[1:][ascending[1:] == ascending[:-1]]), ascending


def _part_repeats(random, user, item, groupings):
    """Swaps items in place until no user has one twice: within the groups of the first grouping, then of the next.

    `groupings` are pairs (group at each place of the line, number of rounds); every group is one stretch of the line.
    A swap is made only where both users are new to the items that they get. `RuntimeError` where users still have
    items twice in the end.
    """
    for group_at, rounds in groupings:
        size = np.bincount(group_at)
        start = np.cumsum(size) - size
        for _ in range(rounds):
            keys = user * len(user) + item
            here, owned = _repeats(keys)
            if not len(here):
                return
            group = group_at[here]
            there = start[group] + (random.random_sample(len(here)) * size[group]).astype(np.int64)
            there, index = np.unique(there, return_index=True)
            here = here[index]
            unfit = (np.isin(there, here) | _among(user[here] * len(user) + item[there], owned)
                     | _among(user[there] * len(user) + item[here], owned))
            here, there = here[~unfit], there[~unfit]
            item[here], item[there] = item[there], item[here]
    raise RuntimeError("users still have items twice: there are too few items for such long histories")


def _among(values, ascending):
    """Tells for each of `values` whether it is among `ascending`."""
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[place] == values
