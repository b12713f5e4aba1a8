"""benchmarks/prepare.py runs both sides, finds the same examples on both, and reports every step."""
import json
import os

import pytest

from benchmarks import prepare as benchmark
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
        assert line["ours_seconds_per_million_reviews"] == pytest.approx(line["ours"] * 1e6 / 1600)
        assert line["ours_seconds_per_gigabyte"] == pytest.approx(line["ours"] * 1e9 / line["raw_bytes"])
        assert (line["batch_size"], line["padded"], line["floor_share"]) == (None, line["plain"], None)
    assert "ast.literal_eval" in table and all(step in table for step in STEPS)


def test_every_figure_is_of_the_seconds_and_peaks_of_its_steps(monkeypatch):
    """The rounds last once, twice and four times these seconds here, and ten and thirty times on the other side."""
    steps = [("convert", 2, 100), ("remap", 1, 300), ("build", 0.5, 200), ("build", 1, 210), ("build", 1.5, 200),
             ("build", 2, 200), ("load", 0.25, 400)]
    scales = {"ours": [1, 2, 4], "plain": [10, 30]}

    def run_python(side, index):
        number = len([call for call in calls if call == (side, index)])
        calls.append((side, index))
        return "", steps[index][1] * scales[side][number], steps[index][2] + (1000 if side == "plain" else number)
    calls = []
    monkeypatch.setattr(benchmark, "commands", lambda side, *_: [
        (name, [side, index]) for index, (name, _, _) in enumerate(steps)])
    monkeypatch.setattr(benchmark, "run_python", run_python)
    monkeypatch.setattr(benchmark, "digest", lambda path: "the same")
    seconds, peaks = benchmark.measure("raw", False, rounds=3, plain_rounds=2)
    assert calls[:4] == [("ours", 0), ("plain", 0), ("ours", 1), ("plain", 1)]  # step by step, in turn
    for step, first, peak in (("convert", 2, 100), ("remap", 1, 300), ("build", 1.25, 210), ("four builds", 5, 210),
                              ("total", 8, 300), ("load", 0.25, 400)):
        assert benchmark.figures(step, seconds, peaks) == {
            "ours": 2 * first, "plain": 20 * first, "ratio": 12.5,
            "spread": {"ours": [first, 4 * first], "plain": [10 * first, 30 * first], "ratio": [10, 15]},
            "peak_memory_mib": {"ours": peak + 2, "plain": peak + 1000}}, step


def test_sides_that_make_different_examples_are_an_error(monkeypatch):
    monkeypatch.setattr(benchmark, "run_python", lambda *_: ("", 1, 1))
    monkeypatch.setattr(benchmark, "digest", str)
    with pytest.raises(UserError, match="the two sides make different examples"):
        benchmark.measure("raw", False, rounds=1, plain_rounds=1)


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
