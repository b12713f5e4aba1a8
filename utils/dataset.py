"""Examples, negatives and the leave-last-out split; `dataset.pkl` written and read.

    remap.pkl (reviews sorted by user and time) -> build_sets() -> write_dataset() -> dataset.pkl -> read_dataset()

A user's n items in time order give n - 2 positive and n - 2 negative training examples and one test example: the
last item, with a negative, after the history of all the others. Item 0 is history only.

The sets are columns over one array of items, sorted by user and time. A history is an offset and a length into it,
so memory grows with reviews, not with reviews times history.
"""
import hashlib
import itertools
import operator
import os
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from utils.data.draws import Draws
from utils.data.pickles import dump_parts, load_parts, reason_of, source_of
from utils.files import ROOT, Parser, UserError

SEED = 1234  # of the negatives and of the order of examples: part of the recipe, not a hyperparameter
REMAP = os.path.join(ROOT, "raw_data", "remap.pkl")
_FAULTS = (TypeError, ValueError, LookupError, AttributeError, OverflowError)  # of a pickle that holds other things


class TrainSet(NamedTuple):
    """Training examples: int32 columns, a row an example, over the items of all histories."""
    history_items: np.ndarray  # [R], sorted by user, then time
    users: np.ndarray  # [E] the history's user
    offsets: np.ndarray  # [E]
    lengths: np.ndarray  # [E] example e's history is history_items[offsets[e] : offsets[e] + lengths[e]]
    items: np.ndarray  # [E] the candidate
    labels: np.ndarray  # [E] 1 where the user bought the candidate, 0 where it was drawn as a negative


class TestSet(NamedTuple):
    """Test examples: the first four columns are those of `TrainSet`."""
    history_items: np.ndarray  # [R]
    users: np.ndarray  # [E]
    offsets: np.ndarray  # [E]
    lengths: np.ndarray  # [E]
    positives: np.ndarray  # [E] the user's last purchase
    negatives: np.ndarray  # [E] an item that the user never bought


class Dataset(NamedTuple):
    """The data that a model trains and is tested on."""
    train: TrainSet
    test: TestSet
    cate_list: np.ndarray  # [item_count] the category of each item
    user_count: int
    item_count: int
    cate_count: int
    name: str


def build_sets(users, items, item_count, seed=SEED):
    """Returns the (TrainSet, TestSet) that the original's scripts make of the same reviews.

    Args:
      users: [R] user id of each review, ascending.
      items: [R] item id of each review, in time order within a user.
      item_count: number of items; negatives are drawn from 0 .. item_count - 1.
      seed: of the generator that draws the negatives, then shuffles the training and the test set.

    Raises `UserError` where a user owns every item, so that no negative can be drawn.
    """
    users, items = np.asarray(users, np.int32), np.asarray(items, np.int32)
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    counts = np.diff(starts, append=len(users))
    start_of = np.repeat(starts, counts).astype(np.int32)
    position = np.arange(len(users), dtype=np.int32) - start_of
    is_last = position == np.repeat(counts, counts) - 1

    draws = Draws(seed)
    negatives = _draw_negatives(draws, starts, items, item_count)
    train, test = (np.flatnonzero(mask & (position > 0)) for mask in (~is_last, is_last))
    order = draws.shuffled(2 * len(train))  # each review gives a positive and a negative example, in turn
    train, labels = train[order // 2], 1 - order % 2
    test = test[draws.shuffled(len(test))]

    def histories(rows):
        return items, users[rows], start_of[rows], position[rows]

    return (TrainSet(*histories(train), items=np.where(labels, items[train], negatives[train]), labels=labels),
            TestSet(*histories(test), positives=items[test], negatives=negatives[test]))


def _draw_negatives(draws, starts, items, item_count):
    """Returns an item that its user does not own for each review, drawn in the order of the reviews: int32 [R].

    `starts` are the positions of the users' first reviews. Nearly all users take the numbers as they come, so they are
    given out a user at a time: that is five times as fast as review by review.
    """
    items = items.tolist()
    numbers, negatives = iter(()), []
    users = zip(starts.tolist(), starts[1:].tolist() + [len(items)])
    for start, end in tqdm(users, total=len(starts), desc="negatives", unit=" users", unit_scale=True, disable=None):
        owned = set(items[start:end])
        if len(owned) == item_count:
            raise UserError("a user owns all of the %d items, so that no negative can be drawn; "
                            "use data with more items" % item_count)
        while len(negatives) < end:
            chunk = list(itertools.islice(numbers, end - len(negatives)))
            if not chunk:  # as many as reviews still lack a negative: never too many
                numbers = iter(draws.below(item_count, len(items) - len(negatives)).tolist())
            negatives += chunk if owned.isdisjoint(chunk) else [item for item in chunk if item not in owned]
    return np.array(negatives, np.int32)


def read_remap(path=REMAP):
    """Returns the parts of remap.pkl: reviews (dict of columns), cate_list, counts, key lists, {"dataset": name}."""
    parts = load_parts(path, "run ./prepare_dataset.sh to make it", frame=dict)
    if len(parts) != 5:
        raise UserError("%s holds %d parts instead of 5; run ./prepare_dataset.sh to make it again"
                        % (path, len(parts)))
    return parts


def write_dataset(path, dataset, source=()):
    """Writes `dataset` to `path`: training set, test set, cate_list, the three counts, {"dataset": name}.

    The last has what is in `source`, too, the last part of the remap.pkl that it was made from.
    """
    dump_parts(path, [dict(dataset.train._asdict()), dict(dataset.test._asdict()), dataset.cate_list,
                      (dataset.user_count, dataset.item_count, dataset.cate_count), dict(source, dataset=dataset.name)])


def read_dataset(path):
    """Returns the `Dataset` in `path`, in the project's own format or the original's (lists of tuples).

    Raises `UserError` where it is missing, damaged, of another format, or has ids or offsets that are out of range.
    """
    remedy = "run python build_dataset.py to make it"
    parts = load_parts(path, remedy)
    try:
        train, test, cate_list, counts = parts[:4]
        if not isinstance(train, dict):
            users, histories, items, labels = _fields(train, 4)
            train = _columns(path, histories, users=users, items=items, labels=labels)
        if not isinstance(test, dict):
            users, histories, pairs = _fields(test, 3)
            positives, negatives = _fields(pairs, 2)
            test = _columns(path, histories, users=users, positives=positives, negatives=negatives)
        name = parts[4]["dataset"] if len(parts) > 4 else "dataset_pkl"  # the original's file does not say
        return _checked_dataset(TrainSet(**train), TestSet(**test), cate_list, counts, name)
    except _FAULTS as error:
        raise UserError("%s does not hold a data set (%s); %s" % (path, reason_of(error), remedy)) from None


def _fields(examples, count):
    """Returns a list for each of the `count` fields of `examples`, tuples; zip would take seven times the memory."""
    _require(type(examples) is list and all(type(example) is tuple and len(example) == count for example in examples),
             "its examples are not tuples of %d" % count)
    return [list(map(operator.itemgetter(field), examples)) for field in range(count)]


def _columns(path, histories, **columns):
    """Returns the columns of the original's examples, which were read from `path`, as a dictionary."""
    _require(histories, "it has no examples")
    lengths = _column([len(history) for history in histories])
    ends = np.cumsum(lengths, dtype=np.int64)
    # An item takes a byte or more, and at most two examples share a history.
    _require(ends[-1] <= 4 * os.path.getsize(path), "its histories have %d items" % ends[-1])
    columns = {name: _column(values) for name, values in columns.items()}
    history_items = np.fromiter(itertools.chain.from_iterable(histories), np.int32, count=ends[-1])
    return dict(columns, history_items=history_items, offsets=(ends - lengths).astype(np.int32), lengths=lengths)


def _column(values):
    """Returns a list of whole numbers as int32; not by np.array, which would follow lists within lists without end."""
    return np.fromiter(values, np.int32, count=len(values))


def _require(condition, fault):
    if not condition:
        raise ValueError(fault)


def _check_range(what, values, low, high):
    """Raises ValueError unless `values` are a column of integers from `low` to below `high`."""
    _require(isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu",
             "%s are not a column of integers" % what)
    _require(not len(values) or (low <= values.min() and values.max() < high),
             "%s are not all in %d .. %d" % (what, low, high - 1))


def _counts(counts):
    """Returns the first three of `counts`, whole numbers that ids of 32 bits can have; raises ValueError where not."""
    counts = list(map(operator.index, counts[:3]))
    _require(len(counts) == 3 and all(0 <= count < 2 ** 31 for count in counts), "its counts are out of range")
    return counts


def _checked_dataset(train, test, cate_list, counts, name):
    """Returns the `Dataset` of these parts; raises ValueError where they do not fit together."""
    user_count, item_count, cate_count = _counts(counts)
    cate_list = _column(cate_list)
    _require(type(name) is str, "it has no name")
    _check_range("categories", cate_list, 0, cate_count)
    _require(len(cate_list) == item_count, "%d categories for %d items" % (len(cate_list), item_count))
    _require(cate_count <= item_count, "%d kinds of categories for %d items" % (cate_count, item_count))
    _require(len(train.items) and len(test.positives), "it has no examples")
    for examples in (train, test):
        history_items, users, offsets, lengths = examples[:4]
        _require(len(set(map(len, examples[1:]))) == 1, "its columns differ in length")
        _check_range("items", history_items, 0, item_count)
        _check_range("users", users, 0, user_count)
        _check_range("history lengths", lengths, 1, len(history_items) + 1)
        _check_range("history offsets", offsets, 0, len(history_items))
        _require((offsets.astype(np.int64) + lengths).max() <= len(history_items),
                 "a history goes past the end of the items")
    _check_range("candidates", train.items, 0, item_count)
    _check_range("labels", train.labels, 0, 2)
    _check_range("positives", test.positives, 0, item_count)
    _check_range("negatives", test.negatives, 0, item_count)
    return Dataset(train, test, cate_list, user_count, item_count, cate_count, name)


def sha256(columns, dtype="<i8", head=b""):
    """Returns the sha256, hexadecimal, over `head`, then the bytes of `columns` as `dtype`, one after another."""
    digest = hashlib.sha256(head)
    for column in columns:
        digest.update(np.ascontiguousarray(column, dtype))
    return digest.hexdigest()


def fingerprint(dataset):
    """Returns a short digest of all numbers of `dataset`, hexadecimal."""
    counts = repr((dataset.user_count, dataset.item_count, dataset.cate_count)).encode()
    return sha256(itertools.chain(dataset.train, dataset.test, [dataset.cate_list]), "<i4", counts)[:16]


def dataset_of(path):
    """Returns the `Dataset` that is made of a remap.pkl.

    Raises `UserError` where the file is missing or damaged, or no examples can be made of it.
    """
    return _dataset_of(path, *read_remap(path))


def _dataset_of(path, reviews, cate_list, counts, _, source):
    """As `dataset_of`, of the parts that were read from `path`."""
    try:
        user_count, item_count, _ = _counts(counts)
        users, items = reviews["reviewerID"], reviews["asin"]
        _check_range("users", users, 0, user_count)
        _check_range("items", items, 0, item_count)
        _require(len(users) == len(items) and (np.diff(users) >= 0).all(), "its reviews are not sorted by user")
        return _checked_dataset(*build_sets(users, items, item_count), cate_list, counts, source["dataset"])
    except _FAULTS as error:
        raise UserError("%s does not hold reviews to make examples of (%s); run ./prepare_dataset.sh to make it again"
                        % (path, reason_of(error))) from None


def build_dataset(folder, description):
    """The command `python build_dataset.py` of the model in `folder`: remap.pkl -> dataset.pkl."""
    parser = Parser(description=description)
    parser.add_argument("--remap", default=REMAP, help="made by ./prepare_dataset.sh (default: %(default)s)")
    parser.add_argument("--output", default=os.path.join(folder, "dataset.pkl"), help="default: %(default)s")
    parser.add_argument("--if_needed", action="store_true", help="do nothing where it is made of the same data already")
    arguments = parser.parse_args()

    output = os.path.relpath(arguments.output, ROOT)
    parts = read_remap(arguments.remap)
    if arguments.if_needed and parts[4] == source_of(arguments.output):
        print("%s is up to date" % output)
        return
    dataset = _dataset_of(arguments.remap, *parts)
    write_dataset(arguments.output, dataset, parts[4])
    print("%s: %s, %d training examples, %d test users, %d items, %d categories"
          % (output, dataset.name, len(dataset.train.items), len(dataset.test.users), dataset.item_count,
             dataset.cate_count))
