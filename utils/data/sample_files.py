"""The raw files of the generated data set: words and phrases, lines of reviews and products, and sample.json."""
import hashlib
import json
import os
import re
import time

import numpy as np
from tqdm import tqdm

from utils.data.purchases import make_purchases, spread
from utils.data.raw_files import read_mark, write_mark
from utils.files import UserError, replacing

REVIEWS_FILE, META_FILE, SAMPLE_FILE = "reviews_Electronics_5.json", "meta_Electronics.json", "sample.json"
RECIPE = 1  # raise it with every change of purchases or lines, so that samples made before are made anew
_LINES_AT_ONCE = 20000

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
    "initial": list("ABCDEFGHJKLM")}

# Every list has phrases that are hard to read: quotes of both kinds, backslashes, ends of lines, letters beyond ASCII.
_SENTENCES = (
    "The {part} is {good} and the {thing} does what it should.",
    "I bought this {thing} for {who} and it has been {good} ever since.", "After {time} the {part} became {bad}.",
    "It's a {good} {thing}, but the {part} feels {bad}.", "{who} said \"it's {good}\" and I agree.",
    "We use it in the {place} nearly every day.",
    "Compared with the {brand} {thing} this one is {good}, if a little {bad}.", "Pros: {good}, {good}\nCons: {bad}\n",
    "The driver lives in C:\\{thing}\\{part} and installs in {number} minutes.",
    "Fits my {number}\" screen; the {part} isn't {bad} at all.",
    "Très {good}! It cost €{number} at the café next door…", "No problems in {time}, and {who} wants one too ☺",
    "Don't expect a {good} {part} at this price {{number} dollars}.",
    "I returned the first {thing} after {time}: the {part} was {bad}.", "Would I buy it again? Yes.",
    "Works in the {place} at {number}°, with the {part} wide open.\tFive stars™.")
_SUMMARIES = (
    "{good} {thing}", "Not so {good}", "{who} loves it!", "\"{good}\" they said", "It's {bad}...", "Great",
    "{number} stars if I could", "The {part} is {bad}", "{brand} does it again", "très {good}", "Buy \\ don't buy?")
_NAMES = ("{first}", "{first} {initial}.", "{first} \"{good} {thing}\"", "{initial}. O'{first}", "{first} & {first}",
          "{first} the {good}")
_TITLES = (
    "{brand} {good} {thing}", "{brand} {number}\" {thing} with {part}", "{brand} Kid's {number}\" {thing}",
    "{number}' {thing} (Black)", "{brand} 5' 11\" {thing} \\ {part}", "{brand} {thing} – {good} & {good}",
    "\"{good}\" {thing} by {brand}", "{brand} {thing} [{number}-pack]")
_DESCRIPTIONS = (
    "This {good} {thing} comes with a {good} {part}.", "The manufacturer's {number}\" {thing} for the {place}.",
    "Includes {number} spare {part}s.", "A {part} that won't get {bad}, even after {time}.",
    "Works with every {brand} {thing}.\nAsk for the \"{good}\" model.", "Très {good}, for up to {number}°.")

# A category is "<kind> <noun>", a leaf of the shop; each noun belongs to a group.
_KINDS = (
    "Portable|Wireless|Car|Home|Office|Travel|Digital|Compact|Studio|Outdoor|Gaming|Mini|Replacement|Professional|"
    "Kids'|Waterproof|Wall|Desktop|Universal|Bluetooth|Marine|Vintage|Smart|Solar|USB|HDMI|Optical|Security|Fitness|"
    "DJ's|Women's").split("|")
_GROUPS = (
    ("Camera & Photo", "Lenses|Tripods|Flashes|Binoculars|Camera Bags"),
    ("Computers & Accessories", "Keyboards|Mice|Monitors|Hard Drives|Routers|Laptops"),
    ("Portable Audio & Video", "Headphones|MP3 Players|Radios|Recorders"),
    ("Accessories & Supplies", "Cables|Batteries|Chargers|Mounts|Cases, Covers"),
    ("Television & Video", "Antennas|Projectors|DVD Players"),
    ("Car & Vehicle Electronics", "Speakers|Receivers|GPS Units"),
    ("eBook Readers", "Readers"))


def write_sample(folder, dataset, sizes, seed):
    """Writes the sample's two raw files into `folder`, and at last sample.json, which describes them.

    Returns whether it did: not where sample.json says that just these are there already and the files' sizes agree.
    `UserError` where the folder can't be written, or holds raw files from elsewhere.
    """
    recipe = dict(dataset=dataset, seed=seed, recipe=RECIPE, **sizes._asdict())
    paths = [os.path.join(folder, name) for name in (REVIEWS_FILE, META_FILE)]
    mark = os.path.join(folder, SAMPLE_FILE)
    written = read_mark(mark)
    if written is None:
        for path in (path + suffix for path in paths for suffix in ("", ".gz")):
            if os.path.lexists(path):
                raise UserError("%s is there without a %s, so it is not a sample's; move it away, or choose another "
                                "folder with --output" % (path, SAMPLE_FILE))
    elif "md5" in written and written == dict(recipe, bytes=_file_sizes(paths), md5=written["md5"]):
        return False

    random = np.random.RandomState([seed, 1])  # a stream apart: other words change no purchase
    with replacing(paths[0]) as reviews, replacing(paths[1]) as meta:
        purchases = make_purchases(sizes, seed)
        asins, sums = _identifiers(random, b"B0", 8, sizes.products), {}
        for kind, file, batches, count, unit in (
                ("reviews", reviews, _review_lines(random, sizes, purchases, asins[:sizes.items]), sizes.reviews,
                 "reviews"),
                ("meta", meta, _meta_lines(random, sizes, purchases, asins), sizes.products, "products")):
            digest = hashlib.md5()
            with tqdm(total=count, desc=unit, unit=" lines", unit_scale=True, disable=None) as progress:
                for lines in batches:
                    text = b"".join(lines)
                    file.write(text)
                    digest.update(text)
                    progress.update(len(lines))
            sums[kind] = digest.hexdigest()
        # A run that is killed while the files take their places leaves a mixture, which nothing must vouch for.
        write_mark(mark, dict(recipe, dataset="unfinished"))
    write_mark(mark, dict(recipe, bytes=_file_sizes(paths), md5=sums))
    return True


def _file_sizes(paths):
    """Returns {file name: bytes}, None for a file that is not there."""
    return {os.path.basename(path): os.path.getsize(path) if os.path.isfile(path) else None for path in paths}


def _review_lines(random, sizes, purchases, asins):
    """Yields the review file in lists of some thousand lines (bytes); grouped by asin, ascending."""
    sentences = _json_inside(_phrases(random, _SENTENCES, 1600))
    # A text is a body and a closing sentence. Bodies have lengths like real ones: many short, a few very long.
    mean = sum(map(len, sentences)) / len(sentences) + 1
    body_bytes = max(2 * mean, sizes.text_bytes - mean)
    lengths = spread(5000, int(5000 * body_bytes), 20, int(0.6 * body_bytes))
    bodies = np.maximum(1, np.floor(lengths / mean + 0.5)).astype(np.int64)
    drawn = np.split(random.randint(len(sentences), size=bodies.sum()), np.cumsum(bodies)[:-1])
    bodies = [b" ".join([sentences[index] for index in indices]) for indices in drawn]
    summaries = _json_inside(_phrases(random, _SUMMARIES, 1100))
    names = _json_inside(_phrases(random, _NAMES, 3000))
    helpful = [b"[%d, %d]" % (min(yes, votes), votes) for votes in (0, 0, 0, 0, 1, 2, 3, 8, 40)
               for yes in (0, 1, 2, 7, 35)]
    overall = [b"%d.0" % stars for stars, share in ((5, 12), (4, 4), (3, 2), (2, 1), (1, 1)) for _ in range(share)]
    first_day = int(purchases.day.min())
    times = list(map(_time_fields, range(first_day, int(purchases.day.max()) + 1)))

    reviewers = _identifiers(random, b"A", 13, sizes.users)
    name_of_user = random.randint(len(names), size=sizes.users)
    order = np.argsort(np.argsort(np.argsort(asins))[purchases.item], kind="stable")
    names, times, *tables = [np.array(table, dtype=object) for table in
                             (names, times, helpful, bodies, sentences, overall, summaries)]
    line = (b'{"reviewerID": "%b", "asin": "%b", "reviewerName": "%b", "helpful": %b, "reviewText": "%b %b", '
            b'"overall": %b, "summary": "%b", %b}\n')
    for start in range(0, sizes.reviews, _LINES_AT_ONCE):
        at = order[start:start + _LINES_AT_ONCE]
        user = purchases.user[at]
        columns = [reviewers[user], asins[purchases.item[at]], names[name_of_user[user]]]
        columns += [table[random.randint(len(table), size=len(at))] for table in tables]
        columns.append(times[purchases.day[at] - first_day])
        yield [line % row for row in zip(*[column.tolist() for column in columns])]


def _time_fields(day):
    """Returns the fields of a day as Amazon writes them: b'"unixReviewTime": 1293840000, "reviewTime": "01 1, 2011"'"""
    seconds = day * 86400
    date = time.gmtime(seconds)
    return b'"unixReviewTime": %d, "reviewTime": "%02d %d, %d"' % (seconds, date.tm_mon, date.tm_mday, date.tm_year)


def _meta_lines(random, sizes, purchases, asins):
    """Yields the meta file in lists of some thousand lines (bytes); Python literals, in random order."""
    titles = _phrases(random, _TITLES, 8000)
    descriptions = _phrases(random, _DESCRIPTIONS, 1200)
    paths = [["Electronics", group, "%s %s" % (kind, noun)]
             for kind in _KINDS for group, nouns in _GROUPS for noun in nouns.split("|")]
    unreviewed = purchases.category[random.randint(sizes.items, size=sizes.products - sizes.items)]
    category = np.concatenate([purchases.category, unreviewed])
    order = random.permutation(sizes.products)
    bounds = (len(titles), len(descriptions), len(descriptions), 30000, sizes.categories, 100)
    for start in range(0, sizes.products, _LINES_AT_ONCE):
        at = order[start:start + _LINES_AT_ONCE]
        columns = [asins[at], category[at]] + [random.randint(bound, size=len(at)) for bound in bounds]
        lines = []
        for asin, leaf, title, description, more, cents, other, chance in zip(*[column.tolist() for column in columns]):
            product = {"asin": asin.decode(), "description": "%s %s" % (descriptions[description], descriptions[more]),
                       "title": titles[title], "price": cents / 100,
                       "imUrl": "http://images.example.com/images/I/%s.jpg" % asin.decode(),
                       "categories": [paths[other], paths[leaf]] if chance < 15 else [paths[leaf]]}
            if chance % 10 == 0:
                del product["description"]
            if chance % 4 == 0:
                del product["price"]
            lines.append((repr(product) if chance % 2 else ascii(product)).encode() + b"\n")
        yield lines


def _phrases(random, patterns, count):
    """Returns `count` phrases: the patterns in turn, each {field} a word drawn for it, a capital at the start."""
    def word(field):
        words = _WORDS[field.group(1)]
        return words[random.randint(len(words))]

    phrases = [re.sub(r"\{(\w+)\}", word, patterns[index % len(patterns)]) for index in range(count)]
    return [phrase[:1].upper() + phrase[1:] for phrase in phrases]


def _json_inside(phrases):
    """Returns `phrases` as they stand between the quotes of JSON, bytes; every second one in ASCII alone."""
    return [json.dumps(phrase, ensure_ascii=index % 2 == 0)[1:-1].encode() for index, phrase in enumerate(phrases)]


def _identifiers(random, prefix, letters, count):
    """Returns `count` different identifiers, bytes: `prefix`, then `letters` of 0-9 and A-Z."""
    alphabet = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)
    distinct = random.permutation(36 ** 4)[:count]
    digits = random.randint(36, size=(count, letters))
    digits[:, -4:] = distinct[:, None] // 36 ** np.arange(4) % 36
    return np.char.add(prefix, alphabet[digits].view("S%d" % letters)[:, 0])
