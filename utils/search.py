"""Hyperparameter search: which learning rate, optimizer and batch size a model trains best with, by validation GAUC.

    python -m utils.search --model NAME [--trials 20] [--epochs 9] [--halving 3] [--seed 0] [--dataset FILE]
                           [--results FOLDER]

Random search (Bergstra and Bengio 2012, JMLR 13) with successive halving (Jamieson and Talwalkar 2016, arXiv
1502.07943): all trials train for a few epochs, the best third goes on to three times as many, and so on up to --epochs.
The numbers of trials and epochs are those of one bracket of Hyperband (Li et al. 2018, arXiv 1603.06560, algorithm 1).

The test set decides nothing: trials do not score it, and the best one does so once, when it has been chosen. The
trials are in save_path/search of the model, each in its folder (runs/trial.py). After an interruption the same command
goes on; with more --trials, or more --epochs, it adds to the trials that are there.
"""
import hashlib
import json
import os
import shlex
import signal
import sys

import numpy as np

from utils import models
from utils.cluster.tf_config import workers_and_index
from utils.commands import SEED, at_least
from utils.data.popularity import popularity_gauc
from utils.data.validation import hold_out_validation
from utils.dataset import fingerprint, read_dataset
from utils.files import ROOT, Parser, UserError, replacing, run_main, set_aside
from utils.report import make_report
from utils.results import RESULTS, SEARCH_COLUMNS, add_rows, check_folder, is_learnt, read_rows
from utils.runs.locks import acquire
from utils.runs.trial import Trial

# The space: a learning rate is drawn from its optimizer's range, uniformly in its logarithm.
LEARNING_RATES = {"sgd": (0.05, 5.0), "adam": (0.0001, 0.01), "lazy_adam": (0.0001, 0.01)}  # lowest, highest
BATCH_SIZES = (128, 256, 512, 1024, 2048)

EVALUATIONS = 5  # in an epoch, whatever the batch size: the best of more would be higher by chance
SEEDS = "1 2 3 4 5"  # with which the command at the end trains the best trial's flags
TABLE = ("trial", "epochs", "optimizer", "learning_rate", "batch_size", "validation_gauc", "validation_auc",
         "best_step", "seconds", "note", "error")
SETTINGS = "search.json"  # in the search's folder: what all its trials share


def flags_of(seed, number, optimizers, examples):
    """The flags of trial `number` of a search, {column of SEARCH_COLUMNS: value}; they follow from these values alone.

    `optimizers` are those to draw from, `examples` how many an epoch has.
    """
    random = np.random.RandomState([seed, number])
    optimizer = optimizers[random.randint(len(optimizers))]
    rate = np.exp(random.uniform(*np.log(LEARNING_RATES[optimizer])))
    batch_size = BATCH_SIZES[random.randint(len(BATCH_SIZES))]
    return {"optimizer": optimizer, "learning_rate": float("%.3g" % rate), "batch_size": batch_size,
            "eval_every": -(-examples // (batch_size * EVALUATIONS))}


def rungs_of(trials, epochs, halving):
    """The rungs of successive halving, the shortest first: [(epochs to which trials are trained, how many trials)].

    With `halving` 1 there is one rung, of all trials.
    """
    lengths = [epochs]
    while 1 < halving <= lengths[0]:
        lengths.insert(0, lengths[0] // halving)
    return [(length, max(1, trials // halving ** index)) for index, length in enumerate(lengths)]


def settings_of(name, seed, data_fingerprint, optimizers):
    """What all trials of a search share, a JSON object: a search with other values is another."""
    code = hashlib.sha256()
    folder = os.path.join(ROOT, models.place_of(name).folder)
    for file_name in sorted(os.listdir(folder)):
        if file_name.endswith(".py"):
            with open(os.path.join(folder, file_name), "rb") as file:
                code.update(file.read())
    return {"model": name, "seed": seed, "data": data_fingerprint, "model's code": code.hexdigest(),
            "space": [{optimizer: list(LEARNING_RATES[optimizer]) for optimizer in optimizers}, list(BATCH_SIZES),
                      EVALUATIONS]}


def begin(folder, settings):
    """Makes `folder` ready for the trials of a search; those of a search with other settings are moved aside."""
    path = os.path.join(folder, SETTINGS)
    try:
        with open(path, encoding="utf-8") as file:
            earlier = dict(json.load(file))
    except (OSError, ValueError, TypeError):  # none, or a damaged file
        earlier = {}
    if earlier == settings:
        print("going on with the search in %s" % os.path.relpath(folder))
        return
    aside = set_aside([os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name != ".lock"], folder)
    if aside:
        differences = [name for name in settings if earlier.get(name) != settings[name]]
        print("the earlier search, of another %s, is in %s" % (differences[0], os.path.relpath(aside)))
    with replacing(path, "w", encoding="utf-8") as file:
        json.dump(settings, file)


def train_to(trial, epochs, place, dataset, lock):
    """Trains a Trial to so many epochs, unless that has been done; prints what comes of it."""
    flags = trial.flags
    print("trial %d to epoch %d: %s, learning rate %g, batch size %d" % (
        trial.number, epochs, flags["optimizer"], flags["learning_rate"], flags["batch_size"]), end="", flush=True)
    if trial.best(epochs) is None and not trial.error:
        error = trial.train(place, ["--epochs", str(epochs), "--dataset", dataset, "--skip_test"], lock)
        if error is not None:
            trial.fail(error)
    best = trial.best(epochs)
    print(": failed: %s" % trial.error if best is None else
          ": validation GAUC %.4f at step %d" % (best["gauc"], best["step"]), flush=True)


def halve(trials, rungs, train):
    """Trains `trials`, Trials, rung by rung, with the function `train` of a trial and epochs.

    Of each rung the best go on to the next. A trial that failed before the end of a rung does not go on.
    """
    for epochs, count in rungs:
        contenders = trials[:count]
        for trial in contenders:
            train(trial, epochs)
        trials = sorted((trial for trial in contenders if trial.best(epochs)),
                        key=lambda trial: -trial.best(epochs)["gauc"])


def ranked(rows):
    """Rows of trials, dictionaries, the best first; those that failed are last."""
    return sorted(rows, key=lambda row: (-float(row["validation_gauc"] or -1), row["trial"]))


def test_row(row, results):
    """The row of results_train.csv that the trial of `row` has added there; None before it has."""
    same = ("model", "dataset_fingerprint", "optimizer", "learning_rate", "batch_size", "eval_every", "epochs", "steps",
            "best_step", "validation_gauc")
    return next((other for other in read_rows(results, "train")
                 if all(other[column] == str(row[column]) for column in same)), None)


def score(trial, row, place, dataset, results, lock):
    """Scores the test set with the best checkpoint of a Trial, of `row`; returns the row of results_train.csv."""
    error = trial.train(place, ["--epochs", str(row["epochs"]), "--dataset", dataset, "--results",
                                os.path.abspath(results)], lock)
    if error is not None:
        raise UserError("the best, trial %d, could not be scored on the test set (%s); mend that, and give the same "
                        "command again" % (trial.number, error))
    return test_row(row, results)


def table_of(rows):
    """The lines of a table of rows of trials."""
    rows = [dict(row, note="" if is_learnt(row) else "not learnt yet") for row in rows]
    columns = [[name.replace("_", " ")] + [str(row[name]) for row in rows] for name in TABLE
               if any(row[name] != "" for row in rows)]
    widths = [max(map(len, column)) for column in columns]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in zip(*columns)]


def command_of(row, dataset, default_dataset):
    """The command that trains with the flags of the trial of `row`, several times."""
    script, data = ("./run.sh", "") if dataset == default_dataset else (
        "./train.sh", " --dataset " + shlex.quote(dataset))
    return ('SEEDS="%s" BATCH_SIZES=%d EPOCHS=%d MODELS=%s %s --optimizer %s --lr %s --eval_every %d '
            "--selection validation%s" % (SEEDS, row["batch_size"], row["epochs"], row["model"], script,
                                          row["optimizer"], row["learning_rate"], row["eval_every"], data))


def search(name, trial_count, epochs, halving, seed, dataset_path, results):
    """Searches, adds the rows of the trials, and that of the best one's training, to the CSVs in `results`.

    Raises:
      UserError: the data has no validation set, another search of the model is at work, its trials here have more
        epochs, the results can't be written, or all trials failed.
    """
    place = models.place_of(name)
    if len(workers_and_index()[0]) > 1:
        raise UserError("TF_CONFIG names several workers, and a search trains on one machine; unset it")
    optimizers = sorted(set(models.training_flags(name)[1]) & set(LEARNING_RATES))
    if not optimizers:
        raise UserError("the space in utils/search.py has no optimizer of %s; add one to its LEARNING_RATES" % name)
    check_folder(results, ("train", "curves", "search"))
    default_dataset = os.path.join(ROOT, place.folder, "dataset.pkl")
    dataset_path = os.path.abspath(dataset_path or default_dataset)
    dataset = read_dataset(dataset_path)
    trained, validation = hold_out_validation(dataset)
    examples, floor = len(trained.train.items), "%.6f" % popularity_gauc(trained, validation)
    head = {"model": name, "dataset": dataset.name, "dataset_fingerprint": fingerprint(dataset), "search_seed": seed,
            "popularity_gauc": floor}
    settings = settings_of(name, seed, head["dataset_fingerprint"], optimizers)
    del dataset, trained, validation  # the trials need the memory
    folder = os.path.join(place.save_path, "search")
    with acquire(os.path.join(folder, ".lock")) as lock:
        begin(folder, settings)
        trials = [Trial(number, flags_of(seed, number, optimizers, examples),
                        os.path.join(folder, "trial_%d" % number), examples) for number in range(trial_count)]
        for trial in trials:
            if trial.is_beyond(epochs):
                raise UserError("the search in %s has trained trial %d for more than %d epochs; give more --epochs, or "
                                "move that folder away" % (folder, trial.number, epochs))
        rungs = rungs_of(trial_count, epochs, halving)
        print("trials to epoch: %s; their logs are %s" % (
            ", ".join("%d to %d" % (count, length) for length, count in rungs),
            os.path.join(os.path.relpath(folder), "trial_*", "log.txt")), flush=True)
        for trial in trials:  # else the best may be one whose checkpoint has more steps than its epochs
            if trial.is_inside_an_epoch() and not trial.error:
                train_to(trial, trial.epochs + 1, place, dataset_path, lock)
        halve(trials, rungs, lambda trial, length: train_to(trial, length, place, dataset_path, lock))
        rows = ranked(dict(dict.fromkeys(SEARCH_COLUMNS, ""), **head, **trial.row()) for trial in trials)
        add_rows(results, {"search": rows})
        print("\n".join([""] + table_of(rows) + [""]))
        best = rows[0]
        if best["error"]:
            raise UserError("no trial of %d came to its end, the first for this: %s; see its log in %s"
                            % (trial_count, best["error"], folder))
        trial = trials[best["trial"]]
        tested = test_row(best, results) or score(trial, best, place, dataset_path, results, lock)
    print("The best is trial %d: validation GAUC %.4f, test GAUC %.4f; its checkpoint is in %s"
          % (trial.number, float(tested["validation_gauc"]), float(tested["best_gauc"]), os.path.relpath(trial.folder)))
    print("The report is %s" % os.path.relpath(make_report(results)))
    print("Train with its flags, several times:\n%s" % command_of(best, dataset_path, default_dataset))


def main():
    parser = Parser(prog="python -m utils.search", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="one of: " + " ".join(models.names()))
    parser.add_argument("--trials", type=at_least(1), default=20, help="how many to draw (default: %(default)s)")
    parser.add_argument("--epochs", type=at_least(1), default=9,
                        help="passes over the data of the longest trials (default: %(default)s)")
    parser.add_argument("--halving", type=at_least(1), default=3, metavar="N", help="the best 1/N of the trials go on "
                        "to N times the epochs; 1: all trials have all epochs (default: %(default)s)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the trials' flags (default: %(default)s)")
    parser.add_argument("--dataset", help="made by build_dataset.py (default: dataset.pkl in the model's folder)")
    parser.add_argument("--results", default=RESULTS, help="folder of the CSVs (default: %(default)s)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the trial's process is ended, too
    try:
        search(arguments.model, arguments.trials, arguments.epochs, arguments.halving, arguments.seed,
               arguments.dataset, arguments.results)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on")
        raise


if __name__ == "__main__":
    run_main(main)
