"""What a training run leaves: its log, checkpoints, TensorBoard's events, a trace, the rows of the results.

`Recorder` writes them; a worker that is not the chief has a `NullRecorder`, which writes nothing.
"""
import os

from utils.files import UserError
from utils.results import KEY, add_rows, report_throughput
from utils.runs.checkpoints import LATEST, Checkpoints
from utils.runs.identity import check_identity, check_state, fresh_state, identity, settings
from utils.runs.log import log, warn
from utils.runs.summaries import PROJECTOR_FILES, Summaries, write_projector
from utils.runs.tracing import Tracer

HISTOGRAM_USERS = 256  # test users whose attention weights TensorBoard's histograms are made of
TRACE = "trace.json"   # in save_path, what --profile writes


class NullRecorder:
    """Records nothing: what a worker has whose chief records.

    Args:
      cluster: the `Cluster`.
    """

    def __init__(self, cluster):
        self._cluster = cluster

    def open(self, state, last_step):
        """Finds what there is to go on from; returns (state, curve): those of a checkpoint, or `state` and an empty list."""
        log("%s of %d; the chief, %s, writes log, checkpoints and results" % (
            self._cluster.named(self._cluster.index), self._cluster.count, self._cluster.named(0)))
        return state, []

    def begin(self, step, last_step):
        """Opens what TensorBoard reads, `step` steps being done of `last_step`."""

    def log(self, line):
        """Prints a line of the log."""

    def warn(self, what):
        """Prints a warning."""

    def trace(self, step):
        """A RunMetadata to fill by the next step, `step` being done; None where it is not to be traced."""
        return None

    def show_training(self, step, **values):
        """Adds points to TensorBoard's curves of training."""

    def show_evaluation(self, state):
        """Adds points to TensorBoard's curves of evaluations, and histograms."""

    def save(self, state, curve, best):
        """Writes a checkpoint of `state` and `curve`; `best` says that it is the best so far."""

    def last_checkpoint(self):
        """What is left of a run that goes wrong, in words."""
        return "the chief has the checkpoint"

    def finish(self, state, curve):
        """Writes the rows of the results."""
        log("through, after step %d" % state["step"])


class Recorder(NullRecorder):
    """Records a run.

    Args:
      graph: its `TrainingGraph`, started.
      batches: the module input.py of the model's folder.
      name: what the CSVs call the model.
      arguments: the parsed arguments of train.py.
      dataset: what it trains on.
      cluster: the workers that train together.
    """

    def __init__(self, graph, batches, name, arguments, dataset, cluster):
        super().__init__(cluster)
        self._graph, self._name, self._arguments, self._dataset = graph, name, arguments, dataset
        self._save_path, self._identity = arguments.save_path, identity(name, arguments, dataset, cluster.count)
        self._shown = next(batches.test_batches(dataset.test, HISTOGRAM_USERS))
        self._tracer = None

    log, warn = staticmethod(log), staticmethod(warn)

    def open(self, state, last_step):
        self._checkpoints = Checkpoints(self._save_path, self._graph.saver)
        resumed = self._resumed(last_step) if self._arguments.resume else None
        if resumed:
            log("resuming after step %d" % resumed[0]["step"])
            return resumed
        aside = self._checkpoints.set_aside(PROJECTOR_FILES + (TRACE,))
        if aside:
            log("the earlier run in %s is now in %s" % (self._save_path, aside))
        return state, []

    def _resumed(self, last_step):
        """The (state, curve) of the latest checkpoint, which is restored; None where there is none to go on from.

        With --resume unfinished, as the scripts have it, that is one of an interrupted run of the same kind; any other
        is left alone.
        """
        lenient = self._arguments.resume == "unfinished"
        try:
            saved = self._checkpoints.state()
            if saved is None:
                if not lenient:
                    log("nothing to resume in %s; starting from the beginning" % self._save_path)
                return None
            check_identity(saved["run"], self._identity, self._save_path)
            check_state(saved, fresh_state(), self._save_path)
            if lenient and (saved.get("finished") or saved["state"]["step"] > last_step):
                return None
            self._checkpoints.restore(self._graph.session, LATEST)
        except UserError:
            if lenient:
                return None
            raise
        return saved["state"], saved["curve"]

    def begin(self, step, last_step):
        arguments = self._arguments
        if arguments.profile:
            self._tracer = Tracer(step, last_step)
        self._summaries = Summaries(self._save_path, self._graph.session.graph, step, {
            "model": self._name, "dataset": self._dataset.name, "batch_size": arguments.batch_size,
            "num_accelerators": arguments.num_accelerators, "num_workers": self._cluster.count,
            "optimizer": arguments.optimizer, "lr": arguments.lr, "epochs": arguments.epochs, "seed": arguments.seed})
        write_projector(self._save_path, self._dataset)

    def trace(self, step):
        return self._tracer.trace(step) if self._tracer else None

    def show_training(self, step, **values):
        self._summaries.add(step, **values)

    def show_evaluation(self, state):
        self._summaries.add(state["step"], eval_gauc=state["gauc"], eval_auc=state["auc"])
        histograms = {"embedding_norms/" + table: norms for table, norms in self._graph.embedding_norms().items()}
        weights = self._graph.attention_weights(self._shown)
        if weights is not None:
            histograms["attention_weights"] = weights
        self._summaries.add_histograms(state["step"], histograms)

    def save(self, state, curve, best):
        self._summaries.flush()
        self._checkpoints.save(self._graph.session, {"run": self._identity, "state": state, "curve": curve}, best)

    def last_checkpoint(self):
        saved = self._checkpoints.state()
        return "the checkpoint of step %d is kept in %s" % (
            saved["state"]["step"], self._save_path) if saved else "there is no checkpoint yet"

    def finish(self, state, curve):
        if self._tracer and self._tracer.steps():  # none where the resumed run was through
            self._report_trace()
        self._summaries.close()
        log("best test_gauc: %.4f" % state["best_gauc"])
        arguments = self._arguments
        row = {"epochs": arguments.epochs, "steps": state["step"], "final_loss": "%.6f" % state["train_loss"],
               "final_gauc": "%.6f" % state["gauc"], "final_auc": "%.6f" % state["auc"],
               "best_gauc": "%.6f" % state["best_gauc"], "best_auc": "%.6f" % state["best_auc"],
               "best_step": state["best_step"], "optimizer": arguments.optimizer, "learning_rate": arguments.lr,
               "seed": arguments.seed}
        row.update(settings(self._name, self._dataset, arguments, self._cluster.count))
        row.update(report_throughput(log, state["recommendations"], state["system_seconds"], state["accelerator_seconds"]))
        key = {column: row[column] for column in KEY}
        add_rows(arguments.results, {"curves": [dict(key, **{column: _text(value) for column, value in point.items()})
                                                for point in curve], "train": [row]})
        self._checkpoints.finish()

    def _report_trace(self):
        for step, trace in self._tracer.steps():
            self._summaries.add_trace(step, trace)
        path = os.path.join(self._save_path, TRACE)
        self._tracer.write(path)
        for line in self._tracer.table():
            log(line)
        log("The steps' trace, for chrome://tracing or ui.perfetto.dev, is in %s" % path)


def _text(value):
    """A number as the CSVs have it; nothing for None."""
    return "" if value is None else "%.6f" % value if type(value) is float else str(value)
