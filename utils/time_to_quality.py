"""The time to a target of GAUC, MLPerf's way: over several seeds, and held to a reference of convergence.

    python -m utils.time_to_quality [--results FOLDER] [--check | --record] [--reference FILE]

It reads the runs of train.py --target_gauc, and groups those that differ in their seed alone. Of each group it prints
how many runs reached the target, the mean seconds and recommendations to it without the fastest and the slowest run,
and the coefficient of variation; the tables are Markdown. --record adds the groups' recommendations to the reference.
--check compares them with it: a group that needs clearly fewer does not train what the reference does, since the label
leaks, or the data or hyperparameters are others. Then the exit status is 1.
"""
import os

from utils.files import ROOT, Parser, run_main
from utils.reports import convergence, time_to_target
from utils.reports.names import path_label
from utils.results import RESULTS

REFERENCE = os.path.join(ROOT, "docs", "convergence.json")


def main():
    parser = Parser(prog="python -m utils.time_to_quality", description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=RESULTS, help="folder of the CSVs (default: %(default)s)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="exit with status 1 where runs reach their target with "
                        "fewer recommendations than the reference, which means that something is wrong")
    action.add_argument("--record", action="store_true", help="add the recommendations to the target, seed by seed, to "
                        "the reference")
    parser.add_argument("--reference", default=os.path.relpath(REFERENCE), metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args()
    groups = time_to_target.read_groups(arguments.results)
    print("\n\n".join(time_to_target.markdown(groups, arguments.results)), flush=True)
    name = path_label(arguments.reference)
    if arguments.record:
        texts = convergence.record(groups, arguments.reference)
        print("\n## Recorded in %s\n\n%s" % (name, "\n".join("- %s." % text for text in texts)))
    elif arguments.check:
        verdicts = convergence.check(groups, arguments.reference)
        print("\n" + "\n\n".join(convergence.markdown(verdicts, name)), flush=True)
        convergence.require_honest(verdicts, name)


if __name__ == "__main__":
    run_main(main)
