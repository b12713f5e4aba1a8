"""Which run it is: the columns that name it, and the values that a checkpoint must share with it to be resumed."""
from utils.dataset import fingerprint
from utils.files import UserError
from utils.results import MACHINE, POINT, TOO_LARGE, machine_of
from utils.runs.outcomes import are_outcomes
from utils.runs.steady import Durations
from utils.tf1 import tf

# Flags that all workers of a cluster must share, beside the values of `identity_of`.
SHARED_FLAGS = ("batch_size", "num_accelerators", "epochs", "max_steps", "eval_every", "patience", "target_gauc",
                "resume", "skip_test")
MAYBE_NONE = ("train_loss", "seconds_without_evaluations")  # in a curve: before the first step, and of earlier versions
EARLIER_FLAGS = {"selection": "test", "patience": 0, "target_gauc": 0}  # of a run that an earlier version made
UNKNOWN = "unknown"  # a value of the first part of a run of an earlier version
# What a run may go on with when it is resumed, although it began with something else.
PART = ("batch_size", "num_accelerators", "num_workers", "eval_every", "max_steps", "profile", "device", "tensorflow")


def settings(name, dataset, arguments, device, num_workers=1):
    """The columns, in either CSV, that a row is looked up by, and of the machine that it was measured on: texts."""
    return {"model": name, "dataset": dataset.name, "batch_size": arguments.batch_size,
            "num_accelerators": arguments.num_accelerators, "num_workers": num_workers, "device": device,
            "tensorflow": tf.__version__}


def identity_of(name, arguments, dataset, num_workers=1):
    """The values that a run must share with a checkpoint to resume from it, a JSON object."""
    return {"model": name, "dataset": dataset.name, "dataset_fingerprint": fingerprint(dataset), "seed": arguments.seed,
            "global_batch_size": arguments.batch_size * arguments.num_accelerators * num_workers,
            "optimizer": arguments.optimizer, "lr": arguments.lr, "selection": arguments.selection}


def part_of_run(arguments, row_settings, step):
    """The part of a run that begins after `step` steps, a JSON object: `step`, and a value for each of PART.

    `row_settings` are those of `settings`.
    """
    part = dict(row_settings, eval_every=arguments.eval_every, max_steps=arguments.max_steps, step=step,
                profile="yes" if arguments.profile else "no")
    return {column: part[column] for column in ("step",) + PART}


def with_part(parts, part):
    """`parts`, those of the run so far, and `part`, the present one; it is one part as long as nothing changes."""
    earlier = [other for other in parts if other["step"] < part["step"]]
    same = earlier and all(earlier[-1][column] == part[column] for column in PART)
    return earlier if same else earlier + [part]


def unknown_part(row_settings):
    """The first part of a run of an earlier version, which did not write it down but for the size of a batch."""
    part = {column: row_settings.get(column, UNKNOWN) for column in PART}
    return dict(part, step=0, **dict.fromkeys(MACHINE, UNKNOWN))


def changes_of(parts):
    """What changed between the parts of a run, a text: empty where nothing did."""
    columns = [column for column in PART if len({part[column] for part in parts}) > 1]
    ends = [str(part["step"]) for part in parts[1:]] + [""]
    return "; ".join("steps %d-%s: %s" % (part["step"] + 1, end, ", ".join(
        "%s %s" % (column, part[column]) for column in columns)) for part, end in zip(parts, ends)) if columns else ""


def columns_of(parts):
    """The columns that the parts of a run determine: its machines, each once, and the split of a batch at the end."""
    texts = {column: " + ".join(dict.fromkeys(part[column] for part in parts)) for column in MACHINE + ("profile",)}
    return dict(texts, **{column: parts[-1][column] for column in ("batch_size", "num_accelerators", "num_workers")})


def training_columns(run):
    """The columns of results.TRAINING, but for the data's, of the run that a state.json describes.

    `run` is {} for a checkpoint from elsewhere; what is not known is empty.
    """
    parts, run = run.get("parts", []), dict(EARLIER_FLAGS, **run) if run else {}
    return {"epochs": run.get("epochs", ""), "optimizer": run.get("optimizer", ""), "learning_rate": run.get("lr", ""),
            "seed": run.get("seed", ""), "max_steps": run.get("max_steps", ""),
            "eval_every": parts[-1]["eval_every"] if parts and parts[-1]["eval_every"] != UNKNOWN else "",
            "parts": changes_of(parts), "selected_on": run.get("selection", ""), "patience": run.get("patience", ""),
            "target_gauc": run.get("target_gauc", "")}


def inference_columns(run):
    """The columns of a row of inference that say which training made its checkpoint; `run` as of `training_columns`."""
    place = machine_of(columns_of(run["parts"])) if "parts" in run else ""
    return dict(training_columns(run), trained_batch_size=run.get("global_batch_size", ""),
                trained_steps=run.get("steps", ""), trained_on=place)


def _damaged(save_path):
    return UserError("state.json in %s is damaged; train again without --resume" % save_path)


def check_run(run, save_path):
    """Raises UserError unless `run`, of the state.json in `save_path`, has the kinds of values that `Recorder` writes.

    A run of an earlier version lacks parts, epochs and others.
    """
    kinds = {"seed": (int,), "global_batch_size": (int,), "optimizer": (str,), "lr": (int, float), "epochs": (int,),
             "max_steps": (int,), "steps": (int,), "selection": (str,), "patience": (int,), "target_gauc": (int, float)}

    def is_part(part):
        texts = MACHINE + ("profile",)
        return type(part) is dict and set(part) == set(PART) | {"step"} and type(part["step"]) is int and all(
            type(part[column]) is str if column in texts else type(part[column]) in (int, str) for column in PART)
    parts = run.get("parts", [unknown_part({})])
    if not (all(type(run[name]) in kind for name, kind in kinds.items() if name in run)
            and type(parts) is list and parts and all(map(is_part, parts))):
        raise _damaged(save_path)


def check_same_script(run, arguments, save_path):
    """Raises UserError unless `run`, of the checkpoint in `save_path`, is of the same command as `arguments`."""
    flags = dict(EARLIER_FLAGS, **run)
    flags["eval_every"] = run.get("parts", [{}])[-1].get("eval_every")
    for _, difference in _differences(flags, {flag: getattr(arguments, flag) for flag in (
            "epochs", "max_steps", "eval_every", "patience", "target_gauc")}):
        raise UserError("the checkpoint in %s is of another command: %s" % (save_path, difference))


def _differences(run, expected):
    """Yields the values in which `run` differs from `expected`: (name, in words)."""
    for name, value in expected.items():
        if run.get(name) != value:
            yield name, "its %s is %s, not %s" % (name, run.get(name), value)


def check_identity(run, expected, save_path):
    """Raises UserError unless `run`, of the checkpoint in `save_path`, has the values of `expected`."""
    for name, difference in _differences(run, expected):
        remedy = ("train on this data, or give the --dataset that it was trained on" if name == "dataset_fingerprint"
                  else "give its flags, or another --save_path")
        raise UserError("the checkpoint in %s is of another run: %s; %s" % (save_path, difference, remedy))


def fresh_state():
    """The state of a new run, a JSON object; a resumed run goes on from its checkpoint's."""
    return {"step": 0, "recommendations": 0, "train_loss": None, "gauc": None, "auc": None, "best_gauc": -1.0,
            "best_auc": None, "best_step": None, "best_outcomes": "", "test_gauc": None, "test_auc": None,
            "at_chance": 0, "system_seconds": 0.0, "training_seconds": 0.0, "evaluation_seconds": 0.0,
            "accelerator_seconds": 0.0, "step_seconds": {}}


def with_what_earlier_versions_lack(saved):
    """`saved`, the content of a state.json, with the values of runs that an earlier version made."""
    fresh, run, state = fresh_state(), saved["run"], saved["state"]
    later = ("best_outcomes", "test_gauc", "test_auc", "evaluation_seconds", "step_seconds")
    curve = saved.get("curve")
    if type(curve) is list:
        curve = [dict({"seconds_without_evaluations": None}, **point) if type(point) is dict else point
                 for point in curve]
    return dict(saved, run=dict(EARLIER_FLAGS, **run), curve=curve,
                state=dict({name: fresh[name] for name in later}, **state))


def check_state(saved, fresh, save_path):
    """Raises UserError unless `saved`, the content of state.json, has a state like `fresh`, a new run's, and a curve.

    The state has the same names, with numbers where `fresh` may have None; durations are `steady.Durations`' counts. A
    curve is a list of points of numbers, of which MAYBE_NONE may be None. The run is such as of `check_run`.
    """
    check_run(saved["run"], save_path)
    state, curve = saved["state"], saved.get("curve")

    def fits(name):
        value = state[name]
        if type(fresh[name]) is dict:
            return Durations.are_counts(value)
        if type(fresh[name]) is str:
            return type(value) is str and are_outcomes(value)
        low, high = (-1, 1) if "auc" in name else (0, TOO_LARGE)
        is_number = type(value) is int or type(value) is float and type(fresh[name]) is not int
        return value is fresh[name] is None or is_number and low <= value <= high

    def is_point(point):
        return type(point) is dict and set(point) == set(POINT) and all(
            type(value) in (int, float) or value is None and name in MAYBE_NONE for name, value in point.items())
    if (set(state) != set(fresh) or not all(map(fits, fresh)) or state["step"] < 0
            or type(curve) is not list or not curve or not all(map(is_point, curve))):
        raise _damaged(save_path)
