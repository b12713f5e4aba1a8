"""dataset.pkl holds the examples, negatives and order of the original's recipe, and is read back whole or refused."""
import json
import os
import pickle
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain_prepare import examples
from tests.helpers import golden, random_dataset, run_script
from utils.data.pickles import dump_parts
from utils.dataset import Dataset, build_dataset, build_sets, fingerprint, read_dataset, write_dataset
from utils.files import UserError

# Users with one purchase, two, three and more; user 3 owns eight of the ten items.
PURCHASES = {0: [5], 1: [2, 7], 2: [3, 1, 8], 3: [0, 1, 2, 3, 4, 5, 6, 7], 4: [9, 2, 4, 6, 1], 5: [8, 0, 9, 3]}
ITEM_COUNT = 10


def recipe(purchases, item_count):
    """The examples of {user: items}, by a plain transcription of the original's way."""
    return examples(sorted(purchases.items()), item_count)


def build(purchases, item_count):
    users = [user for user, items in sorted(purchases.items()) for _ in items]
    items = [item for _, items in sorted(purchases.items()) for item in items]
    return build_sets(users, items, item_count)


def as_tuples(train):
    return [(user, train.history_items[offset:offset + length].tolist(), item, label)
            for user, offset, length, item, label in zip(*[column.tolist() for column in train[1:]])]


def as_pairs(test):
    return [(user, test.history_items[offset:offset + length].tolist(), (positive, negative))
            for user, offset, length, positive, negative in zip(*[column.tolist() for column in test[1:]])]


def small_dataset():
    train, test = build(PURCHASES, ITEM_COUNT)
    return Dataset(train, test, np.arange(ITEM_COUNT, dtype=np.int32) % 3, 6, ITEM_COUNT, 3, "small")


def assert_same(left, right):
    assert left[3:] == right[3:]
    np.testing.assert_array_equal(left.cate_list, right.cate_list)
    assert as_tuples(left.train) == as_tuples(right.train)
    assert as_pairs(left.test) == as_pairs(right.test)


def test_examples_negatives_and_order_are_the_recipes():
    train_set, test_set = recipe(PURCHASES, ITEM_COUNT)
    train, test = build(PURCHASES, ITEM_COUNT)
    assert as_tuples(train) == train_set
    assert as_pairs(test) == test_set


def test_examples_of_many_random_users_are_the_recipes():
    generator = np.random.RandomState(0)
    purchases = {user: generator.permutation(40)[:generator.randint(1, 30)].tolist() for user in range(200)}
    train_set, test_set = recipe(purchases, 40)
    train, test = build(purchases, 40)
    assert as_tuples(train) == train_set
    assert as_pairs(test) == test_set


@settings(deadline=None)
@given(st.integers(2, 40), st.data())
def test_examples_are_the_recipes_however_much_the_users_own(item_count, data):
    shares = data.draw(st.lists(st.integers(1, item_count - 1), min_size=1, max_size=8), "items of each user")
    order = random.Random(data.draw(st.integers(0, 99), "seed of the purchases"))
    purchases = {user: order.sample(range(item_count), share) for user, share in enumerate(shares)}
    train_set, test_set = recipe(purchases, item_count)
    train, test = build(purchases, item_count)
    assert (as_tuples(train), as_pairs(test)) == (train_set, test_set)


@pytest.mark.parametrize("item_count, users", [(2, 5), (63, 5), (64, 5), (65, 5), (1000, 1)])
def test_examples_of_users_who_own_all_but_one_item_are_the_recipes(item_count, users):
    purchases = {user: [(user + item) % item_count for item in range(item_count - 1)] for user in range(users)}
    train_set, test_set = recipe(purchases, item_count)
    train, test = build(purchases, item_count)
    assert (as_tuples(train), as_pairs(test)) == (train_set, test_set)


def test_an_item_bought_twice_counts_once_among_what_the_user_owns():
    purchases = {0: [1, 1, 0, 1, 0, 0], 1: [2, 2, 2]}
    train_set, test_set = recipe(purchases, 3)
    train, test = build(purchases, 3)
    assert (as_tuples(train), as_pairs(test)) == (train_set, test_set)


def test_memory_grows_with_reviews_not_with_histories():
    train, _ = build({user: list(range(100)) for user in range(20)}, 200)
    assert len(train.history_items) == 2000
    assert train.lengths.sum() > 40 * len(train.history_items)


def test_a_user_who_owns_every_item_is_an_error_not_an_endless_loop():
    with pytest.raises(UserError, match="no negative can be drawn"):
        build({0: [1, 2], 1: [0, 1, 2]}, 3)
    with pytest.raises(UserError, match="no negative can be drawn"):
        build({0: [0] * 50}, 1)


def test_what_is_written_is_read_back(tmp_path):
    path = str(tmp_path / "dataset.pkl")
    write_dataset(path, small_dataset())
    assert_same(read_dataset(path), small_dataset())


def test_the_originals_pickles_are_read(tmp_path):
    path = str(tmp_path / "dataset.pkl")
    train_set, test_set = recipe(PURCHASES, ITEM_COUNT)
    with open(path, "wb") as file:
        for part in (train_set, test_set, np.arange(ITEM_COUNT, dtype=np.int32) % 3, (6, ITEM_COUNT, 3)):
            pickle.dump(part, file, pickle.HIGHEST_PROTOCOL if pickle.HIGHEST_PROTOCOL < 5 else 2)
    assert_same(read_dataset(path), small_dataset()._replace(name="dataset_pkl"))


def changed(**columns):
    """The small data set with columns of its training set replaced."""
    dataset = small_dataset()
    return dataset._replace(train=dataset.train._replace(**columns))


TRAIN = small_dataset().train
DAMAGES = {
    "items are not all in 0 .. 9": lambda: changed(history_items=TRAIN.history_items + 3),
    "candidates are not all in 0 .. 9": lambda: changed(items=TRAIN.items - 5),
    "users are not all in 0 .. 5": lambda: changed(users=TRAIN.users + 1),
    "labels are not all in 0 .. 1": lambda: changed(labels=TRAIN.labels + 1),
    "history lengths are not all in 1 .. 23": lambda: changed(lengths=TRAIN.lengths * 0),
    "history offsets are not all in 0 .. 22": lambda: changed(offsets=TRAIN.offsets - 30),
    "a history goes past the end of the items": lambda: changed(offsets=TRAIN.offsets * 0 + 22),
    "its columns differ in length": lambda: changed(labels=TRAIN.labels[1:]),
    "labels are not a column of integers": lambda: changed(labels=TRAIN.labels * 0.5),
    "it has no examples": lambda: changed(**{name: getattr(TRAIN, name)[:0] for name in TRAIN._fields[1:]}),
    "7 categories for 10 items": lambda: small_dataset()._replace(cate_list=small_dataset().cate_list[:7]),
    "categories are not all in 0 .. 2": lambda: small_dataset()._replace(cate_list=small_dataset().cate_list + 1),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_data_set_that_is_not_consistent_is_refused(tmp_path, reason):
    path = str(tmp_path / "dataset.pkl")
    write_dataset(path, DAMAGES[reason]())
    with pytest.raises(UserError) as error:
        read_dataset(path)
    assert str(error.value) == ("%s does not hold a data set (%s); run python build_dataset.py to make it"
                                % (path, reason))


def test_the_originals_examples_of_other_fields_are_refused(tmp_path):
    for train in ([(0, [1], 1)], [(0, [1], 1, 1, 1)], [[0, [1], 1, 1]], []):
        dump_parts(str(tmp_path / "dataset.pkl"), [train, [(0, [1], (1, 2))], [0, 0, 0], (1, 3, 1)])
        with pytest.raises(UserError, match="does not hold a data set"):
            read_dataset(str(tmp_path / "dataset.pkl"))


@pytest.mark.parametrize("change, reason", [
    ({"user_count": 10 ** 12}, "its counts are out of range"), ({"cate_count": -1}, "its counts are out of range"),
    ({"item_count": 1 << 2000}, "its counts are out of range"),
    ({"user_count": "6" * 1000}, "object cannot be interpreted as")])
def test_counts_that_no_ids_can_have_are_refused(tmp_path, change, reason):
    write_dataset(str(tmp_path / "dataset.pkl"), small_dataset()._replace(**change))
    with pytest.raises(UserError, match=reason) as error:
        read_dataset(str(tmp_path / "dataset.pkl"))
    assert len(str(error.value)) < 1000


def test_building_what_is_there_is_told_by_the_data_whatever_the_times(tmp_path, monkeypatch, capsys):
    remap, output = str(tmp_path / "remap.pkl"), str(tmp_path / "dataset.pkl")

    def build(name, times):
        reviews = pd.DataFrame({"reviewerID": [0, 0, 0], "asin": [2, 0, 1], "unixReviewTime": [1, 2, 3]})
        source = {"dataset": "tiny", "md5": {"reviews": name}}
        dump_parts(remap, [reviews, np.zeros(4, np.int32), (1, 4, 1, 3), (list("abcd"), ["c"], ["u"]), source])
        if os.path.exists(output):
            os.utime(output, times)
        monkeypatch.setattr("sys.argv", ["build_dataset.py", "--remap", remap, "--output", output, "--if_needed"])
        build_dataset(str(tmp_path), "")
        return capsys.readouterr().out.endswith("is up to date\n")

    future, past = (4000000000, 4000000000), (1, 1)
    assert [build("one", past), build("one", past), build("other", future), build("other", future)] == [
        False, True, False, True]
    write_dataset(output, small_dataset())
    assert not build("other", future), "what does not say that it is of this data is made anew"


@pytest.mark.parametrize("parts", [[], [1], [{}, {}, [], (1, 2, 3)], [[], [], [], (1, 1, 1)], ["a", "b", "c", "d"]])
def test_pickles_of_something_else_are_refused(tmp_path, parts):
    path = str(tmp_path / "dataset.pkl")
    dump_parts(path, parts)
    with pytest.raises(UserError, match="does not hold a data set"):
        read_dataset(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "dataset.pkl"
    write_dataset(str(path), small_dataset())
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="build_dataset.py"):
            read_dataset(str(path))


def test_the_fingerprint_tells_data_sets_apart():
    assert fingerprint(small_dataset()) == fingerprint(small_dataset())
    labels = TRAIN.labels.copy()
    labels[0] = 1 - labels[0]
    assert fingerprint(changed(labels=labels)) != fingerprint(small_dataset())
    assert fingerprint(random_dataset()) != fingerprint(small_dataset())


def test_building_waits_for_neither_tensorflow_nor_pandas(tmp_path):
    reviews = pd.DataFrame({"reviewerID": [0, 0, 0], "asin": [2, 0, 1], "unixReviewTime": [1, 2, 3]})
    counts, keys = (1, 4, 1, 3), (list("abcd"), ["c"], ["u"])
    dump_parts(str(tmp_path / "remap.pkl"), [reviews, np.zeros(4, np.int32), counts, keys, {"dataset": "tiny"}])
    done = run_script("-X", "importtime", "din/build_dataset.py", "--remap", tmp_path / "remap.pkl",
                      "--output", tmp_path / "dataset.pkl")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "numpy" in imported and not imported & {"tensorflow", "pandas"}
    assert as_pairs(read_dataset(str(tmp_path / "dataset.pkl")).test) == [(0, [2, 0], (1, 3))]


def test_digests_of_real_purchases_are_the_originals(beauty):
    done = run_script("-m", "utils.digest", "--remap", beauty / "remap.pkl", "--dataset", beauty / "dataset.pkl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == golden("pipeline_amazon_beauty")


def test_the_raw_folder_names_the_data_set(beauty):
    assert read_dataset(str(beauty / "dataset.pkl")).name == "amazon_beauty"
