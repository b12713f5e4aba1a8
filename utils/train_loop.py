"""Training: epochs, steps, evaluation on the whole test set. What a run leaves is in runs/recorder.py."""
import contextlib
import os

import numpy as np
from tqdm import tqdm

from utils import metrics
from utils.batches import prefetch, share_of
from utils.cluster.tf_config import from_environment
from utils.data.popularity import floors_of
from utils.data.validation import hold_out_validation
from utils.dataset import read_dataset
from utils.engine.optimizers import learning_rate_at
from utils.engine.session import Session
from utils.engine.training_graph import TrainingGraph
from utils.files import UserError
from utils.results import POINT, check_folder
from utils.runs.identity import SHARED_FLAGS, fresh_state, identity_of, settings
from utils.runs.locks import acquire
from utils.runs.outcomes import outcomes_of
from utils.runs.recorder import NullRecorder, Recorder
from utils.runs.steady import WARM_UP_STEPS, Durations
from utils.runs.stopping import reason_to_end
from utils.tf1 import tf
from utils.timing import Laps, Stopwatch, system_seconds
from utils.towers import describe_device, session_config, shards

TEST_BATCH_SIZE = 1024  # users per accelerator; scores don't depend on it
SUMMARY_EVERY = 100     # steps between two points of TensorBoard's curves of loss and throughput
CHANCE_DEVIATIONS = 3   # a GAUC within so many standard deviations of one half is at chance level


def train(model_class, batches, name, arguments):
    """Trains a model and adds its row to results_train.csv; under TF_CONFIG, together with the other workers.

    Raises UserError where the data set, a flag, TF_CONFIG, the checkpoint to resume from or the folder of results is
    not as it must be.

    Args:
      model_class: a subclass of BaseModel.
      batches: the module input.py of its folder, with train_batches and test_batches.
      name: what the CSVs call the model.
      arguments: the parsed arguments of train.py.
    """
    if arguments.lr is None:
        arguments.lr = arguments.learning_rates[arguments.optimizer]
    cluster = from_environment()
    if arguments.profile and cluster.count > 1:
        raise UserError("--profile traces one machine; leave it out, or unset TF_CONFIG")
    if arguments.skip_test and arguments.selection == "test":
        raise UserError("--skip_test leaves nothing to select on; give --selection validation with it")
    dataset = read_dataset(arguments.dataset)
    is_validated = arguments.selection == "validation"
    trained, evaluated = hold_out_validation(dataset) if is_validated else (dataset, dataset.test)
    batch_size = arguments.batch_size * arguments.num_accelerators * cluster.count
    if batch_size > len(trained.train.items):
        raise UserError("a batch of %d is larger than the training set of %d; lower --batch_size"
                        % (batch_size, len(trained.train.items)))
    with contextlib.ExitStack() as stack:
        if cluster.is_chief:
            check_folder(arguments.results, ("curves", "train"))
            stack.enter_context(acquire(os.path.join(arguments.save_path, ".lock")))
        towers = shards(arguments.num_accelerators, arguments.batch_size)
        config = session_config(arguments.num_accelerators, towers * arguments.num_accelerators, arguments.profile)
        cluster.start(config)
        stack.enter_context(tf.Graph().as_default())
        stack.enter_context(cluster.guarded())
        run_identity = identity_of(name, arguments, dataset, cluster.count)
        cluster.require_equal("what it trains", "start every worker with the same data and flags", dict(
            run_identity, tensorflow=tf.__version__, **{flag: getattr(arguments, flag) for flag in SHARED_FLAGS}))
        tf.set_random_seed(arguments.seed)
        graph = TrainingGraph(model_class, dataset, arguments.optimizer, arguments.num_accelerators, towers, cluster)
        initialize = tf.global_variables_initializer()
        run = Run(graph, batches, arguments, trained, evaluated, cluster)
        tf.get_default_graph().finalize()
        session = stack.enter_context(Session(cluster.target, config=cluster.configure(config)))
        session.run(initialize)
        graph.start(session)
        devices = dict.fromkeys(cluster.all_gather(describe_device(arguments.num_accelerators)))
        row_settings = settings(name, dataset, arguments, " + ".join(devices), cluster.count)
        run.go(Recorder(graph, batches, run_identity, row_settings, arguments, dataset, floors_of(trained, evaluated))
               if cluster.is_chief else NullRecorder(cluster))
        cluster.finish()


class Run:
    """One training run: counts, decides and updates, on every worker alike.

    `state` is what a resumed run goes on from, a JSON object (runs/identity.py); `curve` has a point per evaluation. To
    `graph`, a `TrainingGraph`, the run adds operations that keep the workers' copies of the variables alike.
    Evaluations score `evaluated`, a TestSet, and choose the best checkpoint; if that is not the test set of `dataset`,
    the test set is scored once, at the end, with that checkpoint; with --skip_test it is not scored.
    """

    def __init__(self, graph, batches, arguments, dataset, evaluated, cluster):
        self.graph, self.batches, self.arguments, self.dataset = graph, batches, arguments, dataset
        self.cluster, self.batch_size = cluster, arguments.batch_size * arguments.num_accelerators * cluster.count
        self.steps_per_epoch = -(-len(dataset.train.items) // self.batch_size)
        self.last_step = min(arguments.epochs * self.steps_per_epoch, arguments.max_steps or float("inf"))
        self.evaluated = evaluated
        self._broadcast, self._checksum = cluster.broadcast(tf.global_variables()), cluster.checksum(graph.variables)

    def go(self, recorder):
        """Trains to the last step and reports to `recorder`, a `Recorder` or a worker's `NullRecorder`."""
        self.recorder = recorder
        self.state, self.curve = self.cluster.all_gather(recorder.open(fresh_state(), self.last_step))[0]
        self.graph.session.run(self._broadcast)
        self.accelerator = Stopwatch(self.state["accelerator_seconds"])
        self.evaluations = Stopwatch(self.state["evaluation_seconds"])
        self.laps, self.durations = Laps(), Durations(self.state["step_seconds"])
        self.first_step = self.state["step"]
        self.started = system_seconds()
        self.recent = []  # (loss, recommendations, seconds) of each step since the latest point of the curves
        self.losses = []  # of each step since the latest evaluation
        recorder.begin(self.state["step"], self.last_step)
        self.reason_to_end = self._reason_to_end()
        if not self.state["step"]:
            with self.evaluations:
                self._evaluate(0)
            recorder.begin_log(self.state)
        while not self._is_through():
            self._epoch(self.state["step"] // self.steps_per_epoch)
        if self.reason_to_end:
            recorder.log(self.reason_to_end)
        if self.evaluated is not self.dataset.test and not self.arguments.skip_test:
            self._test_best()
        # A run that was through keeps its clocks: another start is no part of it.
        recorder.finish(self._state_now() if self.state["step"] > self.first_step else self.state, self.curve)

    def _reason_to_end(self):
        return reason_to_end(self.curve, self.arguments.target_gauc, self.arguments.patience)

    def _is_through(self):
        return self.state["step"] >= self.last_step or bool(self.reason_to_end)

    def _state_now(self):
        """The state, with clocks that tell how long the run took, together with the runs that it goes on from."""
        return dict(self.state, system_seconds=self.state["system_seconds"] + system_seconds(),
                    training_seconds=self.state["training_seconds"] + system_seconds() - self.started,
                    evaluation_seconds=self.evaluations.seconds_now(), accelerator_seconds=self.accelerator.seconds,
                    step_seconds=dict(self.durations.counts))

    def _epoch(self, epoch):
        """Trains the remaining steps of `epoch`, 0 the first."""
        first_step = epoch * self.steps_per_epoch
        done = self.state["step"] - first_step
        batches = self.batches.train_batches(self.dataset.train, self.batch_size, self.arguments.seed, epoch, skip=done,
                                             worker=self.cluster.index, num_workers=self.cluster.count)
        total = len(self.dataset.train.items)
        with tqdm(total=total, initial=min(done * self.batch_size, total), desc="epoch %d" % epoch,
                  unit=" recommendations", unit_scale=True, disable=None) as bar:
            self.laps.begin()
            for batch in prefetch(batches, self.graph.pack_for_training):
                recommendations = len(batch.batch.lengths)
                if self.cluster.count > 1:  # the batch is this worker's share; all workers' are counted
                    recommendations = min(self.batch_size, total - (self.state["step"] - first_step) * self.batch_size)
                loss = self._step(batch, recommendations, epoch)
                bar.set_postfix_str("loss %.4f" % loss, refresh=False)
                bar.update(recommendations)
                if self._is_through():
                    break
        if self.state["step"] == first_step + self.steps_per_epoch:
            self.recorder.log("Epoch %d DONE\tCost time: %.2f" % (epoch, self._state_now()["training_seconds"]))

    def _step(self, batch, recommendations, epoch):
        state = self.state
        learning_rate = learning_rate_at(self.arguments.optimizer, self.arguments.lr, state["step"])
        trace = self.recorder.trace(state["step"])
        with self.accelerator:
            loss = self.graph.train(batch, learning_rate, recommendations, trace)
        seconds = self.laps.end()
        if recommendations == self.batch_size and state["step"] >= self.first_step + WARM_UP_STEPS and not trace:
            self.durations.add(seconds)
        if not np.isfinite(loss):
            self._diverged("the loss is %s" % loss)
        state["step"] += 1
        state["recommendations"] += recommendations
        self.losses.append(loss)
        self.recent.append((loss, recommendations, self.accelerator.last))
        if state["step"] % SUMMARY_EVERY == 0:
            losses, counts, seconds = zip(*self.recent)
            self.recent = []
            self.recorder.show_training(state["step"], train_loss=np.mean(losses), learning_rate=learning_rate,
                                        recommendations_per_second=sum(counts) / sum(seconds))
        if (state["step"] % self.arguments.eval_every == 0 or state["step"] % self.steps_per_epoch == 0
                or state["step"] == self.last_step):
            with self.evaluations:
                self._evaluate_and_save(epoch)
            self.laps.begin()
        return loss

    def _evaluate_and_save(self, epoch):
        state = self.state
        state["train_loss"] = float(np.mean(self.losses))
        self.losses = []
        scores = self._evaluate(epoch)
        self.recorder.log("Epoch %d Global_step %d\tTrain_loss: %.4f\tEval_GAUC: %.4f\tEval_AUC: %.4f"
                          % (epoch, state["step"], state["train_loss"], state["gauc"], state["auc"]))
        self._warn_at_chance()
        best = state["gauc"] > state["best_gauc"]
        if best:
            state.update(best_gauc=state["gauc"], best_auc=state["auc"], best_step=state["step"],
                         best_outcomes=outcomes_of(scores))
        self.reason_to_end = self._reason_to_end()
        self.recorder.save(self._state_now(), self.curve, best)

    def _evaluate(self, epoch):
        """Sets GAUC and AUC over all users that are evaluated, adds them to the curve; returns the scores [U, 2]."""
        state, scores = self.state, self._scores(self.evaluated)
        state["gauc"], state["auc"] = metrics.gauc_and_auc(scores)
        self.cluster.require_equal(
            "its variables after step %d" % state["step"], "use machines with the same processor",
            {"sum of bits": int(self.graph.session.run(self._checksum))})
        self.recorder.show_evaluation(state)
        seconds = self._state_now()["training_seconds"]
        self.curve.append(dict({name: state[name] for name in POINT if name in state}, epoch=epoch, seconds=seconds,
                               seconds_without_evaluations=seconds - self.evaluations.seconds_now()))
        return scores

    def _scores(self, examples):
        """The scores of a TestSet's users, positive and negative, [U, 2]: each worker scores its share."""
        share = examples._replace(**{column: share_of(getattr(examples, column), self.cluster.index, self.cluster.count)
                                     for column in ("users", "offsets", "lengths", "positives", "negatives")})
        batches = self.batches.test_batches(share, TEST_BATCH_SIZE * self.arguments.num_accelerators)
        scores = [self.graph.score(batch) for batch in batches]
        scores = self.cluster.all_gather_rows(np.concatenate(scores) if scores else np.zeros((0, 2), np.float32))
        if not np.isfinite(scores).all():
            self._diverged("the scores are not finite")
        return scores

    def _test_best(self):
        """Scores the test set with the best checkpoint."""
        self.recorder.restore_best()
        self.graph.session.run(self._broadcast)
        scores = self._scores(self.dataset.test)
        gauc, auc = metrics.gauc_and_auc(scores)
        self.state.update(test_gauc=gauc, test_auc=auc, best_outcomes=outcomes_of(scores))

    def _warn_at_chance(self):
        """Warns where the second evaluation in a row, after the first epoch, is no better than guessing."""
        state = self.state
        margin = CHANCE_DEVIATIONS * 0.5 / np.sqrt(len(self.evaluated.users))  # around the GAUC of random scores
        learnt = abs(state["gauc"] - 0.5) >= min(margin, 0.5)
        state["at_chance"] = 0 if learnt or state["step"] < self.steps_per_epoch else state["at_chance"] + 1
        if state["at_chance"] == 2:
            self.recorder.warn("after step %d the GAUC is at chance level (%.4f) for the second time; the model learns "
                               "nothing: try another --lr, or more --epochs" % (state["step"], state["gauc"]))

    def _diverged(self, what):
        raise UserError("%s at step %d; lower --lr (%s)" % (what, self.state["step"], self.recorder.last_checkpoint()))
