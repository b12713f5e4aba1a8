"""What the numbers stand for is read from the remap.pkl of the same data, and from no other."""
import numpy as np
import pytest

from tests.helpers import random_dataset
from utils.data.original_ids import Names, read_names
from utils.data.pickles import dump_parts
from utils.files import UserError

DATASET = random_dataset()
KEYS = tuple(["%s%d" % (kind, index) for index in range(count)] for kind, count in (
    ("asin ", DATASET.item_count), ("category ", DATASET.cate_count), ("reviewer ", DATASET.user_count)))


def written(folder, cate_list=DATASET.cate_list, keys=KEYS):
    path = str(folder / "remap.pkl")
    dump_parts(path, [{}, cate_list, (DATASET.user_count, DATASET.item_count, DATASET.cate_count, 0), keys,
                      {"dataset": "random"}])
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
