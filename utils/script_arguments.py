"""The arguments of run.sh, train.sh and infer.sh, checked before a script moves or runs anything.

    python -m utils.script_arguments SCRIPT MODELS BATCH_SIZES NUM_ACCELERATORS [ARGUMENT ...]

They go to each train.py or infer.py, beside the flags that the script sets from its variables. SEEDS, TARGET_GAUC,
DURATION and NUM_WORKERS are read from the environment.
"""
import argparse
import os
import sys

from utils import models
from utils.cluster.tf_config import workers_and_index
from utils.commands import LARGEST_SEED, SEED, check_flags_of_infer, given_flags, infer_parser, share, train_parser
from utils.files import ROOT, UserError, run_main

HELP, RANKING = 10, 11  # exit statuses: --help was answered; with --top_k, nothing is measured
VARIABLES = {"batch_size": "BATCH_SIZES", "num_accelerators": "NUM_ACCELERATORS", "epochs": "EPOCHS"}
TRAINING_VARIABLES = {"seed": "SEEDS", "target_gauc": "TARGET_GAUC"}  # flags of train.py, set where these are
INFERENCE_VARIABLES = {"duration": "DURATION"}
FOLDERS = {"save_path": "save_path/batch_<size> of each model", "results": "results"}


def _is(argument_type, text):
    """Whether a parser takes `text` as of `argument_type`, such as SEED."""
    try:
        argument_type(text)
        return True
    except (ValueError, argparse.ArgumentTypeError):
        return False


def _seeds():
    """The words of SEEDS."""
    return [word for word in os.environ.get("SEEDS", "").split(" ") if word]


def check_variables():
    """Raises UserError where SEEDS or TARGET_GAUC has what train.py does not take, or a seed has needless signs."""
    for word in _seeds():
        if not (_is(SEED, word) and word == str(int(word))):  # a folder bears its name
            raise UserError("SEEDS has %s; give whole numbers, each from 0 to %d" % (word, LARGEST_SEED))
    target = os.environ.get("TARGET_GAUC")
    if target and not _is(share, target):
        raise UserError("TARGET_GAUC is %s; give a number from 0 to 1" % target)


def _check_one_ranking(values):
    """Raises UserError where `values`, {variable: what it names}, ask for several rankings."""
    several = [variable for variable, names in values.items() if len(names) > 1]
    if several:
        count = 1
        for variable in several:
            count *= len(values[variable])
        raise UserError("--output is one file, and there are %d rankings; leave it out, and each is in its "
                        "checkpoint's folder, or give one of %s" % (count, " and one of ".join(several)))


def check_arguments(script, names, batch_sizes, num_accelerators, words):
    """Returns whether the arguments `words` ask for rankings instead of measurements.

    Args:
      script: run.sh, train.sh or infer.sh.
      names: of the models that it runs.
      batch_sizes: the sizes at which it runs each of them.
      num_accelerators: on which it does.

    Raises:
      UserError: an argument is unknown, has a bad value or no effect, or is one that the script sets; or TF_CONFIG
        names several workers.
      SystemExit: one is --help, which is answered.
    """
    if len(workers_and_index()[0]) > 1:
        raise UserError("TF_CONFIG names several workers, which is for train.py itself on each machine; run that, or "
                        "unset it")
    ranks = False
    for name in names:
        place = models.place_of(name)
        folder, infers = os.path.join(ROOT, place.folder), script == "infer.sh"
        parser = infer_parser(folder, "") if infers else train_parser(folder, "", *models.training_flags(name))
        parser.prog = "./" + script
        arguments, given = parser.parse_args(words), given_flags(parser, words)
        for flag, variable in VARIABLES.items():
            if flag in given:
                raise UserError("%s sets --%s; use the variable: %s=%s ./%s"
                                % (script, flag, variable, getattr(arguments, flag), script))
        if "variant" in given:
            raise UserError("--%s is a model for the scripts; use the variable: MODELS=%s_%s ./%s"
                            % (arguments.variant, place.folder, arguments.variant, script))
        for flag, place_of_files in FOLDERS.items():
            if flag in given:
                raise UserError("%s sets --%s, to %s; leave it out, or run %s itself"
                                % (script, flag, place_of_files, "infer.py" if infers else "train.py"))
        if script == "run.sh" and "dataset" in given:
            raise UserError("run.sh gives --dataset to training alone; run ./train.sh and ./infer.sh with it")
        if "skip_test" in given:
            raise UserError("--skip_test leaves no row in the results, which are what %s is for; leave it out" % script)
        if "profile" in given and int(os.environ.get("NUM_WORKERS") or 1) > 1:
            raise UserError("--profile traces one machine; leave it out, or unset NUM_WORKERS")
        for flag, variable in (INFERENCE_VARIABLES if infers else TRAINING_VARIABLES).items():
            if flag in given and os.environ.get(variable):
                raise UserError("%s is set, and --%s is given; leave one of them out" % (variable, flag))
        if infers:
            check_flags_of_infer(arguments, given)
            ranks = bool(arguments.top_k)
            if ranks and num_accelerators > 1:
                raise UserError("NUM_ACCELERATORS is %d, and --top_k ranks on one accelerator; leave one of them out"
                                % num_accelerators)
            if "output" in given:
                _check_one_ranking({"MODELS": names, "BATCH_SIZES": batch_sizes, "SEEDS": _seeds()})
    return ranks


def main():
    script, names, batch_sizes, num_accelerators = sys.argv[1:5]
    check_variables()
    try:
        ranks = check_arguments(script, names.split(), batch_sizes.split(), int(num_accelerators), sys.argv[5:])
    except SystemExit:
        sys.exit(HELP)
    if ranks:
        sys.exit(RANKING)


if __name__ == "__main__":
    run_main(main)
