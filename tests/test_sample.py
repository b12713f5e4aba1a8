"""The generated data set: its counts, its shapes, the interests and styles behind its purchases, and its files."""
import ast
import collections
import hashlib
import json
import os
import time

import numpy as np
import pytest

from tests.helpers import run_script
from utils.data import sample_files
from utils.data.purchases import ITEMS_PER_STYLE, SIZES, STYLES, Sizes, make_purchases
from utils.data.sample_files import META_FILE, RECIPE, REVIEWS_FILE, SAMPLE_FILE, write_sample
from utils.files import ROOT, UserError

TINY = Sizes(users=300, items=160, categories=12, reviews=2600, products=230, text_bytes=150)


# ---- purchases -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def small():
    return make_purchases(SIZES["small"], 1234)


def assert_counts_are_exact(purchases, sizes):
    assert len(purchases.user) == len(purchases.item) == len(purchases.day) == sizes.reviews
    of_user = np.bincount(purchases.user, minlength=sizes.users)
    of_item = np.bincount(purchases.item, minlength=sizes.items)
    of_category = np.bincount(purchases.category, minlength=sizes.categories)
    assert len(of_user) == sizes.users and of_user.min() >= 5
    assert len(of_item) == sizes.items and of_item.min() >= 5
    assert len(of_category) == sizes.categories and of_category.min() >= 1 and of_category.sum() == sizes.items
    assert len(np.unique(purchases.user * sizes.items + purchases.item)) == sizes.reviews, "a user has an item twice"


def test_counts_of_small_are_exact_and_no_purchase_is_repeated(small):
    assert_counts_are_exact(small, SIZES["small"])


@pytest.mark.parametrize("seed", [0, 7, 2 ** 32 - 1])
def test_counts_of_tiny_are_exact_for_any_seed(seed):
    assert_counts_are_exact(make_purchases(TINY, seed), TINY)


def test_full_has_the_counts_of_amazon_electronics():
    sizes = SIZES["full"]
    assert sizes[:5] == (192403, 63001, 801, 1689188, 498196)
    assert_counts_are_exact(make_purchases(sizes, 1234), sizes)


@pytest.mark.parametrize("seed", [1234, 99])
def test_shapes_of_small_are_those_of_real_data(seed):
    purchases = make_purchases(SIZES["small"], seed)

    def shape(of_what):
        counts = np.bincount(of_what)
        return [counts.mean()] + np.percentile(counts, [50, 95, 99, 99.9, 100]).tolist()

    assert shape(purchases.user)[1] == 6 and shape(purchases.item)[1] == 9 and shape(purchases.category)[1] == 7
    np.testing.assert_allclose(shape(purchases.user)[:5], [8.6, 6, 19, 37, 83], rtol=0.1)
    assert 200 <= shape(purchases.user)[5] <= 800
    np.testing.assert_allclose([shape(purchases.item)[k] for k in (0, 3)], [15.6, 107], rtol=0.1)
    assert 500 <= shape(purchases.item)[5] <= 1500
    np.testing.assert_allclose([shape(purchases.category)[k] for k in (0, 3)], [28, 332], rtol=0.1)


def test_a_tail_longer_than_the_counts_allow_is_refused():
    with pytest.raises(ValueError, match="can't add up to 100"):
        make_purchases(TINY._replace(reviews=100), 1234)


def test_the_same_seed_gives_the_same_purchases_and_another_seed_others():
    first, again, other = (make_purchases(TINY, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(first.item, other.item)


def test_days_of_a_user_are_mostly_distinct(small):
    of_user = small.user * 100000 + small.day
    assert len(np.unique(of_user)) > 0.95 * len(of_user)


# ---- interests and styles --------------------------------------------------------------------------------------------

def categories_bought(purchases):
    return purchases.user * SIZES["small"].categories + purchases.category[purchases.item]


def styles_bought(purchases):
    return categories_bought(purchases) * STYLES + purchases.style[purchases.item]


def interests(purchases):
    return purchases.interest_user * SIZES["small"].categories + purchases.interest_category


def test_purchases_come_from_a_few_interests(small):
    assert np.isin(categories_bought(small), interests(small)).mean() > 0.85
    assert 2 <= np.bincount(small.interest_user).mean() <= 3
    assert len(np.unique(interests(small))) > 0.99 * len(interests(small)), "interests of a user share a category"
    long = np.bincount(small.user) > 50
    assert 6 <= np.bincount(small.interest_user)[long].mean() <= 12


def test_interests_interleave_in_time(small):
    order = np.lexsort((small.day, small.user))
    user, category = small.user[order], small.category[small.item][order]
    follows = user[1:] == user[:-1]
    same = (category[1:] == category[:-1])[follows].mean()
    shuffled = np.lexsort((np.random.RandomState(1).random_sample(len(user)), small.user))
    at_random = (small.category[small.item][shuffled][1:] == small.category[small.item][shuffled][:-1])[follows].mean()
    assert abs(same - at_random) < 0.01


def test_purchases_of_an_interest_agree_in_style_far_above_chance(small):
    sold = np.zeros((SIZES["small"].categories, STYLES))
    np.add.at(sold, (small.category[small.item], small.style[small.item]), 1)
    at_random = ((sold / sold.sum(axis=1, keepdims=True)) ** 2).sum(axis=1)
    several_styles = (sold > 0).sum(axis=1) > 1

    order = np.argsort(categories_bought(small), kind="stable")
    keys, styles = categories_bought(small)[order], small.style[small.item][order]
    category = keys % SIZES["small"].categories
    neighbors = (keys[1:] == keys[:-1]) & several_styles[category[1:]]
    agree = (styles[1:] == styles[:-1])[neighbors].mean()
    chance = at_random[category[1:]][neighbors].mean()
    assert neighbors.sum() > 10000
    assert chance < 0.45 and agree > chance + 0.3


def test_a_users_styles_in_different_interests_are_independent(small):
    with_all_styles = np.bincount(small.category) >= STYLES * ITEMS_PER_STYLE
    interest = np.flatnonzero(with_all_styles[small.interest_category])
    interest = interest[np.argsort(small.interest_user[interest], kind="stable")]
    user, style = small.interest_user[interest], small.interest_style[interest]
    pairs = user[1:] == user[:-1]
    agree = (style[1:] == style[:-1])[pairs].mean()
    assert abs(agree - 1 / STYLES) < 0.04


class Contest:
    """Every user's last purchase against an item that he does not own, drawn uniformly."""

    def __init__(self, purchases, sizes):
        order = np.lexsort((purchases.day, purchases.user))
        self.last = order[np.flatnonzero(np.diff(np.append(purchases.user[order], sizes.users)))]
        self.before = np.setdiff1d(np.arange(sizes.reviews), self.last)
        self.positive = purchases.item[self.last]
        owned = set(zip(purchases.user.tolist(), purchases.item.tolist()))
        random = np.random.RandomState(5)
        self.negative = np.empty(sizes.users, dtype=np.int64)
        for user in range(sizes.users):
            negative = random.randint(sizes.items)
            while (user, negative) in owned:
                negative = random.randint(sizes.items)
            self.negative[user] = negative

    def gauc(self, score):
        """GAUC of `score(users, items)`; here a tie counts half, the worst case for a bound from above."""
        users = np.arange(len(self.positive))
        positive, negative = score(users, self.positive), score(users, self.negative)
        return (positive > negative).mean() + (positive == negative).mean() / 2


def test_popularity_alone_does_not_find_the_last_purchase_but_knowing_styles_does(small):
    sizes = SIZES["small"]
    contest = Contest(small, sizes)
    popularity = np.bincount(small.item[contest.before], minlength=sizes.items)
    in_category = collections.Counter(categories_bought(small)[contest.before].tolist())
    in_style = collections.Counter(styles_bought(small)[contest.before].tolist())

    def by_category(users, items):
        keys = users * sizes.categories + small.category[items]
        return np.array([in_category[key] > 0 for key in keys.tolist()]) + popularity[items] / 1e6

    def by_style(users, items):
        keys = (users * sizes.categories + small.category[items]) * STYLES + small.style[items]
        return by_category(users, items) + np.array([in_style[key] > 0 for key in keys.tolist()])

    assert contest.gauc(lambda users, items: popularity[items]) < 0.72
    assert contest.gauc(by_category) > 0.9
    assert contest.gauc(by_style) > contest.gauc(by_category) + 0.01


# ---- files -----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tiny"))
    assert write_sample(folder, "sample_tiny", TINY, 1234)
    return folder


@pytest.fixture(scope="module")
def reviews(folder):
    with open(os.path.join(folder, REVIEWS_FILE), encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def meta(folder):
    with open(os.path.join(folder, META_FILE), encoding="utf-8", newline="\n") as file:
        return [ast.literal_eval(line) for line in file]


def contents(folder):
    return {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))}


def test_review_lines_are_amazons(reviews):
    keys = "reviewerID asin reviewerName helpful reviewText overall summary unixReviewTime reviewTime".split()
    for review in reviews:
        assert list(review) == keys
        assert len(review["reviewerID"]) == 14 and review["reviewerID"][0] == "A" and review["reviewerID"].isalnum()
        assert len(review["asin"]) == 10 and review["asin"][:2] == "B0" and review["asin"].isalnum()
        assert review["unixReviewTime"] % 86400 == 0 and review["overall"] in (1.0, 2.0, 3.0, 4.0, 5.0)
        assert 0 <= review["helpful"][0] <= review["helpful"][1]
        date = time.gmtime(review["unixReviewTime"])
        assert review["reviewTime"] == "%02d %d, %d" % (date.tm_mon, date.tm_mday, date.tm_year)


def test_reviews_are_grouped_by_ascending_asin(reviews):
    asins = [review["asin"] for review in reviews]
    assert asins == sorted(asins)


def test_files_have_the_counts_that_were_asked_for(reviews, meta):
    assert len(reviews) == TINY.reviews and len(meta) == TINY.products
    assert len({review["reviewerID"] for review in reviews}) == TINY.users
    reviewed, products = {review["asin"] for review in reviews}, {product["asin"] for product in meta}
    assert len(reviewed) == TINY.items and len(products) == TINY.products and reviewed < products
    assert len({product["categories"][-1][-1] for product in meta if product["asin"] in reviewed}) == TINY.categories


def test_files_hold_the_purchases(reviews, meta):
    purchases = make_purchases(TINY, 1234)

    def by_day(users, items, days, categories):
        """Rows of the whole set, the same whatever the names of users and items."""
        of_user, of_item = collections.Counter(users), collections.Counter(items)
        names = collections.Counter(categories)
        return sorted((day, of_user[user], of_item[item], names[category])
                      for user, item, day, category in zip(users, items, days, categories))

    category_of = {product["asin"]: product["categories"][-1][-1] for product in meta}
    read = by_day([review["reviewerID"] for review in reviews], [review["asin"] for review in reviews],
                  [review["unixReviewTime"] // 86400 for review in reviews],
                  [category_of[review["asin"]] for review in reviews])
    assert read == by_day(purchases.user.tolist(), purchases.item.tolist(), purchases.day.tolist(),
                          purchases.category[purchases.item].tolist())


def test_meta_lines_are_amazons_and_some_have_two_paths(meta):
    for product in meta:
        assert {"asin", "title", "categories", "imUrl"} <= set(product) <= {
            "asin", "title", "categories", "imUrl", "description", "price"}
        for path in product["categories"]:
            assert path[0] == "Electronics" and len(path) == 3
    paths = collections.Counter(len(product["categories"]) for product in meta)
    assert set(paths) == {1, 2} and paths[2] > 0.05 * len(meta)
    assert len({"price" in product for product in meta}) == len({"description" in product for product in meta}) == 2


def test_unreviewed_products_stand_among_the_reviewed(reviews, meta):
    reviewed = {review["asin"] for review in reviews}
    flags = [product["asin"] in reviewed for product in meta]
    assert sum(a != b for a, b in zip(flags, flags[1:])) > 0.2 * len(flags)
    assert [product["asin"] for product in meta] != sorted(product["asin"] for product in meta)


def test_texts_have_what_is_hard_to_read(folder, reviews, meta):
    for text in (" ".join(review["reviewText"] for review in reviews), " ".join(product["title"] for product in meta)):
        assert '"' in text and "'" in text and "\\" in text
        assert any(ord(letter) > 255 for letter in text)
    assert "\n" in " ".join(review["reviewText"] for review in reviews)
    assert any('"' in product["title"] and "'" in product["title"] for product in meta)
    raw = contents(folder)
    for name, escape in ((REVIEWS_FILE, b"\\u"), (META_FILE, b"\\x")):
        assert escape in raw[name] and any(byte > 127 for byte in raw[name]), "letters beyond ASCII, escaped and not"


@pytest.mark.parametrize("text_bytes", [150, SIZES["full"].text_bytes])
def test_texts_have_about_the_size_that_was_asked_for(tmp_path, text_bytes):
    write_sample(str(tmp_path), "sample_tiny", TINY._replace(text_bytes=text_bytes), 1234)
    with open(str(tmp_path / REVIEWS_FILE), encoding="utf-8") as file:
        lengths = [len(json.loads(line)["reviewText"].encode()) for line in file]
    assert 0.85 * text_bytes < np.mean(lengths) < 1.15 * text_bytes
    assert max(lengths) > 4 * np.median(lengths)


def test_sample_json_says_what_the_files_are(folder):
    with open(os.path.join(folder, SAMPLE_FILE)) as file:
        sample = json.load(file)
    sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in (REVIEWS_FILE, META_FILE)}
    sums = {name.split("_")[0]: hashlib.md5(contents(folder)[name]).hexdigest() for name in (REVIEWS_FILE, META_FILE)}
    assert sample == dict(TINY._asdict(), dataset="sample_tiny", seed=1234, recipe=RECIPE, bytes=sizes, md5=sums)


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    write_sample(str(tmp_path), "sample_tiny", TINY, 1234)
    assert contents(str(tmp_path)) == contents(folder)


def test_small_has_not_drifted(tmp_path):
    """Whoever changes purchases or lines raises RECIPE and notes the new digests; elsewhere a change is a defect."""
    write_sample(str(tmp_path), "sample_small", SIZES["small"], 1234)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents(str(tmp_path)).items()}
    assert (RECIPE, digests[REVIEWS_FILE], digests[META_FILE]) == (
        1, "92aa0c03d422d6998bab6990627b32d0151f2ac4cc5a3f52012e5964505e97e0",
        "e2ee10b5d28d29c7d6460b26a3376e1b026e0bedff529aaa3136f62b14737e6e")
    assert sum(os.path.getsize(str(tmp_path / name)) for name in (REVIEWS_FILE, META_FILE)) < 50e6

# ---- running it ------------------------------------------------------------------------------------------------------

def test_a_sample_that_is_there_is_left_alone(tmp_path):
    folder = str(tmp_path)
    assert write_sample(folder, "sample_tiny", TINY, 1)
    for name in os.listdir(folder):
        os.utime(os.path.join(folder, name), (1, 1))
    assert not write_sample(folder, "sample_tiny", TINY, 1)
    assert {os.path.getmtime(os.path.join(folder, name)) for name in os.listdir(folder)} == {1}


@pytest.mark.parametrize("damage", ["file cut", "file gone", "sample.json damaged", "another recipe", "another seed"])
def test_a_sample_that_is_not_whole_or_another_is_made_anew(folder, tmp_path, damage):
    write_sample(str(tmp_path), "sample_tiny", TINY, 2 if damage == "another seed" else 1234)
    if damage == "file cut":
        (tmp_path / META_FILE).write_bytes((tmp_path / META_FILE).read_bytes()[:-1])
    elif damage == "file gone":
        (tmp_path / REVIEWS_FILE).unlink()
    elif damage == "sample.json damaged":
        (tmp_path / SAMPLE_FILE).write_text("{")
    elif damage == "another recipe":
        sample = json.loads((tmp_path / SAMPLE_FILE).read_text())
        (tmp_path / SAMPLE_FILE).write_text(json.dumps(dict(sample, recipe=0)))
    assert write_sample(str(tmp_path), "sample_tiny", TINY, 1234)
    assert contents(str(tmp_path)) == contents(folder)


def test_a_run_that_fails_leaves_the_sample_before_it(tmp_path, monkeypatch):
    write_sample(str(tmp_path), "sample_tiny", TINY, 1)
    before = contents(str(tmp_path))

    def full_disk(*_):
        yield [b"{}\n"]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_files, "_meta_lines", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        write_sample(str(tmp_path), "sample_tiny", TINY, 2)
    assert contents(str(tmp_path)) == before


def test_a_run_that_is_killed_while_files_take_their_places_is_not_believed(folder, tmp_path, monkeypatch):
    replace = os.replace

    def killed(source, target):
        if os.path.basename(target) == REVIEWS_FILE:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_sample(str(tmp_path), "sample_tiny", TINY, 1234)
    assert json.loads((tmp_path / SAMPLE_FILE).read_text())["dataset"] == "unfinished"
    assert write_sample(str(tmp_path), "sample_tiny", TINY, 1234)
    assert contents(str(tmp_path)) == contents(folder)


@pytest.mark.parametrize("name", [REVIEWS_FILE, META_FILE + ".gz"])
def test_raw_files_from_elsewhere_are_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("real data")
    with pytest.raises(UserError, match="it is not a sample's"):
        write_sample(str(tmp_path), "sample_tiny", TINY, 1)
    assert contents(str(tmp_path)) == {name: b"real data"}


@pytest.mark.parametrize("cwd, script", [(".", "utils/make_sample.py"), ("utils", "make_sample.py")])
def test_the_script_runs_from_the_root_and_from_its_folder(tmp_path, cwd, script):
    output = tmp_path / "new" / "folder"
    first, again = (run_script(script, "small", "--output", output, "--seed", "7", cwd=os.path.join(ROOT, cwd))
                    for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert json.loads((output / SAMPLE_FILE).read_text())["dataset"] == "sample_small_seed7"
    assert again.returncode == 0 and "nothing to do" in again.stdout


@pytest.mark.parametrize("arguments", [
    [], ["medium"], ["small", "--seed", "x"], ["small", "--seed", "-1"], ["small", "--seed", "4294967296"],
    ["small", "--output", os.path.join(os.path.abspath(__file__), "folder")],
])
def test_bad_input_ends_with_one_line(arguments):
    ended = run_script("utils/make_sample.py", *arguments, cwd=ROOT)
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if "lines/s" not in line]  # less the progress bar
    assert len(lines) == 1 and lines[0].startswith("error: ")
