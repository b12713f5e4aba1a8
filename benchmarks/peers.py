"""Training throughput beside DeepCTR, the library that many use for such models: this project and DeepCTR in one run.

    python -m benchmarks.peers --data din

Both train DIN on the same examples, in the same order, on the CPU: embeddings of 64 + 64, attention 80-40-1 with a
softmax over the history, hidden layers 80 and 40, sigmoid, Adam 0.001, no dropout, no L2. What differs between the
models, and the ways in which DeepCTR is tried, is in peer_deepctr.py; DeepCTR's other models have too little in common
with this project's to be compared. Each side has a process to itself and waits while the other is measured. This
project makes its batches while the clock runs, as always; DeepCTR is given padded tensors that are ready.

DeepCTR lies in an environment of its own, which the first run makes (requirements/peers.txt).
"""
import argparse
import collections
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys

import numpy as np

from benchmarks.command import Table, add_json_argument, check_batch_sizes, summary, with_spread
from benchmarks.measure import steps_that_last, time_steps
from benchmarks.peer_deepctr import serve
from benchmarks.sides import OurSide, find_dataset
from benchmarks.train import batches
from utils.commands import at_least, positive_float
from utils.dataset import read_dataset
from utils.files import ROOT, Parser, UserError, replacing, run_main
from utils.installation import pip_variables
from utils.runs.locks import acquire
from utils.tf1 import tf
from utils.towers import describe_device

REQUIREMENTS = os.path.join(ROOT, "requirements", "peers.txt")
ENVIRONMENT = os.path.join(ROOT, ".venv-peers")
PYTHONS = (3, 9), (3, 11)  # the lowest and the highest that its TensorFlow is made for
MARK, LOCK = "deepctr_environment.txt", ".lock"
ACTIVATIONS = {"din": "sigmoid", "din_dice": "dice"}  # models, and DeepCTR's name of the last MLP's activation
# What this project and its TensorFlow set for themselves; DeepCTR's TensorFlow is left as it comes.
SET_HERE = "TF_USE_LEGACY_KERAS", "TF_OVERRIDE_GLOBAL_THREADPOOL", "TF2_BEHAVIOR", "NVIDIA_TF32_OVERRIDE"
LEARNING_STEPS = 80  # on both sides, before the rounds
MEAN_STEPS = 20      # whose mean loss is reported, at the start and at the end of these
CHOICE_STEPS = 4     # that the ways of DeepCTR are tried on
LEAST_STEPS = 5      # of DeepCTR in a round


# ---- DeepCTR's environment -------------------------------------------------------------------------------------------

def python_of(folder):
    """The Python of the environment in `folder`."""
    return os.path.join(folder, "bin", "python")


def is_complete(folder):
    """Whether `folder` has DeepCTR's environment, whole and of the present requirements."""
    path = os.path.join(folder, MARK)
    if not os.path.isfile(path):
        return False
    with open(path) as mark, open(REQUIREMENTS) as requirements:
        return mark.read() == requirements.read()


def check_python(python):
    """Raises UserError unless DeepCTR's TensorFlow is made for the command `python`."""
    remedy = "name a Python 3.9 to 3.11 with --base_python, for example --base_python python3.11"
    try:
        text = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], stdout=subprocess.PIPE,
                              check=True, universal_newlines=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise UserError("%s can't be run; %s" % (python, remedy)) from None
    version = tuple(map(int, text.split()))
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        raise UserError("%s is Python %d.%d, which DeepCTR's TensorFlow 2.15 is not made for; %s"
                        % ((python,) + version + (remedy,)))


def make_environment(folder, base_python):
    """Makes DeepCTR's environment in `folder` with the command `base_python`, unless it is there and complete.

    An environment has its place written into it, so it can't be made beside and renamed. A file in it, MARK, holds the
    requirements once it is whole, and before tells that the folder is this command's to empty.

    Raises:
      UserError: the folder holds other things, the Python does not fit, or the packages can't be installed.
    """
    if is_complete(folder):
        return
    check_python(base_python)
    if os.path.isdir(folder) and not {MARK, LOCK} & set(os.listdir(folder)) and os.listdir(folder):
        raise UserError("%s holds other things than DeepCTR's environment; name a new folder with --environment"
                        % folder)
    with acquire(os.path.join(folder, LOCK)), open(REQUIREMENTS) as file:
        with replacing(os.path.join(folder, MARK), "w") as mark:
            mark.write("not complete\n")
        print("Making DeepCTR's environment in %s" % folder, file=sys.stderr, flush=True)
        for name in set(os.listdir(folder)) - {MARK, LOCK}:
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.remove(path)
        _run([base_python, "-m", "venv", folder],
             "%s can't make a virtual environment; install its venv package" % base_python)
        _run([python_of(folder), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", REQUIREMENTS],
             "pip can't install requirements/peers.txt, see above; mend that and run this again")
        with replacing(os.path.join(folder, MARK), "w") as mark:
            mark.write(file.read())


def _run(command, message):
    if subprocess.run(command, stdout=sys.stderr, env=pip_variables()).returncode:
        raise UserError(message)


# ---- the two sides ---------------------------------------------------------------------------------------------------

class Side:
    """A side in a process of its own: its methods are called here, and run there by `serve`.

    Args:
      name: in messages.
      command: of the process.
      arguments: of the side's class.
    """

    def __init__(self, name, command, *arguments):
        self._name = name
        variables = {key: value for key, value in os.environ.items() if key not in SET_HERE}
        self._process = subprocess.Popen(command, cwd=ROOT, env=dict(variables, CUDA_VISIBLE_DEVICES="-1"),
                                         stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, universal_newlines=True,
                                         start_new_session=True)  # Ctrl-C ends this process, and this one ends that
        self._tell(arguments)

    def __getattr__(self, method):
        def call(*arguments):
            self._tell([method, arguments])
            answer = self._process.stdout.readline()
            if not answer:
                raise UserError("the process of %s ended with status %d, see above; where memory ran out lower "
                                "--batch_sizes or --cut" % (self._name, self._process.wait()))
            return json.loads(answer)
        return call

    def _tell(self, value):
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no answer
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()


class Ours:
    """This project's side.

    Args:
      model: a model's name.
      data: the path of a dataset.pkl.
      cut: as of `cut_histories`.
      batch_size: of each batch.
    """

    def __init__(self, model, data, cut, batch_size):
        self._dataset, self._batch_size = cut_histories(read_dataset(data), cut), batch_size
        self._side = OurSide(model, True, self._dataset, batch_size, optimizer="adam")
        self._stream = self._side.prefetch(batches(self._dataset, batch_size))

    def describe(self):
        """The device and "parameters", the count of trainable numbers, in a dictionary."""
        parameters = sum(variable.shape.num_elements() for variable in self._side.graph.variables)
        return {"device": describe_device(1), "parameters": parameters}

    def learn(self, steps):
        """Trains on the next `steps` batches; returns the loss of each before its step."""
        return [self._side.step(batch) for batch in itertools.islice(self._stream, steps)]

    def steps_that_last(self, seconds):
        """How many steps last about `seconds`."""
        return steps_that_last(seconds, self._side.step, self._side.prefetch(batches(self._dataset, self._batch_size)))

    def measure(self, steps):
        """Trains on the next `steps` batches; returns the seconds that it takes, their preparation included."""
        return time_steps(self._side.step, itertools.islice(self._stream, steps))[0]


def cut_histories(dataset, cut):
    """`dataset` with each training history cut to its last `cut` items; 0: as it is."""
    train = dataset.train
    left_out = np.maximum(train.lengths - cut, 0) if cut else 0
    return dataset._replace(train=train._replace(offsets=train.offsets + left_out, lengths=train.lengths - left_out))


def as_lists(batch):
    """A `Batch` as DeepCTR's side is sent it: history [N], lengths [B], candidates [B], labels [B]."""
    columns = batch.history, batch.lengths, batch.candidates[:, 0], batch.labels[:, 0]
    return [column.tolist() for column in columns]


# ---- measuring -------------------------------------------------------------------------------------------------------

def compare(ours, deepctr, stream, batch_size, rounds, seconds):
    """Lets both sides learn, then measures them in alternating rounds.

    A round is this project's steps, then DeepCTR's on the first of the same batches: it gets through fewer.

    Args:
      ours: an `Ours`, or the `Side` of one.
      deepctr: the same of a `DeepCTR`.
      stream: the batches, from the first on.
      batch_size: recommendations in each.
      rounds: how many.
      seconds: of each side in a round, about.

    Returns:
      A dictionary: the medians of "ours", "deepctr", in recommendations per second, and of their "ratio"; "spread", the
      lowest and the highest of each; "loss", of each side the mean over the first MEAN_STEPS steps and over the last of
      LEARNING_STEPS; "ways", the recommendations per second of each way of DeepCTR; "way", the one measured; "steps".
    """
    first = [as_lists(batch) for batch in itertools.islice(stream, LEARNING_STEPS)]
    losses = {"ours": ours.learn(len(first)), "deepctr": deepctr.learn(first)}
    ways = deepctr.choose(first[:CHOICE_STEPS])
    way = max(ways, key=ways.get)
    steps = ours.steps_that_last(seconds)
    deepctr_steps = min(steps, max(LEAST_STEPS, round(seconds * ways[way] / batch_size)))
    deepctr.load([[as_lists(batch) for batch in list(itertools.islice(stream, steps))[:deepctr_steps]]
                  for _ in range(rounds)])
    figures = collections.defaultdict(list)
    for number in range(rounds):
        figures["ours"].append(batch_size * steps / ours.measure(steps))
        figures["deepctr"].append(batch_size * deepctr_steps / deepctr.measure(number))
        figures["ratio"].append(figures["ours"][-1] / figures["deepctr"][-1])
    return dict(
        summary(figures),
        loss={side: [float(np.mean(values[:MEAN_STEPS])), float(np.mean(values[-MEAN_STEPS:]))]
              for side, values in losses.items()},
        ways=ways, way=way, steps={"ours": steps, "deepctr": deepctr_steps})


def measure(model, data, python, cut, batch_size, rounds, seconds):
    """`compare` in processes, with what both sides tell of themselves; `data` and `python` are paths."""
    dataset = cut_histories(read_dataset(data), cut)
    longest = int(dataset.train.lengths.max())
    our_side = Side("this project", [sys.executable, "-m", "benchmarks.peers", "--work"], model, data, cut, batch_size)
    deepctr_side = Side("DeepCTR", [python, "-I", os.path.join("benchmarks", "peer_deepctr.py")], ACTIVATIONS[model],
                        dataset.cate_list.tolist(), dataset.cate_count, longest, batch_size)
    with our_side as ours, deepctr_side as deepctr:
        result = compare(ours, deepctr, batches(dataset, batch_size), batch_size, rounds, seconds)
        about_ours, about_deepctr = ours.describe(), deepctr.describe()
    return dict(
        result, longest=longest, device=about_ours["device"], deepctr_version=about_deepctr["deepctr"],
        parameters={"ours": about_ours["parameters"], "deepctr": about_deepctr["parameters"]},
        tensorflow={"ours": tf.__version__, "deepctr": about_deepctr["tensorflow"]})


def warn_of_losses(table, result):
    """Prints a line for a side whose loss did not fall."""
    for side, (first, last) in result["loss"].items():
        if not last < first:
            table.title("warning: the loss of %s did not fall in %d steps (%.4f to %.4f), so it is not known to learn"
                        % (side, LEARNING_STEPS, first, last))


def main():
    parser = Parser(prog="python -m benchmarks.peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", default="small",
                        help="small or full, or a dataset.pkl, or the folder of one (default: %(default)s)")
    parser.add_argument("--model", choices=sorted(ACTIVATIONS), default="din", help="default: %(default)s")
    parser.add_argument("--batch_sizes", type=at_least(1), nargs="+", default=[256, 1024], metavar="SIZE",
                        help="default: 256 1024")
    parser.add_argument("--cut", type=at_least(0), nargs="+", default=[0, 100], metavar="ITEMS",
                        help="histories are cut to their last ITEMS, on both sides; 0: uncut (default: 0 100)")
    parser.add_argument("--rounds", type=at_least(1), default=3,
                        help="how often the sides alternate (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_float, default=2.0,
                        help="of each side in a round, about (default: %(default)s)")
    parser.add_argument("--environment", default=ENVIRONMENT, metavar="FOLDER",
                        help="DeepCTR's, made where it is not there yet (default: .venv-peers in the project)")
    parser.add_argument("--base_python", default=sys.executable, metavar="PYTHON",
                        help="a Python 3.9 to 3.11 to make it with (default: the one that runs this)")
    add_json_argument(parser)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)  # as this project's side
    arguments = parser.parse_args()
    if arguments.work:
        return serve(Ours)
    data = os.path.abspath(find_dataset(arguments.data))
    dataset = read_dataset(data)
    check_batch_sizes(arguments.batch_sizes, len(dataset.train.items), dataset.name)
    environment = os.path.abspath(arguments.environment)
    make_environment(environment, arguments.base_python)
    table = Table(arguments.json, [
        ("histories", 9, "{histories}"), ("batch", 7, "{batch_size:,}"), ("ours", 28, with_spread("ours", ",.0f")),
        ("DeepCTR", 24, with_spread("deepctr", ",.0f")), ("ratio", 20, with_spread("ratio", ".1f")),
        ("DeepCTR's way", 16, "{way}")])
    table.title("training, %s on %s, on the CPU; TensorFlow %s" % (arguments.model, dataset.name, tf.__version__))
    table.title("Recommendations per second: median of %d rounds (lowest to highest)." % arguments.rounds)
    for cut, batch_size in itertools.product(arguments.cut, arguments.batch_sizes):
        result = dict(
            measure(arguments.model, data, python_of(environment), cut, batch_size, arguments.rounds,
                    arguments.seconds),
            benchmark="peers", model=arguments.model, dataset=dataset.name, batch_size=batch_size, cut=cut,
            histories=str(cut or "uncut"), rounds=arguments.rounds)
        table.row(result)
        warn_of_losses(table, result)
    return None


if __name__ == "__main__":
    run_main(main)
