"""What ends a training before its last step: a target of GAUC that is reached, or patience that is at its end.

Both are read off the curve, the points of results.POINT of a run's evaluations, so a resumed run needs nothing else.
"""
MAX_EVALUATION_SHARE = 0.05  # of the time to a target


def reaching_point(curve, target_gauc):
    """The first point after training began that reaches `target_gauc`; None without one, or where the target is 0."""
    return next((point for point in curve if point["step"] and point["gauc"] >= target_gauc), None) \
        if target_gauc else None


def evaluations_since_best(curve, best_step):
    """How many evaluations came after that of step `best_step`."""
    return sum(point["step"] > (best_step or 0) for point in curve)


def reason_to_end(curve, best_step, target_gauc, patience):
    """Why a run is to end after the latest evaluation, a line for the log; None where it goes on."""
    point = reaching_point(curve, target_gauc)
    if point:
        return "The target GAUC %g is reached after %.2f seconds of training and %d recommendations" % (
            target_gauc, point["seconds"], point["recommendations"])
    if patience and evaluations_since_best(curve, best_step) >= patience:
        return "No better GAUC in %d evaluations; the best is of step %d" % (patience, best_step)
    return None


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
    """The --eval_every with which evaluations take MAX_EVALUATION_SHARE of the time to `point`; None where they do."""
    training = point["seconds_without_evaluations"]
    if training is None or point["seconds"] * (1 - MAX_EVALUATION_SHARE) <= training:
        return None
    seconds_each = (point["seconds"] - training) / (point["step"] / eval_every)
    return int(seconds_each / MAX_EVALUATION_SHARE * (1 - MAX_EVALUATION_SHARE) * point["step"] / training) + 1
