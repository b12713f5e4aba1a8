"""The arguments of run.sh, train.sh and infer.sh, checked before a script moves or runs anything.

    python -m utils.script_arguments SCRIPT MODELS BATCH_SIZES NUM_ACCELERATORS [ARGUMENT ...]

They go to each train.py or infer.py, beside the flags that the script sets from its variables.
"""
import os
import sys

from utils import models
from utils.cluster.tf_config import workers_and_index
from utils.commands import check_flags_of_infer, given_flags, infer_parser, train_parser
from utils.files import ROOT, UserError, run_main

HELP, RANKING = 10, 11  # exit statuses: --help was answered; with --top_k, nothing is measured
VARIABLES = {"batch_size": "BATCH_SIZES", "num_accelerators": "NUM_ACCELERATORS", "epochs": "EPOCHS"}
FOLDERS = {"save_path": "save_path/batch_<size> of each model", "results": "results"}


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
        if os.environ.get("DURATION") and "duration" in given:
            raise UserError("DURATION is set, and --duration is given; leave one of them out")
        if infers:
            check_flags_of_infer(arguments, given)
            ranks = bool(arguments.top_k)
            if ranks and num_accelerators > 1:
                raise UserError("NUM_ACCELERATORS is %d, and --top_k ranks on one accelerator; leave one of them out"
                                % num_accelerators)
            count = len(names) * len(batch_sizes)
            if "output" in given and count > 1:
                raise UserError("--output is one file, and there are %d rankings; leave it out, and each is in its "
                                "checkpoint's folder, or give one of MODELS and one of BATCH_SIZES" % count)
    return ranks


def main():
    script, names, batch_sizes, num_accelerators = sys.argv[1:5]
    try:
        ranks = check_arguments(script, names.split(), batch_sizes.split(), int(num_accelerators), sys.argv[5:])
    except SystemExit:
        sys.exit(HELP)
    if ranks:
        sys.exit(RANKING)


if __name__ == "__main__":
    run_main(main)
