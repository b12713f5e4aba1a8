"""What a training run leaves: its log, checkpoints, TensorBoard's events, a trace, the rows of the results.

`Recorder` writes them; a worker that is not the chief has a `NullRecorder`, which writes none of them.
"""
import os

from utils.files import UserError
from utils.results import CURVES_COLUMNS, POINT, STEADY, add_rows, is_learnt, report_throughput
from utils.runs import identity
from utils.runs.checkpoints import BEST, LATEST, Checkpoints
from utils.runs.log import log, warn
from utils.runs.outcomes import store_outcomes
from utils.runs.steady import FEWEST_STEPS, Durations, report_steady
from utils.runs.stopping import advice_on_evaluations, reaching_point, reason_to_end, step_to_end_at, target_columns
from utils.runs.summaries import PROJECTOR_FILES, Summaries, write_projector
from utils.runs.tracing import empty_traces, operations_table, write_trace

HISTOGRAM_USERS = 256  # test users whose attention weights TensorBoard's histograms are made of
TRACE = "trace.json"   # in save_path, what --profile writes


class NullRecorder:
    """A worker's, whose chief records: answers any method of `Recorder`, and records nothing."""

    def __init__(self, cluster):
        self._cluster = cluster

    def open(self, state, last_step):
        log("%s of %d; the chief, %s, writes log, checkpoints and results" % (
            self._cluster.names[self._cluster.index], self._cluster.count, self._cluster.names[0]))
        return state, []

    def last_checkpoint(self):
        return "the chief has the checkpoint"

    def finish(self, state, curve):
        log("through, after step %d" % state["step"])

    def __getattr__(self, method):
        return lambda *_, **__: None


class Recorder:
    """Records the run of `graph`, a started `TrainingGraph`; batches and arguments are as `train` takes them.

    `run_identity` and `row_settings` are identity.identity_of's and identity.settings', `floors` what popularity alone
    gives, data/popularity.py's `Floors`.
    """

    log, warn = staticmethod(log), staticmethod(warn)

    def __init__(self, graph, batches, run_identity, row_settings, arguments, dataset, floors):
        self._floors = floors
        self._graph, self._arguments, self._dataset = graph, arguments, dataset
        self._identity, self._settings, self._save_path = run_identity, row_settings, arguments.save_path
        self._histogram_batch = next(batches.test_batches(dataset.test, HISTOGRAM_USERS))

    def open(self, state, last_step):
        """The (state, curve) to go on from: a checkpoint's, or `state` with an empty list; `last_step` ends the run."""
        self._checkpoints = Checkpoints(self._save_path, self._graph.saver)
        lenient = self._arguments.resume == "unfinished"  # the scripts' choice: only an unfinished run is gone on from
        try:
            saved = self._restored(lenient, last_step) if self._arguments.resume else None
        except UserError as error:
            if not lenient:
                raise
            log("starting from the beginning: %s" % str(error).split(";")[0])  # without what to do
            saved = None
        step = saved["state"]["step"] if saved else 0
        parts = saved["run"].get("parts", [identity.unknown_part(self._settings)]) if saved else []
        is_through = step >= last_step or saved and reason_to_end(
            saved["curve"], self._arguments.target_gauc, self._arguments.patience)
        if not is_through:
            parts = identity.with_part(parts, identity.part_of_run(self._arguments, self._settings, step))
        self._run = dict(self._identity, parts=parts, **{flag: getattr(self._arguments, flag) for flag in (
            "epochs", "max_steps", "patience", "target_gauc")})
        if saved:
            log("resuming after step %d%s" % (step, ": nothing is left to train" if is_through else ""))
            return saved["state"], saved["curve"]
        aside = self._checkpoints.set_aside(PROJECTOR_FILES + (TRACE,))
        if aside:
            log("the earlier run in %s is now in %s" % (self._save_path, aside))
        return state, []

    def _restored(self, lenient, last_step):
        """Restores the latest checkpoint; returns its JSON object, or None where there is none to go on from."""
        saved = self._checkpoints.state()
        if saved:
            if lenient and saved.get("finished"):
                return None
            saved = identity.with_what_earlier_versions_lack(saved)
            identity.check_identity(saved["run"], self._identity, self._save_path)
            identity.check_state(saved, identity.fresh_state(), self._save_path)
            if lenient:
                identity.check_same_script(saved["run"], self._arguments, self._save_path)
            if saved["state"]["step"] > last_step:
                raise UserError("the checkpoint in %s is of step %d, after the last of these flags, %d; give more "
                                "--epochs or --max_steps, or another --save_path"
                                % (self._save_path, saved["state"]["step"], last_step))
            end = step_to_end_at(saved["curve"], self._arguments.target_gauc, self._arguments.patience)
            if end:
                raise UserError("the run in %s has gone on to step %d, and with this --target_gauc or --patience it "
                                "would have ended at step %d; leave it out, or give another --save_path"
                                % (self._save_path, saved["state"]["step"], end))
            self._checkpoints.restore(self._graph.session, LATEST)
        elif not lenient:
            log("nothing to resume in %s; starting from the beginning" % self._save_path)
        return saved

    def begin(self, step, last_step):
        """Opens TensorBoard's events, after `step` steps of `last_step`."""
        arguments = self._arguments
        self._traces = empty_traces(step, last_step) if arguments.profile else {}
        self._summaries = Summaries(self._save_path, self._graph.session.graph, step, {
            "model": self._settings["model"], "dataset": self._dataset.name, "batch_size": arguments.batch_size,
            "num_accelerators": arguments.num_accelerators, "num_workers": self._settings["num_workers"],
            "optimizer": arguments.optimizer, "lr": arguments.lr, "epochs": arguments.epochs, "seed": arguments.seed,
            "selection": arguments.selection})
        write_projector(self._save_path, self._dataset)

    def begin_log(self, state):
        """Prints what the model and popularity alone give before the first step."""
        log("{0}_gauc: {1:.4f}\t {0}_auc: {2:.4f}".format(self._arguments.selection, state["gauc"], state["auc"]))
        log("popularity_gauc: %.4f\t (what item popularity alone gives on the %s set)"
            % (self._floors.evaluated, self._arguments.selection))

    def restore_best(self):
        """Restores the best checkpoint into the graph's session."""
        self._checkpoints.restore(self._graph.session, BEST)

    def trace(self, step):
        """A RunMetadata for the next step to fill, after `step` steps; None where the next step is not to be traced."""
        return self._traces.get(step + 1)

    def show_training(self, step, **values):
        """Adds points to TensorBoard's curves of training."""
        self._summaries.add(step, **values)

    def show_evaluation(self, state):
        """Adds points to TensorBoard's curves of evaluations, and histograms."""
        self._summaries.add(state["step"], eval_gauc=state["gauc"], eval_auc=state["auc"])
        histograms = {"embedding_norms/" + table: norms for table, norms in self._graph.embedding_norms().items()}
        weights = self._graph.attention_weights(self._histogram_batch)
        if weights is not None:
            histograms["attention_weights"] = weights
        self._summaries.add_histograms(state["step"], histograms)

    def save(self, state, curve, best):
        """Writes a checkpoint of the variables, `state` and `curve`; `best` says that it is the best so far."""
        self._summaries.flush()
        run = dict(self._run, steps=state["step"])
        self._checkpoints.save(self._graph.session, {"run": run, "state": state, "curve": curve}, best)

    def last_checkpoint(self):
        """What there is to go on from after a run that goes wrong, in words."""
        saved = self._checkpoints.state()
        return "the checkpoint of step %d is kept in %s" % (
            saved["state"]["step"], self._save_path) if saved else "there is no checkpoint yet"

    def finish(self, state, curve):
        """Prints the closing lines, writes the trace and the rows of the results, and marks the run as finished.

        With --skip_test there are no rows.
        """
        traces = [(step, trace) for step, trace in self._traces.items() if trace.ByteSize()]  # of steps that were made
        steps = traces[len(traces) > 1:]  # the first only prepared TensorFlow
        for step, trace in steps:
            self._summaries.add_trace(step, trace)
        if steps:  # the resumed run was not through
            path = os.path.join(self._save_path, TRACE)
            write_trace(steps, path)
            for line in operations_table(steps):
                log(line)
            log("The steps' trace, for chrome://tracing or ui.perfetto.dev, is in %s" % path)
        if self._arguments.selection == "validation":
            log("best validation_gauc: %.4f" % state["best_gauc"])
        if not self._arguments.skip_test:
            self._add_rows(state, curve)
        self._summaries.close()
        self._checkpoints.finish()

    def _add_rows(self, state, curve):
        """Prints the closing lines of quality and throughput, and adds the run's rows to the CSVs."""
        row = dict(self._settings, steps=state["step"], final_loss=_text(state["train_loss"]),
                   best_step=state["best_step"], evaluation_seconds="%.3f" % state["evaluation_seconds"],
                   dataset_fingerprint=self._identity["dataset_fingerprint"],
                   outcomes=store_outcomes(self._arguments.results, state["best_outcomes"],
                                           len(self._dataset.test.users)) if state["best_outcomes"] else "")
        row.update(self._quality(state), **self._to_target(curve))
        row.update(identity.columns_of(self._run["parts"]), **identity.training_columns(self._run))
        row.update(report_throughput(log, state["recommendations"], state["system_seconds"],
                                     state["accelerator_seconds"]))
        row.update(self._steady(Durations(state["step_seconds"])))
        run = dict({column: row[column] for column in CURVES_COLUMNS if column not in POINT},
                   popularity_gauc=_text(self._floors.evaluated))
        points = [dict(run, **{column: _text(value) for column, value in point.items()}) for point in curve]
        add_rows(self._arguments.results, {"curves": points, "train": [row]})

    def _quality(self, state):
        """Prints the best GAUC, and whether popularity alone gives as much; returns {column: figure}.

        What the best is selected on is scored at each evaluation; the test set only then, or only at the end.
        """
        if self._arguments.selection == "test":
            best, final = (state["best_gauc"], state["best_auc"]), (state["gauc"], state["auc"])
            validation = None, None
        else:
            best, final = (state["test_gauc"], state["test_auc"]), (None, None)
            validation = state["best_gauc"], state["best_auc"]
            self._summaries.add(state["best_step"], test_gauc=state["test_gauc"], test_auc=state["test_auc"])
        log("best test_gauc: %.4f" % best[0])
        figures = zip(("best_gauc", "best_auc", "final_gauc", "final_auc", "validation_gauc", "validation_auc"),
                      best + final + validation)
        row = dict({column: _text(figure) for column, figure in figures}, popularity_gauc=_text(self._floors.test))
        if not is_learnt(row):
            log("Not learnt yet: item popularity alone gives a GAUC of %.4f; before you quote this, train the model to "
                "the end, such as with --optimizer adam --epochs 5 --selection validation" % self._floors.test)
        return row

    def _to_target(self, curve):
        """The columns of results.TARGET; warns where evaluations took too much of the time to the target."""
        arguments, point = self._arguments, reaching_point(curve, self._arguments.target_gauc)
        advice = advice_on_evaluations(point, arguments.eval_every) if point else None
        if advice:
            warn("evaluations took " + advice)
        return {column: _text(value) for column, value in target_columns(curve, arguments.target_gauc).items()}

    def _steady(self, durations):
        """The columns of the steady state, of `Durations` of whole batches; empty where there are too few."""
        columns = STEADY + ("step_ms_p50", "step_ms_p99")
        if len(durations) < FEWEST_STEPS:
            return dict.fromkeys(columns, "")
        p10, p50, p90, p99 = map(durations.quantile, (0.1, 0.5, 0.9, 0.99))
        row = report_steady(log, self._identity["global_batch_size"], p10, p50, p90,
                            "%d steps, p50 %.3f ms, p99 %.3f" % (len(durations), 1000 * p50, 1000 * p99))
        return dict(row, step_ms_p50="%.3f" % (1000 * p50), step_ms_p99="%.3f" % (1000 * p99))


def _text(value):
    """A number as the CSVs have it; nothing for None."""
    return "" if value is None else "%.6f" % value if type(value) is float else str(value)
