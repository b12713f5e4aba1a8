"""What the numbers stand for is read from the remap.pkl of the same data, and from no other."""
import numpy as np
import pytest

from tests.helpers import random_dataset
from utils.data.original_ids import Names, read_names
from utils.data.pickles import dump_parts
from utils.files import UserError

DATASET = random_dataset()


def keys_of(dataset):
    return tuple(["%s%d" % (kind, index) for index in range(count)] for kind, count in (
        ("asin ", dataset.item_count), ("category ", dataset.cate_count), ("reviewer ", dataset.user_count)))


KEYS = keys_of(DATASET)


def written(folder, dataset=DATASET, **changed):
    """Writes a remap.pkl of `dataset` into `folder`, but for the parts `changed`; returns its path."""
    parts = dict({"cate_list": dataset.cate_list, "keys": keys_of(dataset)}, **changed)
    path = str(folder / "remap.pkl")
    dump_parts(path, [{}, parts["cate_list"], (dataset.user_count, dataset.item_count, dataset.cate_count, 0),
                      parts["keys"], {"dataset": "random"}])
    return path


def test_each_number_has_its_name(tmp_path):
    assert read_names(DATASET, written(tmp_path)) == Names(KEYS[2], KEYS[0], KEYS[1])


@pytest.mark.parametrize("changed", [{"cate_list": np.roll(DATASET.cate_list, 1)}, {"keys": (KEYS[0][:-1],) + KEYS[1:]},
                                     {"keys": (list(range(DATASET.item_count)),) + KEYS[1:]}, {"keys": KEYS[:2]},
                                     {"keys": None}])
def test_names_of_other_data_are_refused(tmp_path, changed):
    path = written(tmp_path, **changed)
    with pytest.raises(UserError) as raised:
        read_names(DATASET, path)
    assert str(raised.value) == ("%s is not of the data that the model trains on; run ./prepare_dataset.sh, then train "
                                 "again" % path)
