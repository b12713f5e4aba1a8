"""What a model's attention looks at: a test user's purchases, and the weight of each for two candidates.

    python -m utils.show_attention --user A1B2C3

prints the user's history with the weight of each purchase for the held-out purchase (the positive) and for an item that
the user did not buy (the negative), and draws it: the visualization of DIN in its paper (arXiv 1706.06978).
"""
import os

from utils import models
from utils.data.original_ids import read_names
from utils.dataset import REMAP, read_dataset
from utils.files import ROOT, Parser, UserError, replacing, run_main
from utils.serving.attention import ShownAttention, row_of_user


def main():
    parser = Parser(prog="python -m utils.show_attention", description=__doc__.splitlines()[0])
    parser.add_argument("--user", required=True, help="reviewerID, or the number that stands for one")
    parser.add_argument("--model", choices=models.names(), default="din", help="with attention (default: %(default)s)")
    parser.add_argument("--save_path", help="folder of its checkpoints (default: the best of those there are)")
    parser.add_argument("--dataset", help="default: dataset.pkl in the model's folder")
    parser.add_argument("--remap", default=REMAP, help="the original ids (default: %(default)s)")
    parser.add_argument("--output", help="the plot, a PNG (default: attention_<reviewerID>.png beside the checkpoint)")
    arguments = parser.parse_args()
    folder = os.path.join(ROOT, models.place_of(arguments.model).folder)

    dataset = read_dataset(arguments.dataset or os.path.join(folder, "dataset.pkl"))
    names = read_names(dataset, arguments.remap)
    row = row_of_user(dataset, names, arguments.user)
    from utils.engine.scoring_graph import ScoringGraph  # TensorFlow takes seconds to load
    from utils.serving.restore import restored

    def make():
        graph = ScoringGraph(models.model_class(arguments.model), dataset)
        if graph.attention is None:
            raise UserError("%s has no attention to show; give --model one that has, such as din" % arguments.model)
        return graph
    with restored(make, arguments.model, dataset, arguments.save_path) as (graph, session, checkpoint):
        graph.start(session)
        shown = ShownAttention(graph, dataset, names, row)
    reviewer = "".join(letter if letter.isprintable() and letter != "/" else "_"
                       for letter in names.reviewers[dataset.test.users[row]])
    output = arguments.output or os.path.join(checkpoint.save_path, "attention_%s.png" % reviewer)
    with replacing(output) as file:
        shown.draw(file, arguments.model)
    print("\n".join(shown.lines()))
    print("drawn in %s" % os.path.relpath(output))


if __name__ == "__main__":
    run_main(main)
