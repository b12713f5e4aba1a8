"""benchmarks/prepare.py runs both sides, finds the same examples on both, and reports every step."""
import json
import os

import pytest

from benchmarks.raw_cut import cut
from tests.helpers import run_script
from utils.data.purchases import Sizes
from utils.data.sample_files import META_FILE, REVIEWS_FILE, write_sample
from utils.dataset import read_dataset
from utils.digest import example_digests
from utils.files import UserError

TINY = Sizes(users=200, items=120, categories=8, reviews=1600, products=150, text_bytes=60)
STEPS = ["convert", "remap", "build", "four builds", "total", "load"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_sample(str(folder), "sample_tiny", TINY, 1)
    return folder


def prepare(*arguments):
    done = run_script("-m", "benchmarks.prepare", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_every_step_has_a_line_with_both_sides_and_their_ratio(raw):
    lines, table = prepare("--data", raw, "--rounds", "1", "--json")
    assert [line["step"] for line in lines] == STEPS
    for line in lines:
        assert (line["benchmark"], line["dataset"], line["fraction"], line["reviews"]) == ("prepare", raw.name, 1, 1600)
        assert line["raw_bytes"] == sum(os.path.getsize(str(raw / name)) for name in (REVIEWS_FILE, META_FILE))
        assert line["ours"] > 0 and line["plain"] > 0 and line["ratio"] == line["plain"] / line["ours"]
        assert all(memory > 0 for memory in line["peak_memory_mib"].values())
        assert line["machine"] and line["python"]
        assert (line["batch_size"], line["padded"], line["floor_share"]) == (None, line["plain"], None)
    assert "ast.literal_eval" in table and all(step in table for step in STEPS)


def test_this_side_alone_is_measured_on_shares_of_the_users(raw):
    lines, _ = prepare("--data", raw, "--rounds", "1", "--ours_only", "--fractions", "0.5", "1", "--json")
    assert ([(line["fraction"], line["step"]) for line in lines]
            == [(share, step) for share in (0.5, 1) for step in STEPS])
    assert {line["plain"] for line in lines} == {line["ratio"] for line in lines} == {None}
    assert 0.3 * 1600 < lines[0]["reviews"] < 0.7 * 1600


@pytest.mark.parametrize("options", [[], ["--eval"]], ids=["parsed", "evaluated"])
def test_the_plain_side_makes_the_same_examples(raw, tmp_path, options):
    for side, commands in (
            ("ours", (["utils/1_convert_pd.py", "--raw_data", raw, "--output", "{}"],
                      ["utils/2_remap_id.py", "--output", "{}"],
                      ["din/build_dataset.py", "--remap", "{}/remap.pkl", "--output", "{}/dataset.pkl"])),
            ("plain", (["-m", "benchmarks.plain_prepare", "convert", raw, "{}"] + options,
                       ["-m", "benchmarks.plain_prepare", "remap", "{}"],
                       ["-m", "benchmarks.plain_prepare", "build", "{}", "{}/dataset.pkl"]))):
        (tmp_path / side).mkdir()
        for command in commands:
            done = run_script(*[str(part).format(tmp_path / side) for part in command])
            assert done.returncode == 0, done.stderr
    ours, plain = (read_dataset(str(tmp_path / side / "dataset.pkl")) for side in ("ours", "plain"))
    assert example_digests(ours) == example_digests(plain)
    assert ours.cate_list.tolist() == plain.cate_list.tolist() and ours[3:6] == plain[3:6]


def test_a_cut_has_whole_users_and_the_meta_lines_of_their_items(raw, tmp_path):
    cut(str(raw), 0.5, str(tmp_path))
    texts = ((folder / REVIEWS_FILE).read_text(encoding="utf-8") for folder in (raw, tmp_path))
    whole, part = ([json.loads(line) for line in text.split("\n") if line] for text in texts)
    users, reviewed = ({review[field] for review in part} for field in ("reviewerID", "asin"))
    assert part == [review for review in whole if review["reviewerID"] in users] and len(part) < len(whole)
    meta = (tmp_path / META_FILE).read_text(encoding="utf-8")
    assert all("'asin': '%s'" % asin in meta for asin in reviewed)


def test_a_share_without_users_and_missing_files_are_errors_of_one_line(raw, tmp_path):
    with pytest.raises(UserError, match="is none; take a larger one"):
        cut(str(raw), 1e-9, str(tmp_path))
    for arguments in (["--data", tmp_path / "nowhere"], ["--fractions", "0"], ["--rounds", "0"]):
        done = run_script("-m", "benchmarks.prepare", *arguments)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
