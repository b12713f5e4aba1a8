"""Data preparation: this project against the original's way, in one run.

    python -m benchmarks.prepare --data full

Each step is a process of its own, start-up included, and the sides alternate step by step: convert, remap, the builds
of the four model folders, and reading a dataset.pkl. Both sides must come to the same examples. Raw files are read
once before anything is measured, so that both sides find them in the page cache.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from utils.commands import at_least
from utils.data.raw_files import KINDS, RawFile, find_raw_file
from utils.files import ROOT, Parser, UserError, run_main
from utils.runs.machine import cores, processor

FOLDERS = ("din", "pnn", "deepFM", "wide_deep")
STEPS = ("convert", "remap", "build", "four builds", "total", "load")  # build: the four's mean; total: all but load
SIDES = ("ours", "plain")


# ---- the two sides ---------------------------------------------------------------------------------------------------

def commands(side, raw, folder, evaluate):
    """Returns the commands of a side, [(step, command)] in order; `folder` is the folder of all their outputs."""
    remap, datasets = os.path.join(folder, "remap.pkl"), [dataset_path(folder, model) for model in FOLDERS]
    if side == "ours":
        load = "import sys; from utils.dataset import read_dataset; read_dataset(sys.argv[1])"
        return ([("convert", ["utils/1_convert_pd.py", "--raw_data", raw, "--output", folder]),
                 ("remap", ["utils/2_remap_id.py", "--output", folder])]
                + [("build", [model + "/build_dataset.py", "--remap", remap, "--output", path])
                   for model, path in zip(FOLDERS, datasets)] + [("load", ["-c", load, datasets[0]])])
    plain = ["-m", "benchmarks.plain_prepare"]
    return ([("convert", plain + ["convert", raw, folder] + ["--eval"] * evaluate),
             ("remap", plain + ["remap", folder])]
            + [("build", plain + ["build", folder, path]) for path in datasets]
            + [("load", plain + ["load", datasets[0]])])


def dataset_path(folder, model):
    return os.path.join(folder, model + ".pkl")


def run_python(*command):
    """Runs the interpreter; returns (its standard output, seconds, MiB of memory at its peak).

    The peak is that of the new process, which starts no others. Linux counts from the peak of the process that starts
    it, so this script reads no data and imports neither NumPy nor pandas.
    Raises `UserError` where it fails.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable] + list(command), cwd=ROOT, stdout=output, stderr=errors,
                                   env=dict(os.environ, SKIP_CHECKSUM="1"))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = status
        output.seek(0)
        errors.seek(0)
        if status:
            last_line = (errors.read().strip().splitlines() or ["killed"])[-1]
            raise UserError("%s failed: %s" % (" ".join(command), last_line))
        return output.read(), seconds, usage.ru_maxrss / (2 ** 20 if sys.platform == "darwin" else 2 ** 10)


def digest(path):
    """Returns the digests of the examples and categories in a dataset.pkl of either side, and the counts, as text."""
    return run_python("-c", "import sys; from utils.dataset import read_dataset; from utils.digest import *; data = "
                      "read_dataset(sys.argv[1]); print(example_digests(data), sha256([data.cate_list]), data[3:6])",
                      path)[0].strip()


# ---- measuring -------------------------------------------------------------------------------------------------------

def measure(raw, evaluate, rounds, plain_rounds):
    """Runs both sides `rounds` and `plain_rounds` times, step by step in turn.

    Returns ({side: {step: [seconds of each round]}}, {side: {step: MiB at the highest peak}}).
    Raises `UserError` where the sides come to different examples.
    """
    seconds = {side: {step: [] for step in STEPS} for side in SIDES}
    peaks = {side: dict.fromkeys(STEPS, 0) for side in SIDES}
    with tempfile.TemporaryDirectory() as work:
        folders = {side: os.path.join(work, side) for side in SIDES}
        for folder in folders.values():
            os.mkdir(folder)
        plans = {side: commands(side, raw, folders[side], evaluate) for side in SIDES}
        for number in range(max(rounds, plain_rounds)):
            sides = [side for side, count in zip(SIDES, (rounds, plain_rounds)) if number < count]
            spent = {side: {"build": []} for side in sides}
            for steps in zip(*(plans[side] for side in sides)):
                for side, (step, command) in zip(sides, steps):
                    _, took, peak = run_python(*command)
                    if step == "build":
                        spent[side][step].append(took)
                    else:
                        spent[side][step] = took
                    sums = {"load": {"load"}, "build": {"build", "four builds", "total"}}.get(step, {step, "total"})
                    for name in sums:
                        peaks[side][name] = max(peaks[side][name], peak)
            for side in sides:
                took = spent[side]
                builds = took.pop("build")
                took.update({"build": statistics.mean(builds), "four builds": sum(builds)})
                took["total"] = took["convert"] + took["remap"] + took["four builds"]
                for step in STEPS:
                    seconds[side][step].append(took[step])
            if number == 0 and plain_rounds:
                if len({digest(dataset_path(folder, FOLDERS[0])) for folder in folders.values()}) > 1:
                    raise UserError("the two sides make different examples, so their speeds can't be compared")
    return seconds, peaks


def figures(step, seconds, peaks):
    """Returns the medians and spreads of a step's seconds and of their ratios, None for a side that did not run."""
    of_side = {side: seconds[side][step] for side in SIDES}
    of_side["ratio"] = [plain / ours for ours, plain in zip(of_side["ours"], of_side["plain"])]
    result = {name: statistics.median(values) if values else None for name, values in of_side.items()}
    result["spread"] = {name: [min(values), max(values)] if values else None for name, values in of_side.items()}
    result["peak_memory_mib"] = {side: round(peaks[side][step]) if seconds[side][step] else None for side in SIDES}
    return result


# ---- the command -----------------------------------------------------------------------------------------------------

def find_raw_files(data):
    """Returns (raw folder, name, whether this run vouches that its lines are generated) of `--data`."""
    if data not in ("small", "full"):
        return data, os.path.basename(os.path.abspath(data)), False
    folder = os.path.join(ROOT, "raw_data", "sample_" + data)
    run_python("utils/make_sample.py", data, "--output", folder)
    return folder, "sample_" + data, True


def count(raw):
    """Reads both raw files; returns (lines of the review file, unpacked bytes of both)."""
    reviews = size = 0
    for kind in KINDS:
        for block in RawFile(find_raw_file(raw, kind)):
            size += len(block)
            reviews += block.count(b"\n") if kind == "reviews" else 0
    return reviews, size


def cell(name, result, form="%.2f"):
    """Returns a median with its spread, as text."""
    if result[name] is None:
        return "-"
    spread = result["spread"][name]
    return form % result[name] + " (" + " to ".join(form % value for value in spread) + ")"


def fraction(text):
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("%s is not above 0 and at most 1" % text)
    return value


def main():
    parser = Parser(prog="python -m benchmarks.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="small", help="small or full: the generated sample, made in raw_data where "
                        "it is not there yet; or a folder of raw files (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=3,
                        help="how often the sides alternate (default: %(default)s)")
    parser.add_argument("--plain_rounds", type=at_least(0), help="of the other side, where it should run less often; "
                        "its rounds are the first ones (default: as --rounds)")
    parser.add_argument("--ours_only", action="store_true", help="the same as --plain_rounds 0")
    parser.add_argument("--fractions", type=fraction, nargs="+", default=[1.0], metavar="SHARE",
                        help="shares of the users to measure with, to show how the cost grows (default: 1)")
    parser.add_argument("--json", action="store_true", help="a JSON line per measurement on standard output; the table "
                        "then goes to standard error")
    arguments = parser.parse_args()
    plain_rounds = arguments.rounds if arguments.plain_rounds is None else arguments.plain_rounds
    plain_rounds = 0 if arguments.ours_only else min(arguments.rounds, plain_rounds)
    table = sys.stderr if arguments.json else sys.stdout

    raw, name, generated = find_raw_files(arguments.data)
    machine = "%s, %d cores" % (processor(), cores())
    print("prepare on %s; %s, Python %s" % (name, machine, platform.python_version()), file=table)
    print("Seconds: median of %d rounds (lowest to highest), start-up included. The other side %s."
          % (arguments.rounds, "evaluates each line, as the original does" if generated else "parses each line by "
             "ast.literal_eval: the original's eval could run what stands in these files"), file=table)
    for share in arguments.fractions:
        with tempfile.TemporaryDirectory() as work:
            if share < 1:
                run_python("-m", "benchmarks.raw_cut", raw, repr(share), work)
            part = work if share < 1 else raw
            reviews, size = count(part)
            seconds, peaks = measure(part, generated, arguments.rounds, plain_rounds)
        print("\n%g of the users: %d reviews, %.3f GB" % (share, reviews, size / 1e9), file=table)
        print("%-12s %26s %28s %24s %11s %7s %14s %9s" % ("step", "ours", "plain", "ratio", "MiB, ours", "plain",
                                                          "ours: s/M rev.", "s/GB"), file=table)
        for step in STEPS:
            result = {"benchmark": "prepare", "step": step, "dataset": name, "fraction": share, "reviews": reviews,
                      "raw_bytes": size}
            result.update(figures(step, seconds, peaks))
            result.update(ours_seconds_per_million_reviews=result["ours"] / reviews * 1e6,
                          ours_seconds_per_gigabyte=result["ours"] / size * 1e9, rounds=arguments.rounds,
                          plain_rounds=plain_rounds, machine=machine, python=platform.python_version())
            # Fields that the lines of all benchmarks have: here no batches, and the other side is the plain one.
            result.update(batch_size=None, padded=result["plain"], floor_share=None)
            print("%-12s %26s %28s %24s %11s %7s %14.2f %9.2f" % (
                step, cell("ours", result), cell("plain", result), cell("ratio", result, "%.1f"),
                result["peak_memory_mib"]["ours"], result["peak_memory_mib"]["plain"] or "-",
                result["ours_seconds_per_million_reviews"], result["ours_seconds_per_gigabyte"]),
                file=table, flush=True)
            if arguments.json:
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run_main(main)
