"""2_remap_id.py: reviews.pkl and meta.pkl in, remap.pkl out."""
import importlib
import json
import os
import pickle
import random

import numpy as np
import pandas as pd
import pytest

from tests.helpers import run_script
from utils.data.pickles import dump_parts, load_parts
from utils.files import ROOT, UserError

convert_pd = importlib.import_module("utils.1_convert_pd")
remap_id = importlib.import_module("utils.2_remap_id")


def transcription(reviews, meta):
    """The recipe, plain: rows (user, item, time) and {asin: categories} -> rows of ids, cate_list, counts, keys."""
    asin_key = sorted(meta)
    cate_key = sorted({meta[asin][-1][-1] for asin in meta})
    revi_key = sorted({user for user, _, _ in reviews})
    rows = [(revi_key.index(user), asin_key.index(asin), time) for user, asin, time in reviews]
    rows.sort(key=lambda row: (row[0], row[2]))  # stable
    cate_list = [cate_key.index(meta[asin][-1][-1]) for asin in asin_key]
    return rows, cate_list, (len(revi_key), len(asin_key), len(cate_key), len(rows)), (asin_key, cate_key, revi_key)


def rows_of(frame):
    return [tuple(map(int, row)) for row in frame.itertuples(index=False, name=None)]


@pytest.mark.parametrize("text", ["category", "object"])
@pytest.mark.parametrize("seed", range(5))
def test_ids_and_order_are_those_of_the_plain_recipe(seed, text):
    draw = random.Random(seed)
    asins = ["b", "B", "\xe9", "a2", "a10", "\U0001f600", "\uffff"]
    users = ["u%d" % draw.randrange(100) for _ in range(6)]
    reviews = [(draw.choice(users), asin, draw.randrange(-2, 2)) for asin in asins * 5]  # few times, so many ties
    draw.shuffle(reviews)
    meta = {asin: [["x"], ["E", draw.choice(["c", "C", "d d"])]] for asin in draw.sample(asins, len(asins))}

    frame = pd.DataFrame(reviews, columns=["reviewerID", "asin", "unixReviewTime"])
    frame = frame.astype({"reviewerID": text, "asin": text})
    meta_frame = pd.DataFrame({"asin": list(meta), "categories": list(meta.values())})
    remapped, cate_list, counts, keys = remap_id.remap(frame, meta_frame)
    assert (rows_of(remapped), cate_list.tolist(), counts, keys) == transcription(reviews, meta)
    assert [str(kind) for kind in remapped.dtypes] == ["int64"] * 3 and cate_list.dtype == np.int32
    assert remapped.index.tolist() == list(range(len(reviews)))
    assert all(type(text) is str for key in keys for text in key)


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that 1_convert_pd.py makes of two reviews."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "reviews_Electronics.json").write_text(
        '{"reviewerID": "u", "asin": "j", "unixReviewTime": 2}\n'
        '{"reviewerID": "u", "asin": "i", "unixReviewTime": 1}\n')
    (tmp_path / "raw" / "meta_Electronics.json").write_text(
        "{'asin': 'i', 'categories': [['E', 'c']]}\n{'asin': 'j', 'categories': [['E', 'b']]}\n")
    convert_pd.convert(str(tmp_path / "raw"), str(tmp_path), skip_checksum=True)
    return tmp_path


def test_remap_pkl_holds_five_parts_in_order(folder):
    assert remap_id.remap_files(str(folder)) == (1, 2, 2, 2)
    frame, cate_list, counts, keys, about = load_parts(str(folder / "remap.pkl"), "make it")
    assert list(frame.columns) == ["reviewerID", "asin", "unixReviewTime"]
    assert rows_of(frame) == [(0, 0, 1), (0, 1, 2)] and [str(kind) for kind in frame.dtypes] == ["int64"] * 3
    assert cate_list.tolist() == [1, 0] and cate_list.dtype == np.int32
    assert (counts, keys) == ((1, 2, 2, 2), (["i", "j"], ["b", "c"], ["u"]))
    assert about == {"dataset": "raw", "md5": json.loads((folder / "source.json").read_text())["md5"]}


@pytest.mark.parametrize("time", [1, 4000000000])
def test_if_needed_remaps_what_is_of_other_data_whatever_the_times(folder, time):
    remap_id.remap_files(str(folder))
    os.utime(str(folder / "remap.pkl"), (time, time))
    assert remap_id.remap_files(str(folder), if_needed=True) is None
    (folder / "raw" / "reviews_Electronics.json").write_text('{"reviewerID": "u", "asin": "i", "unixReviewTime": 1}\n')
    convert_pd.convert(str(folder / "raw"), str(folder), skip_checksum=True)
    os.utime(str(folder / "remap.pkl"), (time, time))
    assert remap_id.remap_files(str(folder), if_needed=True) == (1, 1, 1, 1)


@pytest.mark.parametrize("content", [None, b"junk", pickle.dumps({})])
def test_if_needed_remaps_where_remap_pkl_is_not_there_or_damaged(folder, content):
    if content is not None:
        (folder / "remap.pkl").write_bytes(content)
    assert remap_id.remap_files(str(folder), if_needed=True) == (1, 2, 2, 2)


@pytest.mark.parametrize("name", ["source.json", "reviews.pkl", "meta.pkl"])
def test_a_missing_file_is_an_error_that_says_how_it_is_made(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=name + " not found; run utils/1_convert_pd.py"):
        remap_id.remap_files(str(folder))


NESTED = ()
for _ in range(100):  # to look it up would take for ever
    NESTED = NESTED, NESTED


@pytest.mark.parametrize("reviews", [
    [], [3], [pd.DataFrame({"asin": [1]})], [1, 2],
    [pd.DataFrame({"reviewerID": ["u"], "asin": ["not in meta"], "unixReviewTime": [1]})],
    [pd.DataFrame({"reviewerID": pd.Series([NESTED], dtype=object), "asin": ["i"], "unixReviewTime": [1]})]],
                         ids=["empty", "a number", "other columns", "two parts", "other items", "nested tuples"])
def test_files_that_do_not_fit_are_an_error_and_remap_pkl_stays(folder, reviews):
    remap_id.remap_files(str(folder))
    before = (folder / "remap.pkl").read_bytes()
    dump_parts(str(folder / "reviews.pkl"), reviews)
    with pytest.raises(UserError, match="don't fit together; remove them, then run ./prepare_dataset.sh again"):
        remap_id.remap_files(str(folder))
    assert (folder / "remap.pkl").read_bytes() == before


@pytest.mark.parametrize("working_folder", [ROOT, os.path.join(ROOT, "utils")])
def test_the_script_runs_from_the_root_and_from_utils(folder, working_folder):
    script = os.path.relpath(os.path.join(ROOT, "utils", "2_remap_id.py"), working_folder)

    done, refused = (run_script(script, "--output", output, cwd=working_folder)
                     for output in (folder, folder / "nowhere"))
    assert (done.returncode, done.stderr) == (0, "")
    assert refused.returncode == 1
    assert refused.stderr == "error: %s not found; run utils/1_convert_pd.py\n" % (folder / "nowhere" / "source.json")
