"""What ends a training before its last step: a target of GAUC that is reached, or patience that is at its end.

Both are read off the curve, the points of results.POINT of a run's evaluations, so a resumed run needs nothing else.
"""
import math

MAX_EVALUATION_SHARE = 0.05  # of the time to a target


def reaching_point(curve, target_gauc):
    """The first point after training began that reaches `target_gauc`; None without one, or where the target is 0."""
    return next((point for point in curve if point["step"] and point["gauc"] >= target_gauc), None) \
        if target_gauc else None


def reason_to_end(curve, target_gauc, patience):
    """Why a run is to end after the latest evaluation, a line for the log; None where it goes on."""
    point = reaching_point(curve, target_gauc)
    if point:
        return "The target GAUC %g is reached after %.2f seconds of training and %d recommendations" % (
            target_gauc, point["seconds"], point["recommendations"])
    trained = [point for point in curve if point["step"]]
    best = max(trained, key=lambda point: point["gauc"], default=None)  # of equals the first
    if patience and best and len(trained) - 1 - trained.index(best) >= patience:
        return "No better GAUC in %d evaluations; the best is of step %d" % (patience, best["step"])
    return None


def step_to_end_at(curve, target_gauc, patience):
    """The step before the curve's last at which a run with these flags would have ended; None where there is none."""
    return next((point["step"] for count, point in enumerate(curve[:-1], 1)
                 if reason_to_end(curve[:count], target_gauc, patience)), None)


def target_columns(curve, target_gauc):
    """The columns of results.TARGET: whether, how soon and after how much the target was reached; empty without one."""
    point = reaching_point(curve, target_gauc)
    if not point:
        return {"target_reached": "no" if target_gauc else "", "seconds_to_target": None,
                "seconds_to_target_without_evaluations": None, "recommendations_to_target": None}
    return {"target_reached": "yes", "seconds_to_target": point["seconds"],
            "seconds_to_target_without_evaluations": point["seconds_without_evaluations"],
            "recommendations_to_target": point["recommendations"]}


def wider_spacing(point, eval_every):
    """The --eval_every with which evaluations take MAX_EVALUATION_SHARE of the time to `point`.

    It is a multiple of `eval_every`, so that a reference of convergence that was evaluated as often still fits.
    """
    training = point["seconds_without_evaluations"]
    seconds_each = (point["seconds"] - training) / (point["step"] / eval_every)
    steps = seconds_each / MAX_EVALUATION_SHARE * (1 - MAX_EVALUATION_SHARE) * point["step"] / training
    return eval_every * math.ceil(steps / eval_every)


def advice_on_evaluations(point, eval_every):
    """What to do where evaluations took more than MAX_EVALUATION_SHARE of the time to `point`; None where they did not.

    A clause, with their share. The start and the end of each epoch are evaluated whatever `eval_every` is.
    """
    training = point["seconds_without_evaluations"]
    if training is None or point["seconds"] * (1 - MAX_EVALUATION_SHARE) <= training:
        return None
    if point["step"] < eval_every:
        remedy = "they are at the start and the ends of epochs, and can't be fewer"
    else:
        remedy = "with --eval_every %d they take %.0f%% or less" % (
            wider_spacing(point, eval_every), 100 * MAX_EVALUATION_SHARE)
    return "%.0f%% of the time to the target; %s" % (100 * (1 - training / point["seconds"]), remedy)
