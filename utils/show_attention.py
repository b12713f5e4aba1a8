"""What DIN's attention looks at: a test user's purchases, and the weight of each for two candidates.

    python -m utils.show_attention --user A1B2C3

prints the user's history with the weight of each purchase for the held-out purchase (the positive) and for an item that the
user did not buy (the negative), and draws it: the visualization of DIN in its paper (arXiv 1706.06978), for one's own model.
"""
import os

import numpy as np

from utils.batches import test_batches
from utils.commands import MODELS, model_class
from utils.dataset import REMAP, read_dataset
from utils.files import ROOT, Parser, UserError, replacing, run_main
from utils.data.original_ids import read_names

MOST_DRAWN = 40  # purchases; of a longer history those with the greatest weights
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


def attention_of(model, dataset, row):
    """What `model` makes of a row of the test set.

    Returns:
      (items [T], candidates [2], weights [T, 2], logits [2]): the history, oldest first; positive and negative.
    """
    columns = {name: column[row:row + 1] for name, column in dataset.test._asdict().items() if name != "history_items"}
    batch = next(test_batches(dataset.test._replace(**columns), 1))
    return batch.history, batch.candidates[0], model.attention_weights(batch), model.score(batch)[0]


def lines(dataset, names, row, items, candidates, weights, logits):
    """The lines that are printed."""
    def named(item):
        return "%s  %s" % (names.asins[item], names.categories[dataset.cate_list[item]])
    user = dataset.test.users[row]
    yield "user %s (number %d), %d purchases" % (names.reviewers[user], user, len(items))
    for what, item, logit in zip(CANDIDATES, candidates, logits):
        yield "%s: %s  (click probability %.4f)" % (what, named(item), 1 / (1 + np.exp(-logit)))
    yield "attention weights, oldest purchase first; * marks the candidate's category"
    yield "%8s  %8s" % CANDIDATES
    for item, pair in zip(items, weights):
        same = dataset.cate_list[candidates] == dataset.cate_list[item]
        yield "  ".join("%7.4f%s" % (weight, "*" if mark else " ") for weight, mark in zip(pair, same)) + "  " + named(item)


def draw(file, dataset, names, row, items, candidates, weights, model):
    """Writes the plot, a PNG, into `file`; `model` is what the title calls it."""
    from matplotlib.patches import Patch

    from utils.reports.plots import COLOURS, drawing, plain

    shown = np.sort(np.argsort(-weights.max(axis=1), kind="stable")[:MOST_DRAWN])
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


def main():
    parser = Parser(prog="python -m utils.show_attention", description=__doc__.splitlines()[0])
    parser.add_argument("--user", required=True, help="reviewerID, or the number that stands for one")
    parser.add_argument("--model", choices=[name for name in MODELS if name.startswith("din")], default="din",
                        help="default: %(default)s")
    parser.add_argument("--save_path", help="folder of its checkpoints (default: what train.py takes)")
    parser.add_argument("--dataset", default=os.path.join(ROOT, "din", "dataset.pkl"), help="default: %(default)s")
    parser.add_argument("--remap", default=REMAP, help="the original ids (default: %(default)s)")
    parser.add_argument("--output", help="the plot, a PNG (default: attention_<reviewerID>.png in save_path)")
    arguments = parser.parse_args()
    save_path = arguments.save_path or os.path.join(ROOT, "din", "save_path", "dice" if arguments.model == "din_dice" else "")

    dataset = read_dataset(arguments.dataset)
    names = read_names(dataset, arguments.remap)
    row = row_of_user(dataset, names, arguments.user)
    from utils.infer_loop import restored  # TensorFlow takes seconds to load
    from utils.train_loop import build

    def make():
        return build(model_class(arguments.model), dataset, 1, 1)
    with restored(make, arguments.model, dataset, save_path) as (model, *_):
        items, candidates, weights, logits = attention_of(model, dataset, row)
    shown = dataset, names, row, items, candidates, weights
    output = arguments.output or os.path.join(save_path, "attention_%s.png" % names.reviewers[dataset.test.users[row]])
    with replacing(output) as file:
        draw(file, *shown, model=arguments.model)
    for line in lines(*shown, logits=logits):
        print(line)
    print("drawn in %s" % os.path.relpath(output))


if __name__ == "__main__":
    run_main(main)
