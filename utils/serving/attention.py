"""What a model's attention looks at: the weight of each of a test user's purchases for two candidates, in words and drawn."""
import numpy as np

from utils.batches import test_batches
from utils.files import UserError

MAX_DRAWN = 40  # purchases; of a longer history those with the greatest weights
CANDIDATES = ("positive", "negative")


def row_of_user(dataset, names, user):
    """The row of the test set that is of `user`, a reviewerID or, where there is none of that name, a number.

    Raises:
      UserError: there is no such user, or none of that number has a test example.
    """
    if user in names.reviewers:
        number = names.reviewers.index(user)
    elif user.isdecimal() and int(user) < dataset.user_count:
        number = int(user)
    else:
        raise UserError("there is no user %s; give a reviewerID, or a number from 0 to %d" % (user, dataset.user_count - 1))
    rows = np.flatnonzero(dataset.test.users == number)
    if not len(rows):
        raise UserError("user %s has no test example; give another" % user)
    return rows[0]


def attention_of(graph, dataset, row):
    """What a `ScoringGraph` makes of a row of the test set.

    Returns:
      (items [T], candidates [2], weights [T, 2], logits [2]): the history, oldest first; positive and negative.
    """
    columns = {name: column[row:row + 1] for name, column in dataset.test._asdict().items() if name != "history_items"}
    batch = next(test_batches(dataset.test._replace(**columns), 1))
    return batch.history, batch.candidates[0], graph.attention_weights(batch), graph.score(batch)[0]


def lines(dataset, names, row, items, candidates, weights, logits):
    """The lines that are printed."""
    def label(item):
        return "%s  %s" % (names.asins[item], names.categories[dataset.cate_list[item]])
    user = dataset.test.users[row]
    yield "user %s (number %d), %d purchases" % (names.reviewers[user], user, len(items))
    for what, item, logit in zip(CANDIDATES, candidates, logits):
        yield "%s: %s  (click probability %.4f)" % (what, label(item), 1 / (1 + np.exp(-logit)))
    yield "attention weights, oldest purchase first; * marks the candidate's category"
    yield "%8s  %8s" % CANDIDATES
    for item, pair in zip(items, weights):
        same = dataset.cate_list[candidates] == dataset.cate_list[item]
        yield "  ".join("%7.4f%s" % (weight, "*" if mark else " ") for weight, mark in zip(pair, same)) + "  " + label(item)


def draw(file, dataset, names, row, items, candidates, weights, model):
    """Writes the plot, a PNG, into `file`; `model` is what the title calls it."""
    from matplotlib.patches import Patch

    from utils.reports.plots import COLOURS, drawing, plain

    shown = np.sort(np.argsort(-weights.max(axis=1), kind="stable")[:MAX_DRAWN])
    title = "Attention weights of %s (%s), user %s" % (model, dataset.name, names.reviewers[dataset.test.users[row]])
    if len(shown) < len(items):
        title += "\nthe %d heaviest of %d purchases" % (len(shown), len(items))
    with drawing(file, title, 9, 1.6 + 0.2 * len(shown), columns=2, sharey=True, sharex=True) as (figure, axes):
        looks = ({"facecolor": COLOURS[0], "label": "other categories"},
                 {"facecolor": COLOURS[1], "label": "the candidate's category", "hatch": "//", "edgecolor": "white"})
        for column, axis in enumerate(axes[0]):
            category = dataset.cate_list[candidates[column]]
            same = dataset.cate_list[items[shown]] == category
            for mark, look in enumerate(looks):
                axis.barh(np.flatnonzero(same == mark), weights[shown[same == mark], column], **look)
            axis.set_title("%s: %s\n%s" % (CANDIDATES[column], plain(names.asins[candidates[column]]),
                                           plain(names.categories[category])))
            axis.set_xlabel("attention weight")
        axes[0, 0].set_yticks(range(len(shown)))
        axes[0, 0].set_yticklabels([plain("%s  %s" % (names.asins[item], names.categories[dataset.cate_list[item]]))
                                    for item in items[shown]])
        axes[0, 0].set_ylim(len(shown) - 0.5, -0.5)  # the oldest on top
        axes[0, 0].set_ylabel("purchases, oldest on top")
        figure.legend(handles=[Patch(**look) for look in looks], loc="upper center", bbox_to_anchor=(0.5, 0), ncol=2)
