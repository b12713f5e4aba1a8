"""What TensorBoard shows of a run: its curves, graph, histograms and hyperparameters, and the items' embeddings."""
import os
import socket
import time

import numpy as np
from tensorboard.plugins.hparams import api_pb2, summary

from utils.data.original_ids import read_names
from utils.dataset import REMAP
from utils.files import UserError, plain_path, replacing, writing
from utils.runs.checkpoints import BEST
from utils.tf1 import tf

HISTOGRAM_BINS = 30

# Files of the projector, beside the checkpoints: where to find the latest, and what to call each row of a table.
PROJECTOR_FILES = ("checkpoint", "projector_config.pbtxt", "items.tsv", "categories.tsv")
CHECKPOINT, CONFIG, ITEMS, CATEGORIES = PROJECTOR_FILES


class Summaries:
    """The events of a run, written into `save_path`; a resumed run goes on where it stopped, at `step`.

    TensorBoard compares runs by their `hyperparameters`, {name: text or number}. Events are written at once, where
    TensorFlow's FileWriter has a thread, which prints its errors.
    """

    def __init__(self, save_path, graph, step, hyperparameters):
        self._save_path = save_path
        name = "events.out.tfevents.%d.%s.%d" % (time.time(), socket.gethostname(), os.getpid())
        with self._writing(), plain_path(save_path) as folder:
            self._writer = tf.python_io.TFRecordWriter(os.path.join(folder, name))
        self._write(file_version="brain.Event:2")
        self._write(graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())
        if step:  # hides the points that an interrupted run wrote after its last checkpoint
            self._write(session_log=tf.SessionLog(status=tf.SessionLog.START), step=step + 1)
        self._write_plugin(summary.session_start_pb(hyperparameters))

    def _writing(self):
        return writing(self._save_path, Exception)  # a full disk raises several kinds, by TensorFlow's version

    def _write(self, **event):
        with self._writing():
            self._writer.write(tf.Event(wall_time=time.time(), **event).SerializeToString())

    def _write_plugin(self, message):
        self._write(summary=tf.Summary.FromString(message.SerializeToString()))  # TensorBoard has protocols of its own

    def add(self, step, **values):
        """Adds a point to the curve of each name."""
        self._write(step=step, summary=tf.Summary(value=[
            tf.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]))

    def add_histograms(self, step, arrays):
        """Adds a histogram of each of `arrays`, {name: array}."""
        self._write(step=step, summary=tf.Summary(value=[
            tf.Summary.Value(tag=name, histo=_histogram(array)) for name, array in arrays.items()]))

    def add_trace(self, step, trace):
        """Adds the times of a step's operations, a RunMetadata, which TensorBoard shows in the graph."""
        self._write(step=step, tagged_run_metadata={"tag": "step %d" % step, "run_metadata": trace.SerializeToString()})

    def flush(self):
        with self._writing():
            self._writer.flush()

    def close(self):
        """Writes that the run ended well."""
        self._write_plugin(summary.session_end_pb(api_pb2.STATUS_SUCCESS))
        with self._writing():
            self._writer.close()


def _histogram(values):
    values = np.asarray(values, np.float64).ravel()
    counts, edges = np.histogram(values, HISTOGRAM_BINS)
    return tf.HistogramProto(min=values.min(), max=values.max(), num=len(values), sum=values.sum(),
                             sum_squares=np.square(values).sum(), bucket_limit=edges[1:], bucket=counts)


def write_projector(save_path, dataset, remap=REMAP):
    """Writes the files by which TensorBoard's projector shows the embeddings of `save_path`'s best checkpoint by name.

    Where the remap.pkl that `dataset` was made of is not there any more, items and categories have numbers for names.
    """
    try:
        names = read_names(dataset, remap)
        asins, categories = names.asins, names.categories
    except UserError:
        asins, categories = range(dataset.item_count), range(dataset.cate_count)
    asins, categories = ([" ".join(str(name).split()) for name in column]  # a line each, whatever is in a name
                         for column in (asins, categories))
    rows = ["%s\t%s" % (asin, categories[category]) for asin, category in zip(asins, dataset.cate_list.tolist())]
    tables = ['embeddings { tensor_name: "%s" metadata_path: "%s" }' % table
              for table in (("item_emb_w", ITEMS), ("cate_emb_w", CATEGORIES))]
    for name, lines in ((ITEMS, ["asin\tcategory"] + rows), (CATEGORIES, categories),  # one column has no header there
                        (CHECKPOINT, ['model_checkpoint_path: "%s"' % BEST]), (CONFIG, tables)):
        with replacing(os.path.join(save_path, name), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
