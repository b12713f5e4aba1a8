"""What a model's attention looks at: the weight of each of a test user's purchases for two candidates."""
import numpy as np

from utils.batches import test_batches
from utils.files import UserError
from utils.reports.names import one_line

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
        raise UserError("there is no user %s; give a reviewerID, or a number from 0 to %d"
                        % (user, dataset.user_count - 1))
    rows = np.flatnonzero(dataset.test.users == number)
    if not len(rows):
        raise UserError("user %s has no test example; give another" % user)
    return rows[0]


class ShownAttention:
    """The attention of a `ScoringGraph`, started, to the history of a test user, in words and drawn.

    Args:
      graph: the `ScoringGraph`, of a model with attention.
      dataset: the `Dataset`.
      names: the `Names` of its users and items.
      row: the user's row of the test set.
    """

    def __init__(self, graph, dataset, names, row):
        columns = {column: values[row:row + 1] for column, values in dataset.test._asdict().items()
                   if column != "history_items"}
        batch = next(test_batches(dataset.test._replace(**columns), 1))
        self._dataset, self._names, self._user = dataset, names, dataset.test.users[row]
        self._items, self._candidates = batch.history, batch.candidates[0]      # [T], oldest first; [2]
        self._weights, self._logits = graph.attention_weights(batch), graph.score(batch)[0]  # [T, 2], [2]

    def _named(self, item):
        return one_line("%s  %s" % (self._names.asins[item], self._names.categories[self._dataset.cate_list[item]]))

    def lines(self):
        """The lines that are printed."""
        yield "user %s (number %d), %d purchases" % (self._names.reviewers[self._user], self._user, len(self._items))
        for what, item, logit in zip(CANDIDATES, self._candidates, self._logits):
            yield "%s: %s  (click probability %.4f)" % (what, self._named(item), 1 / (1 + np.exp(-logit)))
        yield "attention weights, oldest purchase first; * marks the candidate's category"
        yield "%8s  %8s" % CANDIDATES
        for item, pair in zip(self._items, self._weights):
            same = self._dataset.cate_list[self._candidates] == self._dataset.cate_list[item]
            marked = ["%7.4f%s" % (weight, "*" if mark else " ") for weight, mark in zip(pair, same)]
            yield "  ".join(marked + [self._named(item)])

    def draw(self, file, model):
        """Writes the plot, a PNG, into `file`; `model` is what the title calls it."""
        from matplotlib.patches import Patch

        from utils.reports.plots import COLOURS, drawing, plain

        shown = np.sort(np.argsort(-self._weights.max(axis=1), kind="stable")[:MAX_DRAWN])
        title = "Attention weights of %s (%s), user %s" % (model, self._dataset.name, self._names.reviewers[self._user])
        if len(shown) < len(self._items):
            title += "\nthe %d heaviest of %d purchases" % (len(shown), len(self._items))
        looks = ({"facecolor": COLOURS[0], "label": "other categories"},
                 {"facecolor": COLOURS[1], "label": "the candidate's category", "hatch": "//", "edgecolor": "white"})
        categories = self._dataset.cate_list[self._items[shown]]
        with drawing(file, title, 9, 1.6 + 0.2 * len(shown), columns=2, sharey=True, sharex=True) as (figure, axes):
            for axis, what, candidate, weights in zip(axes[0], CANDIDATES, self._candidates, self._weights[shown].T):
                category = self._dataset.cate_list[candidate]
                same = categories == category
                for mark, look in enumerate(looks):
                    axis.barh(np.flatnonzero(same == mark), weights[same == mark], **look)
                axis.set_title("%s: %s\n%s" % (what, plain(self._names.asins[candidate]),
                                               plain(self._names.categories[category])))
                axis.set_xlabel("attention weight")
            axes[0, 0].set_yticks(range(len(shown)))
            axes[0, 0].set_yticklabels([plain(self._named(item)) for item in self._items[shown]])
            axes[0, 0].set_ylim(len(shown) - 0.5, -0.5)  # the oldest on top
            axes[0, 0].set_ylabel("purchases, oldest on top")
            figure.legend(handles=[Patch(**look) for look in looks], loc="upper center", bbox_to_anchor=(0.5, 0),
                          ncol=2)
