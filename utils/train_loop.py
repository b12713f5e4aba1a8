"""Training: epochs, evaluation, best and latest checkpoint, TensorBoard, the row in results_train.csv."""
import os
import sys

import numpy as np
from tqdm import tqdm

from utils import metrics
from utils.checkpoints import LATEST, Checkpoints
from utils.dataset import fingerprint, read_dataset
from utils.files import UserError
from utils.locks import acquire
from utils.optimizers import learning_rate_at
from utils.results import TRAIN_COLUMNS, add_row, report_throughput
from utils.tf1 import tf
from utils.timing import Stopwatch, system_seconds
from utils.towers import describe_device, session_config, shards

TEST_BATCH_SIZE = 1024  # users per accelerator; scores don't depend on it
SUMMARY_EVERY = 100     # steps between two points of TensorBoard's curves of loss and throughput
CHANCE_DEVIATIONS = 3   # a GAUC within so many standard deviations of one half is at chance level


def log(line):
    """Prints a line of the log at once, above the progress bar where there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def build(model_class, dataset, num_accelerators, batch_size, optimizer=None):
    """Builds the model's graph, in the default graph, for `dataset` and batches of `batch_size` per accelerator."""
    return model_class(dataset.item_count, dataset.cate_count, dataset.cate_list, num_accelerators, optimizer,
                       shards(num_accelerators, batch_size))


def settings(name, dataset, arguments):
    """The columns that say what a row of either CSV was measured with, a dictionary."""
    return {"model": name, "dataset": dataset.name, "batch_size": arguments.batch_size,
            "num_accelerators": arguments.num_accelerators, "device": describe_device(arguments.num_accelerators),
            "tensorflow": tf.__version__}


class Summaries:
    """TensorBoard's curves, written into `save_path`; a resumed run goes on where it stopped, at `step`."""

    def __init__(self, save_path, graph, step):
        self._writer = tf.summary.FileWriter(save_path, graph)
        if step:  # hides what the interrupted run wrote after its last checkpoint
            self._writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)

    def add(self, step, **values):
        """Adds a point to the curve of each name."""
        self._writer.add_summary(tf.Summary(value=[
            tf.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]), step)

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()


def identity(name, arguments, dataset):
    """What a run must share with a checkpoint to resume from it, as a JSON object."""
    return {"model": name, "dataset": dataset.name, "dataset_fingerprint": fingerprint(dataset),
            "seed": arguments.seed, "global_batch_size": arguments.batch_size * arguments.num_accelerators,
            "optimizer": arguments.optimizer, "lr": arguments.lr}


def check_identity(found, expected, save_path):
    """Raises UserError where the checkpoint in `save_path` belongs to another run; only keys of `expected` count."""
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError("the checkpoint in %s is of another run: its %s is %s, not %s; give its flags, or another "
                            "--save_path" % (save_path, key, found.get(key), value))


def train(model_class, batches, name, arguments):
    """Trains a model and adds its row to results_train.csv.

    Args:
      model_class: a subclass of BaseModel.
      batches: what it reads: the module input.py of its folder, with train_batches and test_batches.
      name: what the CSVs call it.
      arguments: the parsed arguments of train.py.

    Raises:
      UserError: the data set, a flag or the checkpoint to resume from is not as it must be.
    """
    if arguments.lr is None:
        arguments.lr = arguments.learning_rates[arguments.optimizer]
    dataset = read_dataset(arguments.dataset)
    batch_size = arguments.batch_size * arguments.num_accelerators
    if batch_size > len(dataset.train.items):
        raise UserError("a batch of %d is larger than the training set of %d; lower --batch_size"
                        % (batch_size, len(dataset.train.items)))
    with acquire(os.path.join(arguments.save_path, ".lock")), tf.Graph().as_default() as graph:
        tf.set_random_seed(arguments.seed)
        model = build(model_class, dataset, arguments.num_accelerators, arguments.batch_size, arguments.optimizer)
        initialize = tf.global_variables_initializer()
        graph.finalize()
        with tf.Session(config=session_config(arguments.num_accelerators, len(model.inputs))) as session:
            session.run(initialize)
            model.start(session)
            _Run(model, batches, name, arguments, dataset).go()


class _Run:
    """One training run. What a resumed run goes on from is in `self.state`, a JSON object."""

    def __init__(self, model, batches, name, arguments, dataset):
        self.model, self.batches, self.name, self.arguments, self.dataset = model, batches, name, arguments, dataset
        self.batch_size = arguments.batch_size * arguments.num_accelerators
        self.steps_per_epoch = -(-len(dataset.train.items) // self.batch_size)
        self.last_step = arguments.epochs * self.steps_per_epoch
        if arguments.max_steps:
            self.last_step = min(self.last_step, arguments.max_steps)
        self.identity = identity(name, arguments, dataset)
        self.checkpoints = Checkpoints(arguments.save_path, model.saver)
        self.state = {"step": 0, "recommendations": 0, "train_loss": None, "gauc": None, "auc": None,
                      "best_gauc": -1.0, "best_auc": None, "best_step": None, "at_chance": 0,
                      "system_seconds": 0.0, "training_seconds": 0.0, "accelerator_seconds": 0.0}

    def go(self):
        """Trains to the last step and reports."""
        if not (self.arguments.resume and self._resume()):
            aside = self.checkpoints.set_aside()
            if aside:
                log("the earlier run in %s is now in %s" % (self.arguments.save_path, aside))
        self.accelerator = Stopwatch(self.state["accelerator_seconds"])
        self.started = system_seconds()
        self.recent = []  # (loss, recommendations, seconds) of each step since the latest point of the curves
        self.losses = []  # of each step since the latest evaluation
        self.summaries = Summaries(self.arguments.save_path, self.model.session.graph, self.state["step"])
        if not self.state["step"]:
            gauc, auc = self._evaluate()
            log("test_gauc: %.4f\t test_auc: %.4f" % (gauc, auc))
            self.summaries.add(0, eval_gauc=gauc, eval_auc=auc)
        while self.state["step"] < self.last_step:
            self._epoch(self.state["step"] // self.steps_per_epoch)
        self.summaries.close()
        self._report()

    def _resume(self):
        """Goes on from the latest checkpoint; returns whether there was one to go on from.

        With --resume unfinished, as the scripts have it, that is one of an interrupted run of the same kind; any other
        is left alone.
        """
        lenient = self.arguments.resume == "unfinished"
        try:
            found = self.checkpoints.state()
            if found is None:
                if not lenient:
                    log("nothing to resume in %s; starting from the beginning" % self.arguments.save_path)
                return False
            check_identity(found["run"], self.identity, self.arguments.save_path)
            if lenient and (found.get("finished") or found["state"]["step"] > self.last_step):
                return False
            self.checkpoints.restore(self.model.session, LATEST)
        except UserError:
            if lenient:
                return False
            raise
        self.state = found["state"]
        log("resuming after step %d" % self.state["step"])
        return True

    def _evaluate(self):
        """Returns (GAUC, AUC) over the whole test set."""
        batches = self.batches.test_batches(self.dataset.test, TEST_BATCH_SIZE * self.arguments.num_accelerators)
        scores = np.concatenate([self.model.score(batch) for batch in batches])
        if not np.isfinite(scores).all():
            self._diverged("the scores are not finite")
        return metrics.gauc_and_auc(scores)

    def _diverged(self, what):
        kept = self.checkpoints.state()
        raise UserError("%s at step %d; lower --lr (%s)" % (
            what, self.state["step"], "the checkpoint of step %d is kept in %s" % (
                kept["state"]["step"], self.arguments.save_path) if kept else "there is no checkpoint yet"))

    def _training_seconds(self):
        return self.state["training_seconds"] + system_seconds() - self.started

    def _epoch(self, epoch):
        """Trains what is left of `epoch`, 0 the first."""
        first_step = epoch * self.steps_per_epoch
        done = self.state["step"] - first_step
        batches = self.batches.train_batches(self.dataset.train, self.batch_size, self.arguments.seed, epoch, skip=done)
        with tqdm(total=self.steps_per_epoch, initial=done, desc="epoch %d" % epoch, unit=" steps", disable=None) as bar:
            for batch in batches:
                self._step(batch, epoch)
                bar.update()
                if self.state["step"] == self.last_step:
                    break
        if self.state["step"] == first_step + self.steps_per_epoch:
            log("Epoch %d DONE\tCost time: %.2f" % (epoch, self._training_seconds()))

    def _step(self, batch, epoch):
        state = self.state
        learning_rate = learning_rate_at(self.arguments.optimizer, self.arguments.lr, state["step"])
        with self.accelerator:
            loss = self.model.train(batch, learning_rate)
        if not np.isfinite(loss):
            self._diverged("the loss is %s" % loss)
        state["step"] += 1
        state["recommendations"] += len(batch.lengths)
        self.losses.append(loss)
        self.recent.append((loss, len(batch.lengths), self.accelerator.last))
        if state["step"] % SUMMARY_EVERY == 0:
            losses, recommendations, seconds = zip(*self.recent)
            self.summaries.add(state["step"], train_loss=np.mean(losses), learning_rate=learning_rate,
                               recommendations_per_second=sum(recommendations) / sum(seconds))
            self.recent = []
        if (state["step"] % self.arguments.eval_every == 0 or state["step"] % self.steps_per_epoch == 0
                or state["step"] == self.last_step):
            self._evaluate_and_save(epoch)

    def _evaluate_and_save(self, epoch):
        state = self.state
        state["gauc"], state["auc"] = self._evaluate()
        state["train_loss"] = float(np.mean(self.losses))
        self.losses = []
        log("Epoch %d Global_step %d\tTrain_loss: %.4f\tEval_GAUC: %.4f\tEval_AUC: %.4f"
            % (epoch, state["step"], state["train_loss"], state["gauc"], state["auc"]))
        self.summaries.add(state["step"], eval_gauc=state["gauc"], eval_auc=state["auc"])
        self._warn_at_chance()
        best = state["gauc"] > state["best_gauc"]
        if best:
            state.update(best_gauc=state["gauc"], best_auc=state["auc"], best_step=state["step"])
        self.summaries.flush()
        saved = dict(state, system_seconds=state["system_seconds"] + system_seconds(),
                     training_seconds=self._training_seconds(), accelerator_seconds=self.accelerator.seconds)
        self.checkpoints.save(self.model.session, {"run": self.identity, "state": saved}, best)

    def _warn_at_chance(self):
        """Says so where the second evaluation in a row, an epoch done, is no better than guessing."""
        state = self.state
        deviation = 0.5 / np.sqrt(len(self.dataset.test.users))  # of the GAUC of random scores
        learnt = abs(state["gauc"] - 0.5) > CHANCE_DEVIATIONS * deviation
        state["at_chance"] = 0 if learnt or state["step"] < self.steps_per_epoch else state["at_chance"] + 1
        if state["at_chance"] == 2:
            tqdm.write("warning: after step %d the GAUC is at chance level (%.4f) for the second time; the model learns "
                       "nothing: try another --lr, or more --epochs" % (state["step"], state["gauc"]), file=sys.stderr)

    def _report(self):
        state, arguments = self.state, self.arguments
        log("best test_gauc: %.4f" % state["best_gauc"])
        row = {"epochs": arguments.epochs, "steps": state["step"], "final_loss": "%.6f" % state["train_loss"],
               "final_gauc": "%.6f" % state["gauc"], "final_auc": "%.6f" % state["auc"],
               "best_gauc": "%.6f" % state["best_gauc"], "best_auc": "%.6f" % state["best_auc"],
               "best_step": state["best_step"], "optimizer": arguments.optimizer, "learning_rate": arguments.lr,
               "seed": arguments.seed}
        row.update(settings(self.name, self.dataset, arguments))
        row.update(report_throughput(log, state["recommendations"], state["system_seconds"] + system_seconds(),
                                     self.accelerator.seconds))
        add_row(arguments.results, "results_train.csv", TRAIN_COLUMNS, row)
        self.checkpoints.finish()
