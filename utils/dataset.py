"""Examples, negatives and the leave-last-out split; `dataset.pkl` written and read.

    remap.pkl (reviews sorted by user and time) -> build_sets() -> write_dataset() -> dataset.pkl -> read_dataset()

A user's n items in time order give n - 2 positive and n - 2 negative training examples and one test example: the
last item, with a negative, after the history of all the others. Item 0 is history only.

The sets are columns over one array of items, sorted by user and time. A history is an offset and a length into it,
so memory grows with reviews, not with reviews times history.
"""
import collections
import hashlib
import itertools
import os

import numpy as np
from tqdm import tqdm

from utils.data.draws import Draws
from utils.data.pickles import dump_parts, load_parts
from utils.files import ROOT, Parser, UserError

SEED = 1234  # of the negatives and of the order of examples: part of the recipe, not a hyperparameter
REMAP = os.path.join(ROOT, "raw_data", "remap.pkl")

TrainSet = collections.namedtuple("TrainSet", "history_items users offsets lengths items labels")
TrainSet.__doc__ = """Training examples, int32 columns of one row an example, over `history_items`.

history_items [R]  items of all histories; example e's history is history_items[offsets[e] : offsets[e] + lengths[e]]
users         [E]  whose history it is
items         [E]  the candidate
labels        [E]  1 where the user bought the candidate, 0 where it was drawn as a negative
"""

TestSet = collections.namedtuple("TestSet", "history_items users offsets lengths positives negatives")
TestSet.__doc__ = """Test examples: as `TrainSet`, with each user's held-out purchase and a negative as the candidates."""

Dataset = collections.namedtuple("Dataset", "train test cate_list user_count item_count cate_count name")
Dataset.__doc__ = """What a model trains and is tested on; `cate_list` [item_count] is the category of each item."""


def build_sets(users, items, item_count, seed=SEED):
    """Returns the (TrainSet, TestSet) that the seed's scripts make of the same reviews.

    Args:
      users: [R] user id of each review, ascending.
      items: [R] item id of each review, in time order within a user.
      item_count: number of items; negatives are drawn from 0 .. item_count - 1.
      seed: of the generator that draws the negatives, then shuffles the training and the test set.

    Raises:
      UserError: a user owns every item, so that no negative can be drawn.
    """
    users, items = np.asarray(users, np.int32), np.asarray(items, np.int32)
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    counts = np.diff(np.append(starts, len(users)))

    draws = Draws(seed)
    negatives = _draw_negatives(draws, starts, items, item_count)

    start_of = np.repeat(starts, counts)
    position = np.arange(len(users)) - start_of
    last = np.repeat(counts, counts) - 1

    train = np.flatnonzero((position > 0) & (position < last))
    labels = np.tile(np.array([1, 0], np.int32), len(train))
    candidates = np.stack([items[train], negatives[train]], axis=1).reshape(-1)
    train = np.repeat(train, 2)
    order = draws.shuffled(len(train))
    train, labels, candidates = train[order], labels[order], candidates[order]

    test = np.flatnonzero((position > 0) & (position == last))
    test = test[draws.shuffled(len(test))]

    def histories(rows):
        return items, users[rows], start_of[rows].astype(np.int32), position[rows].astype(np.int32)

    return (TrainSet(*histories(train), items=candidates, labels=labels),
            TestSet(*histories(test), positives=items[test], negatives=negatives[test]))


def _draw_negatives(draws, starts, items, item_count):
    """One item that its user does not own for each review [R], drawn in the order of the reviews.

    `starts` are the positions of the users' first reviews. As nearly all users get what was drawn as it is, it is
    taken a user at a time, which is five times as fast as review by review.
    """
    items = items.tolist()
    drawn, used = draws.below(item_count, len(items)).tolist(), 0
    negatives = []
    users = zip(starts.tolist(), starts[1:].tolist() + [len(items)])
    for start, end in tqdm(users, total=len(starts), desc="negatives", unit=" users", unit_scale=True, disable=None):
        own = set(items[start:end])
        theirs = drawn[used:used + end - start]
        if len(theirs) == end - start and own.isdisjoint(theirs):
            used += end - start
            negatives += theirs
            continue
        if len(own) == item_count:
            raise UserError("a user owns all of the %d items, so that no negative can be drawn; "
                            "use data with more items" % item_count)
        while len(negatives) < end:
            if used == len(drawn):  # as many more as there are reviews without one, which none too many can be
                drawn, used = draws.below(item_count, len(items) - len(negatives)).tolist(), 0
            if drawn[used] not in own:
                negatives.append(drawn[used])
            used += 1
    return np.array(negatives, np.int32)


def read_remap(path=REMAP):
    """Returns the parts of remap.pkl: reviews, cate_list, four counts, three key lists, {"dataset": name}.

    The reviews come as a dictionary of the frame's columns, which spares the import of pandas, a quarter of a build.
    """
    parts = load_parts(path, "run ./prepare_dataset.sh to make it", frame=dict)
    if len(parts) != 5:
        raise UserError("%s holds %d parts instead of 5; run ./prepare_dataset.sh to make it again" % (path, len(parts)))
    return parts


def write_dataset(path, dataset):
    """Writes `dataset` to `path`: training set, test set, cate_list, the three counts, {"dataset": name}."""
    dump_parts(path, [dict(dataset.train._asdict()), dict(dataset.test._asdict()), dataset.cate_list,
                      (dataset.user_count, dataset.item_count, dataset.cate_count), {"dataset": dataset.name}])


def read_dataset(path):
    """Returns the `Dataset` in `path`, in the project's own format or the original's (lists of tuples).

    Raises:
      UserError: the file is missing, damaged, of another format, or its ids or offsets are out of range.
    """
    remedy = "run python build_dataset.py to make it"
    parts = load_parts(path, remedy)
    try:
        train, test, cate_list, counts = parts[:4]
        size = os.path.getsize(path)
        train = TrainSet(**train) if isinstance(train, dict) else _from_tuples(train, size)
        test = TestSet(**test) if isinstance(test, dict) else _from_pairs(test, size)
        user_count, item_count, cate_count = map(int, counts)
        name = parts[4]["dataset"] if len(parts) > 4 else "dataset_pkl"  # the original's file does not say
        dataset = Dataset(train, test, _column(cate_list), user_count, item_count, cate_count, name)
        _check(dataset)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise UserError("%s does not hold a data set (%s); %s" % (path, error, remedy)) from None
    return dataset


def check_range(what, values, low, high):
    """Raises ValueError unless `values` are a column of integers from `low` to below `high`."""
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError("%s are not a column of integers" % what)
    if len(values) and not (low <= values.min() and values.max() < high):
        raise ValueError("%s are not all in %d .. %d" % (what, low, high - 1))


def _check(dataset):
    """Raises ValueError where a column is no column of integers, or an id or offset is out of range."""
    if type(dataset.name) is not str:
        raise ValueError("it has no name")
    check_range("categories", dataset.cate_list, 0, dataset.cate_count)
    if len(dataset.cate_list) != dataset.item_count:
        raise ValueError("%d categories for %d items" % (len(dataset.cate_list), dataset.item_count))
    if dataset.cate_count > dataset.item_count:
        raise ValueError("%d kinds of categories for %d items" % (dataset.cate_count, dataset.item_count))
    if not len(dataset.train.items) or not len(dataset.test.positives):
        raise ValueError("it has no examples")
    for examples in (dataset.train, dataset.test):
        if len({len(column) for column in examples[1:]}) != 1:
            raise ValueError("its columns differ in length")
        check_range("items", examples.history_items, 0, dataset.item_count)
        check_range("users", examples.users, 0, dataset.user_count)
        check_range("history lengths", examples.lengths, 1, len(examples.history_items) + 1)
        check_range("history offsets", examples.offsets, 0, len(examples.history_items))
        if (examples.offsets.astype(np.int64) + examples.lengths).max() > len(examples.history_items):
            raise ValueError("a history goes past the end of the items")
    check_range("candidates", dataset.train.items, 0, dataset.item_count)
    check_range("labels", dataset.train.labels, 0, 2)
    check_range("positives", dataset.test.positives, 0, dataset.item_count)
    check_range("negatives", dataset.test.negatives, 0, dataset.item_count)


def _column(values):
    """A list of whole numbers as a column; not np.array, which would follow lists within lists wherever they lead."""
    return np.fromiter(values, np.int32, count=len(values))


def _flatten(histories, size):
    """The columns (history_items, offsets, lengths) of a list of lists of items, read from a file of `size` bytes."""
    lengths = _column([len(history) for history in histories])
    ends = np.cumsum(lengths, dtype=np.int64)
    if ends[-1] > 4 * size:  # an item takes a byte or more, and at most two examples share a history
        raise ValueError("its histories have %d items" % ends[-1])
    items = np.fromiter(itertools.chain.from_iterable(histories), np.int32, count=ends[-1])
    return items, (ends - lengths).astype(np.int32), lengths


def _from_tuples(examples, size):
    """A TrainSet of the original's [(user, history, item, label), ...], read from a file of `size` bytes."""
    users, histories, items, labels = zip(*examples)
    history_items, offsets, lengths = _flatten(histories, size)
    return TrainSet(history_items, _column(users), offsets, lengths, _column(items), _column(labels))


def _from_pairs(examples, size):
    """A TestSet of the original's [(user, history, (positive, negative)), ...], read from a file of `size` bytes."""
    users, histories, pairs = zip(*examples)
    history_items, offsets, lengths = _flatten(histories, size)
    positives, negatives = zip(*pairs)
    return TestSet(history_items, _column(users), offsets, lengths, _column(positives), _column(negatives))


def fingerprint(dataset):
    """A short digest of everything that a model trains and is tested on, hexadecimal."""
    digest = hashlib.sha256(repr((dataset.user_count, dataset.item_count, dataset.cate_count)).encode())
    for column in itertools.chain(dataset.train, dataset.test, [dataset.cate_list]):
        digest.update(np.ascontiguousarray(column, "<i4"))
    return digest.hexdigest()[:16]


def dataset_of(path):
    """Returns the `Dataset` that is made of a remap.pkl.

    Raises:
      UserError: the file is missing, damaged, or no examples can be made of it.
    """
    reviews, cate_list, counts, _, source = read_remap(path)
    try:
        user_count, item_count, cate_count, _ = map(int, counts)
        users, items = reviews["reviewerID"], reviews["asin"]
        check_range("users", users, 0, user_count)
        check_range("items", items, 0, item_count)
        if len(users) != len(items) or (np.diff(users) < 0).any():
            raise ValueError("its reviews are not sorted by user")
        dataset = Dataset(*build_sets(users, items, item_count), _column(cate_list), user_count, item_count, cate_count,
                          source["dataset"])
        _check(dataset)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise UserError("%s does not hold reviews to make examples of (%s); run ./prepare_dataset.sh to make it again"
                        % (path, error)) from None
    return dataset


def build_dataset(folder, description):
    """The command `python build_dataset.py` of the model in `folder`: remap.pkl -> dataset.pkl."""
    parser = Parser(description=description)
    parser.add_argument("--remap", default=REMAP, help="integer ids, made by ./prepare_dataset.sh (default: %(default)s)")
    parser.add_argument("--output", default=os.path.join(folder, "dataset.pkl"), help="default: %(default)s")
    arguments = parser.parse_args()

    dataset = dataset_of(arguments.remap)
    write_dataset(arguments.output, dataset)
    print("%s: %s, %d training examples, %d test users, %d items, %d categories"
          % (os.path.relpath(arguments.output, ROOT), dataset.name, len(dataset.train.items), len(dataset.test.users),
             dataset.item_count, dataset.cate_count))
