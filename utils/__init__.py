"""What every model shares. The hall has what everybody imports and the commands; the rooms what few need.

The data's way, in order:
    0_download_raw.sh    fetches and verifies the raw files
    1_convert_pd.py      raw files -> reviews.pkl, meta.pkl
    2_remap_id.py        -> remap.pkl, integer ids
    make_sample.py       or else raw files of generated data
    dataset.py           remap.pkl -> dataset.pkl: examples, negatives, the split
    batches.py           dataset.pkl -> padding-free batches
A model:
    models.py            which models there are
    base_model.py        what a model is: `logit(history, candidate)`
    layers.py            what models are made of
    towers.py            the devices that a batch is split over
    metrics.py           GAUC and AUC
Training, inference, results:
    commands.py          train.py, infer.py, export.py, build_dataset.py: their arguments, and what they call
    train_loop.py        epochs, steps, evaluations
    infer_loop.py        timed scoring of the test set
    results.py           the CSVs
    timing.py            the clocks
Commands, python -m utils.<name>:
    search.py            the hyperparameters of a model, chosen on validation
    report.py            the report of a folder of results
    compare_results.py   several folders of results, compared
    time_to_quality.py   the time to a target of GAUC, and its check against a reference
    show_attention.py    what a model's attention looks at
    digest.py            digests of what is prepared
Plumbing:
    environment.py       what the environment may change
    installation.py      what setup.sh has installed, and what is missing
    files.py             files that are whole or not there, errors of one line
    tf1.py               TensorFlow as the project uses it
    shell.sh             what the shell scripts share
    script_arguments.py  the shell scripts' arguments, checked first
Rooms:
    data/                raw files, pickles, draws, original ids, the generated sample
    engine/              the graph's machinery: embeddings, packing, training and scoring, session, optimizers
    runs/                what a run keeps: identity, checkpoints, steady figures, summaries, traces, locks, trials
    cluster/             several machines: workers, who may connect, a cluster on this machine
    serving/             scoring, ranking, export, attention shown
    reports/             pages, tables, plots, comparisons
"""
from utils import environment  # noqa: F401  before a library reads its variables
