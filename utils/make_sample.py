"""Makes a data set in the format of Amazon's raw files, from a seed: `python utils/make_sample.py small`.

`small` is the embedded default, made in seconds; `full` has the counts and the file sizes of Amazon Electronics.
The same seed gives the same bytes on every NumPy from 1.18 on: only streams of `RandomState` that are frozen are
drawn, and what passes through exp or log is rounded to whole numbers before it decides anything.

How people buy here (the constants below say how much):

  * a category's items fall into a few styles (families that go together); each item has one;
  * a user has a few interests: categories, drawn in proportion to what they sell. In each of them he has one style,
    drawn anew for each interest, to which he mostly sticks;
  * his purchases come from his interests in random order; a few come from anywhere.

So what tells a good candidate is the part of the history that lies in the candidate's own category: attention to it
finds the style, while a mean over the whole history blurs which style belongs to which interest.

How it is drawn. How often each user buys and each item is bought is settled first, so both shapes are exact. Then
all purchases lie on one line twice: as copies of the items, sorted by (category, style), and as the users' interests,
in random order, each a run of purchases. What lies at the same place belongs together. The rest is shuffling copies
among places, in ever wider groups, which changes neither shape.
"""
import collections
import json
import os
import re
import sys
import time

import numpy as np
from tqdm import tqdm

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from utils.files import ROOT, Parser, UserError, replacing, run_main

REVIEWS_FILE, META_FILE, SAMPLE_FILE = "reviews_Electronics_5.json", "meta_Electronics.json", "sample.json"
DEFAULT_SEED = 1234
RECIPE = 1  # raise it with every change of what is drawn, so that samples made before are made anew

# How people buy. Repeats that are parted, and interests that reach over the end of their style, take some of it back:
# in the small sample 0.89 of the purchases lie in the user's interests, 0.86 of those in his style of the interest.
STYLES = 4  # at most this many styles in a category...
ITEMS_PER_STYLE = 6  # ...and at least this many items in each
STICKINESS = 0.9  # share of purchases in the user's style of that interest; the others are of any style there
OFF_INTEREST = 0.05  # share of purchases from anywhere at all
INTERESTS, INTERESTS_GROWTH = 0.9, 0.5  # a history of n purchases has INTERESTS * n ** INTERESTS_GROWTH interests
SIZE_EXPONENT = 1.0  # a category of n items sells about n ** SIZE_EXPONENT, and is an interest as often

# The shapes, as (least, excess): the k-th of n numbers is least + floor(excess * exp(sigma * z)), z the quantile k/n of
# the normal distribution; the total settles sigma. Measured on Amazon's 5-core data (Beauty): reviews per user median
# 6, mean 8.6, 95% 19, 99% 37, 99.9% 83; reviews per item median 9, mean 15.6, 99% 107; items per category median 7,
# mean 28, 99% 332. The small sample has these means and follows. The counts of the full set ask for more reviews per
# item (mean 26.8) and more items per category (mean 78.7): its medians are the same, and its tails are longer for it
# (reviews per item 99% 294, most 10,203; items per category 99% 1,211, most 9,841).
REVIEWS_PER_USER = (5, 1.9)
REVIEWS_PER_ITEM = (5, 4.5)
ITEMS_PER_CATEGORY = (1, 6.5)

Sizes = collections.namedtuple("Sizes", "users items categories reviews products text_bytes")
Sizes.__doc__ = """What a sample counts.

`products` meta lines, of which `items` are of reviewed products; `text_bytes` is about the mean of a review's text.
"""
SIZES = {
    "small": Sizes(users=10000, items=5500, categories=200, reviews=86000, products=7700, text_bytes=150),
    "full": Sizes(users=192403, items=63001, categories=801, reviews=1689188, products=498196, text_bytes=650),
}

Purchases = collections.namedtuple(
    "Purchases", "user item day category style interest_user interest_category interest_style")
Purchases.__doc__ = """Who bought what and when, and why.

user, item, day        [reviews] of each purchase; `day` in days since 1970
category, style        [items] of each item
interest_*             [interests] the interests: whose, in which category, in which style of it
"""

_SECONDS_PER_DAY = 86400
_FIRST_DAY = 10957  # 2000-01-01
_LINES_AT_ONCE = 20000


# ---- purchases -------------------------------------------------------------------------------------------------------

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

    everywhere = np.arange(sizes.reviews)
    _shuffle_within(random, item, everywhere, pool_at)
    astray = np.flatnonzero(random.random_sample(sizes.reviews) >= STICKINESS)
    _shuffle_within(random, item, astray, category_at[astray])
    astray = np.flatnonzero(random.random_sample(sizes.reviews) < OFF_INTEREST)
    _shuffle_within(random, item, astray, np.zeros(len(astray), dtype=np.int64))

    _part_repeats(random, user, item, pool_at, category_at)
    return Purchases(user, item, _make_days(random, sizes, user), category, style,
                     interest_user, category_at[interest_start], style_at[interest_start])


def _spread(count, total, least, excess):
    """Returns `count` whole numbers, ascending, of the given shape (see above) and exactly the given total."""
    grid = np.linspace(-6, 6, 12001)
    density = np.exp(-grid * grid / 2)
    cumulated = np.cumsum(density) - density / 2
    z = np.interp((np.arange(count) + 0.5) / count, cumulated / density.sum(), grid)

    def numbers(millionths):
        return least + np.floor(excess * np.exp(millionths / 1e6 * z)).astype(np.int64)

    low, high = 0, 4000000
    if not numbers(low).sum() <= total < numbers(high).sum():
        raise ValueError("%d numbers from %d on, with a median near %g, can't add up to %d"
                         % (count, least, least + excess, total))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if numbers(middle).sum() <= total else (low, middle)
    spread = numbers(low)
    each, more = divmod(total - spread.sum(), count)
    spread += each
    spread[count - more:] += 1
    return spread


def _make_items(random, sizes):
    """Returns the category, the style and the number of reviews of each item, each [items]."""
    items_of_category = random.permutation(_spread(sizes.categories, sizes.items, *ITEMS_PER_CATEGORY))
    category = np.repeat(np.arange(sizes.categories), items_of_category)
    place = np.arange(sizes.items) - np.repeat(np.cumsum(items_of_category) - items_of_category, items_of_category)
    style = place % np.clip(items_of_category // ITEMS_PER_STYLE, 1, STYLES)[category]

    copies = _spread(sizes.items, sizes.reviews, *REVIEWS_PER_ITEM)
    # The appeal of an item ranks it. 1.3 is about the sigma of the copies' logarithm.
    appeal = 1.3 * random.standard_normal(sizes.items) + (SIZE_EXPONENT - 1) * np.log(items_of_category)[category]
    copies_of_item = np.empty_like(copies)
    copies_of_item[np.argsort(appeal, kind="stable")] = copies
    return category, style, copies_of_item


def _lay_interests(random, sizes, category_at):
    """Lays the users' interests on the line in random order; returns the user, length and start of each, [interests].

    The place where an interest starts makes it one of that place's category and style. So interests are drawn in
    proportion to what is sold, and all that is sold is bought; the last purchases of an interest that reaches
    over the end of its style belong to the next one.
    """
    bought = _spread(sizes.users, sizes.reviews, *REVIEWS_PER_USER)
    interests = INTERESTS * bought.astype(np.float64) ** INTERESTS_GROWTH
    interests = np.maximum(1, np.floor(interests.round(6) + 0.5)).astype(np.int64)  # the same on every libm
    user_of_purchase = np.repeat(np.arange(sizes.users), bought)
    first = np.cumsum(interests) - interests
    which = (random.random_sample(sizes.reviews) * interests[user_of_purchase]).astype(np.int64)
    which += first[user_of_purchase]

    length = np.bincount(which, minlength=interests.sum())
    user = np.repeat(np.arange(sizes.users), interests)
    order = random.permutation(len(length))
    order = order[length[order] > 0]
    user, length = user[order], length[order]
    start = np.cumsum(length) - length

    # A user's interests are to be in different categories: those that share one change places with others as long.
    for _ in range(8):
        clash = _repeats(user * sizes.categories + category_at[start])
        if not len(clash):
            break
        chosen = np.unique(np.concatenate([clash, random.randint(len(user), size=len(clash))]))
        _shuffle_within(random, user, chosen, length[chosen])
    return user, length, start


def _shuffle_within(random, values, places, group):
    """Shuffles `values[places]` in place among those of `places` that have the same `group` ([places])."""
    shuffled = random.permutation(len(places))
    to = places[np.argsort(group, kind="stable")]
    values[to] = values[places[shuffled[np.argsort(group[shuffled], kind="stable")]]]


def _repeats(keys):
    """Returns the places of `keys` at which a key stands that stood before."""
    order = np.argsort(keys, kind="stable")
    return np.sort(order[1:][keys[order[1:]] == keys[order[:-1]]])


def _part_repeats(random, user, item, pool_at, category_at):
    """Swaps items in place until no user has one twice: within the style, then within the category, then anywhere.

    A swap is made only where both users are new to what they get. `RuntimeError` where that does not end.
    """
    whole_line = np.zeros(len(user), dtype=np.int64)
    for group_at, rounds in ((pool_at, 8), (category_at, 8), (whole_line, 100)):
        copies = np.bincount(group_at)
        first = np.cumsum(copies) - copies  # every group is one stretch of the line
        for _ in range(rounds):
            keys = user * len(user) + item
            owned = np.sort(keys)
            twice = owned[1:][owned[1:] == owned[:-1]]
            if not len(twice):
                return
            here = np.flatnonzero(_among(keys, twice))
            here = here[_repeats(keys[here])]
            group = group_at[here]
            there = first[group] + (random.random_sample(len(here)) * copies[group]).astype(np.int64)
            there, kept = np.unique(there, return_index=True)
            here = here[kept]
            fair = ~np.isin(there, here)
            here, there = here[fair], there[fair]
            known = _among(user[here] * len(user) + item[there], owned)
            known |= _among(user[there] * len(user) + item[here], owned)
            here, there = here[~known], there[~known]
            item[here], item[there] = item[there], item[here]
    raise RuntimeError("users still have items twice: there are too few items for such long histories")


def _among(values, ascending):
    """Tells for each of `values` whether it is among `ascending`."""
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[place] == values


def _make_days(random, sizes, user):
    """Returns the day of each purchase: anywhere in its user's own stretch of years, rarely two on one day."""
    first = _FIRST_DAY + random.randint(3500, size=sizes.users)
    stretch = random.randint(300, 1800, size=sizes.users)
    return first[user] + (random.randint(1 << 20, size=sizes.reviews) * stretch[user] >> 20)


# ---- words -----------------------------------------------------------------------------------------------------------

_WORDS = {
    "thing": "cable charger headset camera tripod speaker keyboard mouse router tablet lens battery adapter monitor "
             "remote case stand dock antenna scanner memory-card projector turntable microphone radio receiver".split(),
    "part": "plug cord screen hinge button clip cushion menu firmware manual strap shutter dial latch fan box".split(),
    "good": "sturdy crisp quick light quiet handy solid bright simple reliable comfortable sharp snug cheap".split(),
    "bad": "flimsy loud slow dim heavy awkward loose noisy fragile stiff confusing warm".split(),
    "who": "my wife|my son|our neighbor|a friend|my boss|my dad|the whole family|my niece".split("|"),
    "time": "two weeks|a month|three years|one day|the whole summer|half an hour|a long flight".split("|"),
    "place": "office|kitchen|car|garage|living room|hotel|classroom|boat".split("|"),
    "brand": "Norvex|Halden|Quillon|Arbor & Pike|Lumora|Tekton|O'Dell|Vantis|Zürn|Kestrel|Mirado|Pell".split("|"),
    "number": [str(number) for number in range(2, 40)],
    "first": "Ann José Karl Mei Omar Zoë Ruth Ivan Priya Tom Łukasz Dana Björn Grace Hugo Aiko Sam Noël".split(),
    "initial": list("ABCDEFGHJKLM"),
}

# Every list has phrases that are hard to read: quotes of both kinds, backslashes, ends of lines, letters beyond ASCII.
_SENTENCES = (
    "The {part} is {good} and the {thing} does what it should.",
    "I bought this {thing} for {who} and it has been {good} ever since.",
    "After {time} the {part} became {bad}.",
    "It's a {good} {thing}, but the {part} feels {bad}.",
    "{who} said \"it's {good}\" and I agree.",
    "We use it in the {place} nearly every day.",
    "Compared with the {brand} {thing} this one is {good}, if a little {bad}.",
    "Pros: {good}, {good}\nCons: {bad}\n",
    "The driver lives in C:\\{thing}\\{part} and installs in {number} minutes.",
    "Fits my {number}\" screen; the {part} isn't {bad} at all.",
    "Très {good}! It cost €{number} at the café next door…",
    "No problems in {time}, and {who} wants one too ☺",
    "Don't expect a {good} {part} at this price {{number} dollars}.",
    "I returned the first {thing} after {time}: the {part} was {bad}.",
    "Would I buy it again? Yes.",
    "Works in the {place} at {number}°, with the {part} wide open.\tFive stars™.",
)
_SUMMARIES = (
    "{good} {thing}", "Not so {good}", "{who} loves it!", "\"{good}\" they said", "It's {bad}...", "Great",
    "{number} stars if I could", "The {part} is {bad}", "{brand} does it again", "très {good}", "Buy \\ don't buy?",
)
_NAMES = (
    "{first}", "{first} {initial}.", "{first} \"{good} {thing}\"", "{initial}. O'{first}", "{first} & {first}",
    "{first} the {good}",
)
_TITLES = (
    "{brand} {good} {thing}", "{brand} {number}\" {thing} with {part}", "{brand} Kid's {number}\" {thing}",
    "{number}' {thing} (Black)", "{brand} 5' 11\" {thing} \\ {part}", "{brand} {thing} – {good} & {good}",
    "\"{good}\" {thing} by {brand}", "{brand} {thing} [{number}-pack]",
)
_DESCRIPTIONS = (
    "This {good} {thing} comes with a {good} {part}.", "The manufacturer's {number}\" {thing} for the {place}.",
    "Includes {number} spare {part}s.", "A {part} that won't get {bad}, even after {time}.",
    "Works with every {brand} {thing}.\nAsk for the \"{good}\" model.", "Très {good}, for up to {number}°.",
)

# A category is "<kind> <noun>"; each noun belongs to a group of the shop.
_KINDS = (
    "Portable|Wireless|Car|Home|Office|Travel|Digital|Compact|Studio|Outdoor|Gaming|Mini|Replacement|Professional|"
    "Kids'|Waterproof|Wall|Desktop|Universal|Bluetooth|Marine|Vintage|Smart|Solar|USB|HDMI|Optical|Security|Fitness|"
    "DJ's|Women's"
).split("|")
_GROUPS = (
    ("Camera & Photo", "Lenses|Tripods|Flashes|Binoculars|Camera Bags"),
    ("Computers & Accessories", "Keyboards|Mice|Monitors|Hard Drives|Routers|Laptops"),
    ("Portable Audio & Video", "Headphones|MP3 Players|Radios|Recorders"),
    ("Accessories & Supplies", "Cables|Batteries|Chargers|Mounts|Cases, Covers"),
    ("Television & Video", "Antennas|Projectors|DVD Players"),
    ("Car & Vehicle Electronics", "Speakers|Receivers|GPS Units"),
    ("eBook Readers", "Readers"),
)

_LETTERS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)


class _Words:
    """Draws words and phrases."""

    def __init__(self, random):
        self._random = random

    def _word(self, field):
        words = _WORDS[field.group(1)]
        return words[self._random.randint(len(words))]

    def phrases(self, patterns, count):
        """Returns `count` phrases: the patterns in turn, each {field} a word of its own, a capital at the start."""
        phrases = [re.sub(r"\{(\w+)\}", self._word, patterns[index % len(patterns)]) for index in range(count)]
        return [phrase[:1].upper() + phrase[1:] for phrase in phrases]


def _identifiers(random, prefix, letters, count):
    """Returns `count` different identifiers, bytes: `prefix`, then `letters` of 0-9 and A-Z."""
    distinct = random.permutation(36 ** 4)[:count]
    digits = random.randint(36, size=(count, letters))
    digits[:, -4:] = distinct[:, None] // 36 ** np.arange(4) % 36
    identifiers = np.empty((count, len(prefix) + letters), dtype=np.uint8)
    identifiers[:, :len(prefix)] = np.frombuffer(prefix, dtype=np.uint8)
    identifiers[:, len(prefix):] = _LETTERS[digits]
    return identifiers.view("S%d" % identifiers.shape[1])[:, 0]


def _json_inside(phrases):
    """Returns `phrases` as they stand between the quotes of JSON, bytes; every second one in ASCII alone."""
    return [json.dumps(phrase, ensure_ascii=index % 2 == 0)[1:-1].encode() for index, phrase in enumerate(phrases)]


# ---- files -----------------------------------------------------------------------------------------------------------

def _review_lines(random, sizes, purchases, asins):
    """Yields the review file, some thousand lines at a time, as lists of bytes; grouped by asin, ascending."""
    words = _Words(random)
    sentences = _json_inside(words.phrases(_SENTENCES, 1600))
    # A text is a body and a closing sentence. Bodies have lengths like real ones: many short, some very long.
    mean = sum(map(len, sentences)) / len(sentences) + 1
    body_bytes = max(2 * mean, sizes.text_bytes - mean)
    lengths = _spread(5000, int(5000 * body_bytes), 20, int(0.6 * body_bytes))
    bodies = np.maximum(1, np.floor(lengths / mean + 0.5)).astype(np.int64)
    ends = np.cumsum(bodies)
    drawn = random.randint(len(sentences), size=ends[-1])
    bodies = [b" ".join([sentences[index] for index in drawn[end - body:end]]) for body, end in zip(bodies, ends)]
    summaries = _json_inside(words.phrases(_SUMMARIES, 1100))
    names = _json_inside(words.phrases(_NAMES, 3000))
    helpful = [b"[%d, %d]" % (min(helped, asked), asked) for asked in (0, 0, 0, 0, 1, 2, 3, 8, 40)
               for helped in (0, 1, 2, 7, 35)]
    overall = [b"%d.0" % stars for stars, share in ((5, 12), (4, 4), (3, 2), (2, 1), (1, 1)) for _ in range(share)]
    days = [b'"unixReviewTime": %d, "reviewTime": "%s"' % (day * _SECONDS_PER_DAY, _review_time(day))
            for day in range(_FIRST_DAY, int(purchases.day.max()) + 1)]

    reviewers = _identifiers(random, b"A", 13, sizes.users)
    name_of_user = random.randint(len(names), size=sizes.users)
    rank = np.empty(sizes.items, dtype=np.int64)
    rank[np.argsort(asins, kind="stable")] = np.arange(sizes.items)
    order = np.argsort(rank[purchases.item], kind="stable")
    tables = [np.array(table, dtype=object) for table in (helpful, bodies, sentences, overall, summaries)]
    names, days = np.array(names, dtype=object), np.array(days, dtype=object)
    line = (b'{"reviewerID": "%b", "asin": "%b", "reviewerName": "%b", "helpful": %b, "reviewText": "%b %b", '
            b'"overall": %b, "summary": "%b", %b}\n')
    for start in range(0, sizes.reviews, _LINES_AT_ONCE):
        at = order[start:start + _LINES_AT_ONCE]
        user = purchases.user[at]
        columns = [reviewers[user], asins[purchases.item[at]], names[name_of_user[user]]]
        columns += [table[random.randint(len(table), size=len(at))] for table in tables]
        columns.append(days[purchases.day[at] - _FIRST_DAY])
        yield [line % row for row in zip(*[column.tolist() for column in columns])]


def _review_time(day):
    """Returns the day as Amazon writes it, "01 1, 2011", bytes."""
    date = time.gmtime(day * _SECONDS_PER_DAY)
    return b"%02d %d, %d" % (date.tm_mon, date.tm_mday, date.tm_year)


def _meta_lines(random, sizes, purchases, asins):
    """Yields the meta file, some thousand lines at a time, as lists of bytes; Python literals, in random order."""
    words = _Words(random)
    titles = words.phrases(_TITLES, 8000)
    descriptions = words.phrases(_DESCRIPTIONS, 1200)
    paths = _category_paths(sizes.categories)
    unreviewed = purchases.category[random.randint(sizes.items, size=sizes.products - sizes.items)]
    category = np.concatenate([purchases.category, unreviewed])
    order = random.permutation(sizes.products)
    for start in range(0, sizes.products, _LINES_AT_ONCE):
        at = order[start:start + _LINES_AT_ONCE]
        columns = [asins[at], category[at]] + [random.randint(bound, size=len(at)) for bound in (
            len(titles), len(descriptions), len(descriptions), 30000, sizes.categories, 100)]
        lines = []
        for asin, leaf, title, description, more, cents, other, chance in zip(*[column.tolist() for column in columns]):
            product = {"asin": asin.decode()}
            if chance % 10:
                product["description"] = "%s %s" % (descriptions[description], descriptions[more])
            product["title"] = titles[title]
            if chance % 4:
                product["price"] = cents / 100
            product["imUrl"] = "http://images.example.com/images/I/%s.jpg" % product["asin"]
            product["categories"] = [paths[other], paths[leaf]] if chance < 15 else [paths[leaf]]
            literal = repr(product) if chance % 2 else ascii(product)
            lines.append(literal.encode() + b"\n")
        yield lines


def _category_paths(count):
    """Returns `count` paths from the root of the shop to a leaf of its own name each."""
    paths = [["Electronics", group, "%s %s" % (kind, noun)]
             for kind in _KINDS for group, nouns in _GROUPS for noun in nouns.split("|")]
    if count > len(paths):
        raise ValueError("there are names for %d categories, not for %d" % (len(paths), count))
    return paths[:count]


def write_sample(folder, dataset, sizes, seed):
    """Writes the sample's two raw files into `folder`, and at last sample.json, which says what they are.

    Returns whether it did: not where sample.json says that just these are there already and the files' sizes agree.
    `UserError` where the folder can't be written, or holds raw files from elsewhere.
    """
    recipe = collections.OrderedDict([("dataset", dataset), ("seed", seed), ("recipe", RECIPE)])
    recipe.update(sizes._asdict())
    paths = [os.path.join(folder, name) for name in (REVIEWS_FILE, META_FILE)]
    marker = os.path.join(folder, SAMPLE_FILE)
    written = _read_marker(marker)
    if written is None:
        for path in paths:
            for raw in (path, path + ".gz"):
                if os.path.lexists(raw):
                    raise UserError("%s is there without a %s, so it is not a sample's; move it away, or choose "
                                    "another folder with --output" % (raw, SAMPLE_FILE))
    elif written == dict(recipe, bytes=_file_sizes(paths)):
        return False

    random = np.random.RandomState([seed, 1])  # a stream apart: other words change no purchase
    try:
        with replacing(paths[0]) as reviews, replacing(paths[1]) as meta:
            purchases = make_purchases(sizes, seed)
            asins = _identifiers(random, b"B0", 8, sizes.products)
            for file, lines, count, what in (
                    (reviews, _review_lines(random, sizes, purchases, asins[:sizes.items]), sizes.reviews, "reviews"),
                    (meta, _meta_lines(random, sizes, purchases, asins), sizes.products, "products")):
                with tqdm(total=count, desc=what, unit=" lines", unit_scale=True, disable=None) as progress:
                    for some in lines:
                        file.write(b"".join(some))
                        progress.update(len(some))
            # A run that is killed while the files take their places leaves a mixture, which nothing must vouch for.
            _write_marker(marker, dict(recipe, dataset="unfinished"))
        _write_marker(marker, dict(recipe, bytes=_file_sizes(paths)))
    except OSError as error:
        raise UserError("%s can't be written (%s); free some space, or choose another folder with --output"
                        % (folder, error.strerror or error)) from None
    return True


def _file_sizes(paths):
    """Returns {file name: bytes}, None for a file that is not there."""
    return {os.path.basename(path): os.path.getsize(path) if os.path.isfile(path) else None for path in paths}


def _write_marker(path, content):
    with replacing(path, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def _read_marker(path):
    """Returns what sample.json says, None where there is none; whatever else it may hold is no sample's."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read().decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}


# ---- command line ----------------------------------------------------------------------------------------------------

def main():
    """Writes the sample that the command line asks for."""
    parser = Parser(description="Makes a data set in the format of Amazon's raw files, from a seed.")
    parser.add_argument("size", choices=sorted(SIZES), help="small: 10,000 users, in seconds; full: as many as "
                        "the real Amazon Electronics, 1.7 GB, in about a minute")
    parser.add_argument("--output", metavar="FOLDER",
                        help="folder of the files (default: one in raw_data, named like the sample)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="0 to 4294967295 (default: %(default)s)")
    arguments = parser.parse_args()
    if not 0 <= arguments.seed < 2 ** 32:
        raise UserError("--seed is %d; choose one from 0 to 4294967295" % arguments.seed)

    dataset = "sample_%s" % arguments.size
    if arguments.seed != DEFAULT_SEED:
        dataset += "_seed%d" % arguments.seed
    folder = arguments.output or os.path.join(ROOT, "raw_data", dataset)
    if write_sample(folder, dataset, SIZES[arguments.size], arguments.seed):
        print("wrote %s into %s" % (dataset, folder))
    else:
        print("%s is in %s already; nothing to do" % (dataset, folder))


if __name__ == "__main__":
    run_main(main)
