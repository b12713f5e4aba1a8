"""Training: epochs, evaluation, best and latest checkpoint, TensorBoard, the row in results_train.csv."""
import collections
import contextlib
import os
import sys

import numpy as np
from tqdm import tqdm

from utils import metrics
from utils.runs.checkpoints import LATEST, Checkpoints
from utils.cluster.workers import Alone, from_environment
from utils.dataset import fingerprint, read_dataset
from utils.files import UserError
from utils.runs.locks import acquire
from utils.engine.optimizers import learning_rate_at
from utils.results import KEY, POINT, add_rows, report_throughput
from utils.engine.session import Session
from utils.runs.summaries import PROJECTOR_FILES, Summaries, write_projector
from utils.tf1 import tf
from utils.timing import Stopwatch, system_seconds
from utils.towers import describe_device, session_config, shards
from utils.runs.tracing import Tracer

TEST_BATCH_SIZE = 1024  # users per accelerator; scores don't depend on it
SUMMARY_EVERY = 100     # steps between two points of TensorBoard's curves of loss and throughput
HISTOGRAM_USERS = 256   # test users whose attention weights TensorBoard's histograms are made of
TRACE = "trace.json"    # in save_path, what --profile writes
CHANCE_DEVIATIONS = 3   # a GAUC within so many standard deviations of one half is at chance level


def log(line):
    """Prints a line of the log at once, above the progress bar where there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def build(model_class, dataset, num_accelerators, batch_size, optimizer=None, cluster=Alone()):
    """Builds the model's graph, in the default graph, for `dataset` and batches of `batch_size` per accelerator."""
    return model_class(dataset.item_count, dataset.cate_count, dataset.cate_list, num_accelerators, optimizer,
                       shards(num_accelerators, batch_size), cluster=cluster)


def settings(name, dataset, arguments, num_workers=1):
    """The columns that say what a row of either CSV was measured with, a dictionary."""
    return {"model": name, "dataset": dataset.name, "batch_size": arguments.batch_size,
            "num_accelerators": arguments.num_accelerators, "device": describe_device(arguments.num_accelerators),
            "tensorflow": tf.__version__, "num_workers": num_workers}


def identity(name, arguments, dataset, num_workers=1):
    """What a run must share with a checkpoint to resume from it, as a JSON object."""
    return {"model": name, "dataset": dataset.name, "dataset_fingerprint": fingerprint(dataset), "seed": arguments.seed,
            "global_batch_size": arguments.batch_size * arguments.num_accelerators * num_workers,
            "optimizer": arguments.optimizer, "lr": arguments.lr}


Copies = collections.namedtuple("Copies", "broadcast bits")
Copies.__doc__ = """How workers keep their copies of the variables alike: an operation that gives them all the chief's values, and
a number that differs where a copy does."""

# What all workers of a cluster must be started with, beside what `identity` has.
SHARED_FLAGS = ("batch_size", "num_accelerators", "epochs", "max_steps", "eval_every", "resume")


def check_identity(found, expected, save_path):
    """Raises UserError where the checkpoint in `save_path` belongs to another run; only keys of `expected` count."""
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError("the checkpoint in %s is of another run: its %s is %s, not %s; give its flags, or another "
                            "--save_path" % (save_path, key, found.get(key), value))


def check_state(found, fresh, save_path):
    """Raises UserError unless `found`, what state.json holds, can take the place of `fresh`, the state of a new run.

    That is: its state has the same names, its curve a list of points, and all values are numbers; there is no loss before
    the first step.
    """
    state, curve = found["state"], found.get("curve")

    def fits(name):
        value = state[name]
        return value is fresh[name] is None or type(value) is int or (
            type(value) is float and np.isfinite(value) and type(fresh[name]) is not int)

    def is_point(point):
        return type(point) is dict and set(point) == set(POINT) and all(
            type(value) in (int, float) or value is None and name == "train_loss" for name, value in point.items())
    if (set(state) != set(fresh) or not all(map(fits, fresh)) or state["step"] < 0
            or type(curve) is not list or not all(map(is_point, curve))):
        raise UserError("state.json in %s is damaged; train again without --resume" % save_path)


def train(model_class, batches, name, arguments):
    """Trains a model and adds its row to results_train.csv; under TF_CONFIG, together with the other workers.

    Args:
      model_class: a subclass of BaseModel.
      batches: what it reads: the module input.py of its folder, with train_batches and test_batches.
      name: what the CSVs call it.
      arguments: the parsed arguments of train.py.

    Raises:
      UserError: the data set, a flag, TF_CONFIG or the checkpoint to resume from is not as it must be.
    """
    if arguments.lr is None:
        arguments.lr = arguments.learning_rates[arguments.optimizer]
    cluster = from_environment()
    if arguments.profile and cluster.count > 1:
        raise UserError("--profile traces one machine; leave it out, or unset TF_CONFIG")
    dataset = read_dataset(arguments.dataset)
    batch_size = arguments.batch_size * arguments.num_accelerators * cluster.count
    if batch_size > len(dataset.train.items):
        raise UserError("a batch of %d is larger than the training set of %d; lower --batch_size"
                        % (batch_size, len(dataset.train.items)))
    with contextlib.ExitStack() as stack:
        if cluster.is_chief:
            stack.enter_context(acquire(os.path.join(arguments.save_path, ".lock")))
        number = shards(arguments.num_accelerators, arguments.batch_size) * arguments.num_accelerators
        config = session_config(arguments.num_accelerators, number, traced=arguments.profile)
        cluster.start(config)
        graph = stack.enter_context(tf.Graph().as_default())
        stack.enter_context(cluster.guarded())
        cluster.agree("what it trains", "start every worker with the same data and flags", dict(
            identity(name, arguments, dataset, cluster.count), tensorflow=tf.__version__,
            **{flag: getattr(arguments, flag) for flag in SHARED_FLAGS}))
        tf.set_random_seed(arguments.seed)
        model = build(model_class, dataset, arguments.num_accelerators, arguments.batch_size, arguments.optimizer, cluster)
        initialize = tf.global_variables_initializer()
        copies = Copies(cluster.broadcast(tf.global_variables()), cluster.bits(model.variables))
        graph.finalize()
        session = stack.enter_context(Session(cluster.target, config=cluster.configure(config)))
        session.run(initialize)
        model.start(session)
        run = _Run if cluster.is_chief else _Worker
        run(model, batches, name, arguments, dataset, cluster, copies).go()
        cluster.finish()


def _text(value):
    """A number as the CSVs have it; nothing for None."""
    return "" if value is None else "%.6f" % value if type(value) is float else str(value)


class _Run:
    """One training run. What a resumed run goes on from is in `self.state`, a JSON object."""

    def __init__(self, model, batches, name, arguments, dataset, cluster, copies):
        self.model, self.batches, self.name, self.arguments, self.dataset = model, batches, name, arguments, dataset
        self.cluster, self.copies = cluster, copies
        self.batch_size = arguments.batch_size * arguments.num_accelerators * cluster.count
        self.steps_per_epoch = -(-len(dataset.train.items) // self.batch_size)
        self.last_step = arguments.epochs * self.steps_per_epoch
        if arguments.max_steps:
            self.last_step = min(self.last_step, arguments.max_steps)
        self.identity = identity(name, arguments, dataset, cluster.count)
        self.curve = []
        own = cluster.share_of(len(dataset.test.users))
        self.test = dataset.test._replace(**{column: getattr(dataset.test, column)[own] for column in (
            "users", "offsets", "lengths", "positives", "negatives")})
        self.state = {"step": 0, "recommendations": 0, "train_loss": None, "gauc": None, "auc": None,
                      "best_gauc": -1.0, "best_auc": None, "best_step": None, "at_chance": 0,
                      "system_seconds": 0.0, "training_seconds": 0.0, "accelerator_seconds": 0.0}

    def go(self):
        """Trains to the last step and reports."""
        self._open()
        self.state, self.curve = self.cluster.share([self.state, self.curve])[0]
        self.model.session.run(self.copies.broadcast)
        self.accelerator = Stopwatch(self.state["accelerator_seconds"])
        self.started = system_seconds()
        self.recent = []  # (loss, recommendations, seconds) of each step since the latest point of the curves
        self.losses = []  # of each step since the latest evaluation
        self.tracer = Tracer(self.state["step"], self.last_step) if self.arguments.profile else None
        self._begin()
        if not self.state["step"]:
            self._evaluate(0)
            self._log("test_gauc: %.4f\t test_auc: %.4f" % (self.state["gauc"], self.state["auc"]))
        while self.state["step"] < self.last_step:
            self._epoch(self.state["step"] // self.steps_per_epoch)
        self._report()

    def _evaluate(self, epoch):
        """Sets GAUC and AUC over the whole test set; adds them to the curves, and the histograms."""
        state = self.state
        batches = self.batches.test_batches(self.test, TEST_BATCH_SIZE * self.arguments.num_accelerators)
        scores = [self.model.score(batch) for batch in batches]
        scores = self.cluster.gather(np.concatenate(scores) if scores else np.zeros((0, 2), np.float32))
        if not np.isfinite(scores).all():
            self._diverged("the scores are not finite")
        state["gauc"], state["auc"] = metrics.gauc_and_auc(scores)
        self.cluster.agree("its variables after step %d" % state["step"], "use machines with the same processor", {
            "sum of bits": int(self.model.session.run(self.copies.bits))})
        self._show_evaluation()
        self.curve.append(dict({name: state[name] for name in POINT if name in state},
                               epoch=epoch, seconds=self._training_seconds()))

    def _diverged(self, what):
        raise UserError("%s at step %d; lower --lr (%s)" % (what, self.state["step"], self._kept()))

    def _training_seconds(self):
        return self.state["training_seconds"] + system_seconds() - self.started

    def _epoch(self, epoch):
        """Trains what is left of `epoch`, 0 the first."""
        first_step = epoch * self.steps_per_epoch
        done = self.state["step"] - first_step
        batches = self.batches.train_batches(self.dataset.train, self.batch_size, self.arguments.seed, epoch, skip=done,
                                             worker=self.cluster.index, num_workers=self.cluster.count)
        total = len(self.dataset.train.items)
        with tqdm(total=total, initial=min(done * self.batch_size, total), desc="epoch %d" % epoch,
                  unit=" recommendations", unit_scale=True, disable=None) as bar:
            for batch in self.model.prepared(batches):
                recommendations = len(batch.lengths)
                if self.cluster.count > 1:  # this worker's share of them
                    recommendations = min(self.batch_size, total - (self.state["step"] - first_step) * self.batch_size)
                loss = self._step(batch, recommendations, epoch)
                if not bar.disable:
                    bar.set_postfix_str("loss %.4f" % loss, refresh=False)
                    bar.update(recommendations)
                if self.state["step"] == self.last_step:
                    break
        if self.state["step"] == first_step + self.steps_per_epoch:
            self._log("Epoch %d DONE\tCost time: %.2f" % (epoch, self._training_seconds()))

    def _step(self, batch, recommendations, epoch):
        state = self.state
        learning_rate = learning_rate_at(self.arguments.optimizer, self.arguments.lr, state["step"])
        trace = self.tracer.trace(state["step"]) if self.tracer else None
        with self.accelerator:
            loss = self.model.train(batch, learning_rate, recommendations, trace)
        if not np.isfinite(loss):
            self._diverged("the loss is %s" % loss)
        state["step"] += 1
        state["recommendations"] += recommendations
        self.losses.append(loss)
        self.recent.append((loss, recommendations, self.accelerator.last))
        if state["step"] % SUMMARY_EVERY == 0:
            self._show_training(learning_rate)
            self.recent = []
        if (state["step"] % self.arguments.eval_every == 0 or state["step"] % self.steps_per_epoch == 0
                or state["step"] == self.last_step):
            self._evaluate_and_save(epoch)
        return loss

    def _evaluate_and_save(self, epoch):
        state = self.state
        state["train_loss"] = float(np.mean(self.losses))
        self.losses = []
        self._evaluate(epoch)
        self._log("Epoch %d Global_step %d\tTrain_loss: %.4f\tEval_GAUC: %.4f\tEval_AUC: %.4f"
            % (epoch, state["step"], state["train_loss"], state["gauc"], state["auc"]))
        self._warn_at_chance()
        best = state["gauc"] > state["best_gauc"]
        if best:
            state.update(best_gauc=state["gauc"], best_auc=state["auc"], best_step=state["step"])
        self._save(best)

    def _warn_at_chance(self):
        """Says so where the second evaluation in a row, an epoch done, is no better than guessing."""
        state = self.state
        margin = CHANCE_DEVIATIONS * 0.5 / np.sqrt(len(self.dataset.test.users))  # around the GAUC of random scores
        learnt = abs(state["gauc"] - 0.5) >= min(margin, 0.5)
        state["at_chance"] = 0 if learnt or state["step"] < self.steps_per_epoch else state["at_chance"] + 1
        if state["at_chance"] == 2:
            self._warn("after step %d the GAUC is at chance level (%.4f) for the second time; the model learns nothing: try "
                       "another --lr, or more --epochs" % (state["step"], state["gauc"]))

    # ---- what the chief alone writes, which is the one worker where there are no others ------------------------------

    _log = staticmethod(log)

    def _open(self):
        """Finds the checkpoint to go on from, or moves an earlier run aside."""
        self.checkpoints = Checkpoints(self.arguments.save_path, self.model.saver)
        if not (self.arguments.resume and self._resume()):
            aside = self.checkpoints.set_aside(PROJECTOR_FILES + (TRACE,))
            if aside:
                log("the earlier run in %s is now in %s" % (self.arguments.save_path, aside))

    def _begin(self):
        """Opens what TensorBoard reads."""
        arguments = self.arguments
        self.summaries = Summaries(arguments.save_path, self.model.session.graph, self.state["step"], {
            "model": self.name, "dataset": self.dataset.name, "batch_size": arguments.batch_size,
            "num_accelerators": arguments.num_accelerators, "num_workers": self.cluster.count,
            "optimizer": arguments.optimizer, "lr": arguments.lr, "epochs": arguments.epochs, "seed": arguments.seed})
        write_projector(arguments.save_path, self.dataset)
        self.shown = next(self.batches.test_batches(self.dataset.test, HISTOGRAM_USERS))

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
            check_state(found, self.state, self.arguments.save_path)
            if lenient and (found.get("finished") or found["state"]["step"] > self.last_step):
                return False
            self.checkpoints.restore(self.model.session, LATEST)
        except UserError:
            if lenient:
                return False
            raise
        self.state, self.curve = found["state"], found["curve"]
        log("resuming after step %d" % self.state["step"])
        return True

    def _show_training(self, learning_rate):
        losses, recommendations, seconds = zip(*self.recent)
        self.summaries.add(self.state["step"], train_loss=np.mean(losses), learning_rate=learning_rate,
                           recommendations_per_second=sum(recommendations) / sum(seconds))

    def _show_evaluation(self):
        self.summaries.add(self.state["step"], eval_gauc=self.state["gauc"], eval_auc=self.state["auc"])
        histograms = {"embedding_norms/" + table: norms for table, norms in self.model.embedding_norms().items()}
        weights = self.model.attention_weights(self.shown)
        if weights is not None:
            histograms["attention_weights"] = weights
        self.summaries.add_histograms(self.state["step"], histograms)

    def _save(self, best):
        """Writes a checkpoint; `best` says that it is the best so far."""
        self.summaries.flush()
        saved = dict(self.state, system_seconds=self.state["system_seconds"] + system_seconds(),
                     training_seconds=self._training_seconds(), accelerator_seconds=self.accelerator.seconds)
        self.checkpoints.save(self.model.session, {"run": self.identity, "state": saved, "curve": self.curve}, best)

    def _kept(self):
        """What is left of a run that goes wrong, in words."""
        kept = self.checkpoints.state()
        return "the checkpoint of step %d is kept in %s" % (
            kept["state"]["step"], self.arguments.save_path) if kept else "there is no checkpoint yet"

    def _warn(self, what):
        tqdm.write("warning: %s" % what, file=sys.stderr)

    def _report_trace(self):
        for step, trace in self.tracer.steps():
            self.summaries.add_trace(step, trace)
        path = os.path.join(self.arguments.save_path, TRACE)
        self.tracer.write(path)
        for line in self.tracer.table():
            log(line)
        log("The steps' trace, for chrome://tracing or ui.perfetto.dev, is in %s" % path)

    def _report(self):
        """Writes the row of the results, and closes what TensorBoard reads."""
        state, arguments = self.state, self.arguments
        if self.tracer and self.tracer.steps():  # none where the resumed run was through
            self._report_trace()
        self.summaries.close()
        log("best test_gauc: %.4f" % state["best_gauc"])
        row = {"epochs": arguments.epochs, "steps": state["step"], "final_loss": "%.6f" % state["train_loss"],
               "final_gauc": "%.6f" % state["gauc"], "final_auc": "%.6f" % state["auc"],
               "best_gauc": "%.6f" % state["best_gauc"], "best_auc": "%.6f" % state["best_auc"],
               "best_step": state["best_step"], "optimizer": arguments.optimizer, "learning_rate": arguments.lr,
               "seed": arguments.seed}
        row.update(settings(self.name, self.dataset, arguments, self.cluster.count))
        row.update(report_throughput(log, state["recommendations"], state["system_seconds"] + system_seconds(),
                                     self.accelerator.seconds))
        curve = [dict({name: row[name] for name in KEY}, **{name: _text(value) for name, value in point.items()})
                 for point in self.curve]
        add_rows(arguments.results, {"curves": curve, "train": [row]})
        self.checkpoints.finish()


class _Worker(_Run):
    """The part in a run of a worker that is not the chief: it counts, decides and updates alike, and writes nothing."""

    def _log(self, line):
        pass

    def _open(self):
        log("%s of %d; the chief, %s, writes log, checkpoints and results"
            % (self.cluster.named(self.cluster.index), self.cluster.count, self.cluster.named(0)))

    def _kept(self):
        return "the chief has the checkpoint"

    def _report(self):
        log("through, after step %d" % self.state["step"])

    _begin = _show_evaluation = lambda self: None
    _show_training = _save = _warn = lambda self, _: None
