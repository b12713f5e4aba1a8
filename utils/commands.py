"""The commands of a model's folder, build_dataset.py, train.py, infer.py, export.py: arguments, and what they call."""
import argparse
import functools
import importlib
import math
import os
import sys

from utils import models, timing  # noqa: F401  timing: its clock counts a script's start-up
from utils.files import Parser, UserError, run_main
from utils.results import RESULTS

LARGEST_COUNT = 10 ** 12  # of whole numbers that have no limit of their own


def at_least(low, high=None):
    """An argument type: a whole number of `low` or more, up to `high` where one is given."""
    def parse(text):
        value = int(text)
        if high is not None and not low <= value <= high:
            raise argparse.ArgumentTypeError("%d is not in %d .. %d" % (value, low, high))
        if value < low:
            raise argparse.ArgumentTypeError("%d is less than %d" % (value, low))
        if value > LARGEST_COUNT:
            raise argparse.ArgumentTypeError("%d is more than %d" % (value, LARGEST_COUNT))
        return value
    parse.__name__ = "whole number"  # argparse names the type where int() fails
    return parse


def positive_float(text):
    """An argument type: a finite number above 0."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("%s is not a number above 0" % text)
    return value


def not_negative(text):
    """An argument type: a finite number, 0 or more."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("%s is not a number, 0 or more" % text)
    return value


def share(text):
    """An argument type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("%s is not a number from 0 to 1" % text)
    return value or 0  # as the default is written


LARGEST_SEED = 2 ** 31 - 1  # NumPy takes it, and TensorFlow
SEED = at_least(0, LARGEST_SEED)
TRAINED_SAVE_PATH = "folder of the checkpoint (default: the best in save_path and save_path/batch_*)"


def model_parser(folder, description, save_path_help=TRAINED_SAVE_PATH):
    """A parser with the arguments that say which model in `folder` is meant, and which of its checkpoints."""
    parser = Parser(description=description)
    parser.add_argument("--save_path", help=save_path_help)
    parser.add_argument("--dataset", default=os.path.join(folder, "dataset.pkl"),
                        help="made by build_dataset.py (default: %(default)s)")
    parser.set_defaults(variant="")
    variants = [place.variant for place in models.places().values()
                if place.variant and place.folder == os.path.basename(folder)]
    choice = parser.add_mutually_exclusive_group() if variants else None  # --help fails with a group of none
    for variant in variants:
        choice.add_argument("--" + variant, action="store_const", dest="variant", const=variant, default="",
                            help="the variant of model_{0}.py; its default save_path is save_path/{0}".format(variant))
    return parser


def common_parser(folder, description, save_path_help=TRAINED_SAVE_PATH):
    """A parser with the arguments that training and inference of the model in `folder` share."""
    parser = model_parser(folder, description, save_path_help)
    parser.add_argument("--batch_size", type=at_least(1), default=256, help="recommendations (training) or users "
                        "(inference) per accelerator (default: %(default)s)")
    parser.add_argument("--num_accelerators", type=at_least(1), default=1,
                        help="devices to split each batch over (default: %(default)s)")
    parser.add_argument("--results", default=RESULTS, help="folder of the CSVs (default: %(default)s)")
    return parser


def train_parser(folder, description, optimizer, learning_rates):
    """A parser with all of train.py's arguments; `learning_rates` has the initial one with each optimizer."""
    parser = common_parser(folder, description,
                           "folder of checkpoints and TensorBoard logs (default: save_path in the model's folder)")
    parser.set_defaults(learning_rates=learning_rates)
    parser.add_argument("--epochs", type=at_least(1), default=2, help="passes over the data (default: %(default)s)")
    parser.add_argument("--optimizer", choices=sorted(learning_rates), default=optimizer, help="default: %(default)s")
    parser.add_argument("--lr", type=positive_float, help="initial learning rate (default: %s)" % ", ".join(
        "%g for %s" % (rate, name) for name, rate in sorted(learning_rates.items())))
    parser.add_argument("--eval_every", type=at_least(1), default=1000,
                        help="steps between evaluations (default: %(default)s)")
    parser.add_argument("--seed", type=SEED, default=1234,
                        help="of initial values and of the order of examples (default: %(default)s)")
    parser.add_argument("--max_steps", type=at_least(0), default=0,
                        help="stop after so many steps; 0: no limit (default)")
    parser.add_argument("--selection", choices=["test", "validation"], default="test", help="what the best checkpoint "
                        "is chosen by: the test set, as the original does (default), or a validation set, the last "
                        "purchase but one of each user, left out of training; the test set is then scored once, at the "
                        "end")
    parser.add_argument("--skip_test", action="store_true", help="with --selection validation: leave the test set "
                        "unscored and add no rows to the CSVs, as the trials of a search do (python -m utils.search); "
                        "--resume without it does both")
    parser.add_argument("--patience", type=at_least(0), default=0, metavar="N",
                        help="end after so many evaluations without a better one; 0: never (default)")
    parser.add_argument("--target_gauc", type=share, default=0, metavar="GAUC",
                        help="end at the first evaluation that reaches it, and record the time; 0: none (default)")
    parser.add_argument("--resume", nargs="?", const="always", choices=["always", "unfinished"],
                        help="go on from the latest checkpoint in save_path; unfinished: where it is of such a run "
                        "that was interrupted, else start anew")
    parser.add_argument("--profile", action="store_true", help="trace a few steps, operation by operation: prints "
                        "those that took longest, and writes save_path/trace.json for a browser's trace viewer")
    return parser


def infer_parser(folder, description):
    """A parser with all of infer.py's arguments."""
    parser = common_parser(folder, description)
    parser.add_argument("--num_ads", type=at_least(2), default=2, help="candidates scored per user: the positive, the "
                        "negative, and others drawn (default: %(default)s)")
    parser.add_argument("--seed", type=SEED, default=1234, help="of the candidates drawn (default: %(default)s)")
    parser.add_argument("--duration", type=not_negative, metavar="SECONDS", help="score the test set over and over for "
                        "so long, 0: once (default: the clocks count it once, then it goes on until the figure is "
                        "steady, 2 to 30 seconds)")
    parser.add_argument("--top_k", type=at_least(1), metavar="K", help="instead: rank the whole catalogue for each "
                        "test user and write the highest K items; on one accelerator")
    parser.add_argument("--output", help="with --top_k: the CSV to write (default: recommendations.csv in the "
                        "checkpoint's folder)")
    parser.add_argument("--users", type=at_least(1),
                        help="with --top_k: of the first so many test users (default: all)")
    parser.add_argument("--remap", help="with --top_k: the original ids (default: raw_data/remap.pkl)")
    return parser


def export_parser(folder, description):
    """A parser with all of export.py's arguments."""
    parser = model_parser(folder, description)
    parser.add_argument("--format", choices=["saved_model", "frozen", "onnx"], default="saved_model",
                        help="default: %(default)s")
    parser.add_argument("--output", help="a folder, in which a SavedModel is a version, one more than the highest "
                        "there, or a file (default: saved_model, frozen.pb or padded.onnx in the checkpoint's folder)")
    parser.add_argument("--remap", nargs="?", const="", metavar="FILE", help="the original ids, for the SavedModel to "
                        "say what each item id stands for (FILE: raw_data/remap.pkl, where none is named)")
    return parser


def given_flags(parser, words=None):
    """The names of the arguments that the command line, or the list `words`, gives: not those left at their default."""
    absent = object()
    names = vars(parser.parse_args(words))
    given = parser.parse_args(words, argparse.Namespace(**dict.fromkeys(names, absent)))
    return {name for name in names if getattr(given, name) is not absent}


def check_flags_of_infer(arguments, given):
    """Raises UserError where a flag of infer.py would have no effect.

    Args:
      arguments: the parsed ones.
      given: the names of those that are given, as of `given_flags`.
    """
    if not arguments.top_k:
        for flag in sorted(given & {"output", "users", "remap"}):
            raise UserError("--%s goes with --top_k; see infer.py --help" % flag)
        if "seed" in given and arguments.num_ads == 2:
            raise UserError("--seed is of the candidates drawn, and none are; give --num_ads 3 or more with it")
        return
    for flag in sorted(given & {"batch_size", "duration", "num_ads", "results", "seed"}):
        raise UserError("--%s does not go with --top_k, which ranks the whole catalogue; leave one of them out" % flag)
    if arguments.num_accelerators > 1:
        raise UserError("--num_accelerators is %d, and --top_k ranks on one accelerator; leave one of them out"
                        % arguments.num_accelerators)


def _parsed(folder, parser):
    """Parses the command line of a model's script; returns (arguments, what the CSVs call the model)."""
    arguments = parser.parse_args()
    return arguments, "_".join(filter(None, (os.path.basename(folder), arguments.variant)))


def _call(function, *arguments):
    """Calls a function of utils, imported now that the flags are right: TensorFlow takes seconds to load."""
    module, _, name = function.rpartition(".")
    getattr(importlib.import_module("utils." + module), name)(*arguments)


def _command(run):
    """Makes `run`, of a model's folder and a description, a command of a script's path, run as its main program."""
    @functools.wraps(run)
    def command(script, *arguments):
        folder, description = os.path.dirname(os.path.abspath(script)), sys.modules["__main__"].__doc__
        run_main(lambda: run(folder, description, *arguments))
    return command


def _batches(folder):
    """What the model in `folder` reads: its input.py."""
    return importlib.import_module(os.path.basename(folder) + ".input")


@_command
def build_dataset(folder, description):
    """The command `python build_dataset.py`: remap.pkl -> dataset.pkl."""
    _call("dataset.build_dataset", folder, description)


@_command
def train(folder, description, optimizer, learning_rates):
    """The command `python train.py`, of a model with a default `optimizer` and {optimizer: initial learning rate}."""
    arguments, name = _parsed(folder, train_parser(folder, description, optimizer, learning_rates))
    if not arguments.save_path:
        arguments.save_path = models.place_of(name).save_path
    _call("train_loop.train", models.model_class(name), _batches(folder), name, arguments)


@_command
def infer(folder, description):
    """The command `python infer.py`."""
    parser = infer_parser(folder, description)
    arguments, name = _parsed(folder, parser)
    check_flags_of_infer(arguments, given_flags(parser))
    if arguments.top_k:
        _call("serving.ranking.recommend", models.model_class(name), name, arguments)
    else:
        _call("infer_loop.infer", models.model_class(name), _batches(folder), name, arguments)


@_command
def export(folder, description):
    """The command `python export.py`."""
    arguments, name = _parsed(folder, export_parser(folder, description))
    if arguments.remap is not None and arguments.format != "saved_model":
        raise UserError("--remap goes with --format saved_model; see export.py --help")
    _call("serving.export.export", models.model_class(name), name, arguments)
