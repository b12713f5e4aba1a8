"""A trained model as others run it: a SavedModel, a frozen GraphDef, or ONNX.

    signature  inputs                                         outputs
    flat       items [N], lengths [B], candidates [B, C]      logits [B, C], probabilities [B, C]
    padded     items [B, T], lengths [B], candidates [B, C]   the same

Inputs are int32, outputs float32; a caller who names no signature gets `padded`. `flat` is this project's own form, for
a caller that knows its data: what does not fit is an error. `padded` takes what a server is sent. It leaves out history
items that the model does not know, like the padding. A user without known items is ranked by the learned item bias. A
candidate that the model does not know is given the lowest logit, probability 0. Inputs of unequal numbers of users are
an error in each format; a length beyond 0 .. T is one in a SavedModel, and the others take the nearest that fits.

A SavedModel is a version, a number, in a folder of versions; its assets.extra/export.json says what it is of: model,
data set, step, and the identity of the training (runs/identity.py).
"""
import contextlib
import csv
import json
import os
import typing

import numpy as np

from utils.data.original_ids import read_names
from utils.dataset import REMAP, read_dataset
from utils.engine.embeddings import EmbeddingTables, ScoredItems
from utils.engine.scoring_graph import logit_of_ids
from utils.files import ROOT, UserError, make_folder, new_folder, plain_path, replacing, unwritable
from utils.runs.locks import waited_for
from utils.runs.log import log
from utils.serving.restore import restored
from utils.tf1 import tf, tf_reason

OPSET = 15  # of ONNX
MAX_GRAPH = (1 << 31) - 1  # bytes of a GraphDef and of an ONNX model: protobuf's limit
FILES = {"frozen": "frozen.pb", "onnx": "padded.onnx"}  # in the checkpoint's folder
LOWEST = np.finfo(np.float32).min  # finite: JSON has no infinity


class Signature(typing.NamedTuple):
    """What an export is given and what it gives, tensors by name."""
    inputs: dict
    outputs: dict


def _inputs(items_shape):
    shapes = {"items": items_shape, "lengths": [None], "candidates": [None, None]}
    return {name: tf.placeholder(tf.int32, shape, name) for name, shape in shapes.items()}


def _outputs(logits):
    return {"logits": tf.identity(logits, "logits"), "probabilities": tf.sigmoid(logits, "probabilities")}


def _known(ids, item_count):
    return tf.logical_and(ids >= 0, ids < item_count)


def _checked(tensors, checks):
    """The `tensors`, an error where one of `checks` is not so, a list of (whether it is so, what is wrong if not)."""
    with tf.control_dependencies([tf.Assert(fits, [text]) for fits, text in checks]):
        return [tf.identity(tensor) for tensor in tensors]


def flat_signature(model_class, tables, checked):
    """The `Signature` for flat histories, of `EmbeddingTables`; `checked`: what does not fit is an error."""
    item_count = tables.item_count
    with tf.name_scope("flat"):
        inputs = _inputs([None])
        items, lengths, candidates = inputs.values()
        if checked:
            range_text = "an item is not in 0 .. %d" % (item_count - 1)
            items, lengths, candidates = _checked(inputs.values(), [
                (tf.reduce_all(_known(items, item_count)), range_text),
                (tf.reduce_all(_known(candidates, item_count)), range_text),
                (tf.reduce_all(lengths > 0), "a history is empty"),
                (tf.equal(tf.reduce_sum(tf.cast(lengths, tf.int64)), tf.size(items, out_type=tf.int64)),
                 "the sum of the lengths is not the number of items"),
                (tf.equal(tf.size(lengths), tf.shape(candidates)[0]),
                 "lengths and candidates are not of as many users")])
        segments = tf.searchsorted(tf.cumsum(lengths), tf.range(tf.size(items)), side="right")
        return Signature(inputs, _outputs(logit_of_ids(model_class, tables, items, segments, lengths, candidates)[0]))


def padded_signature(model_class, tables, checked):
    """The `Signature` for padded histories, of `EmbeddingTables`; `checked`: what does not fit has an error's text."""
    item_count = tables.item_count
    with tf.name_scope("padded"):
        inputs = _inputs([None, None])
        items, lengths, candidates = inputs.values()
        if checked:
            users = tf.size(lengths)
            items, lengths, candidates = _checked(inputs.values(), [
                (tf.equal(users, tf.shape(items)[0]), "lengths and items are not of as many users"),
                (tf.equal(users, tf.shape(candidates)[0]), "lengths and candidates are not of as many users"),
                (tf.reduce_all(tf.logical_and(lengths >= 0, lengths <= tf.shape(items)[1])),
                 "a length is negative or beyond the items of a user, padding included")])
        items, lengths, candidates, answered = _at_least_one(items, lengths, candidates)
        there = tf.logical_and(tf.sequence_mask(lengths, tf.shape(items)[1]), _known(items, item_count))  # [B, T]
        empty = tf.logical_not(tf.reduce_any(there, axis=1, keepdims=True))     # [B, 1]
        # An empty history is given item 0 in front, as the models have no other answer to it than a division by 0.
        items = tf.concat([tf.zeros_like(empty, tf.int32), items], axis=1)      # [B, 1 + T]
        there = tf.concat([empty, there], axis=1)
        segments, lengths = tf.cast(tf.where(there)[:, 0], tf.int32), tf.reduce_sum(tf.cast(there, tf.int32), axis=1)
        known = _known(candidates, item_count)
        candidates = tf.where_v2(known, candidates, 0)
        logits, _ = logit_of_ids(model_class, tables, tf.boolean_mask(items, there), segments, lengths, candidates)
        if "bias" in tables.made:
            item_bias = ScoredItems(tables, candidates).look_up("bias")
        else:  # the model has none
            item_bias = tf.zeros_like(logits)
        logits = tf.where_v2(empty, item_bias, logits)
        return Signature(inputs, _outputs(answered(tf.where_v2(known, logits, LOWEST))))


def _at_least_one(items, lengths, candidates):
    """The inputs with a user and a candidate at least, item 0, as ONNX Runtime fails without any.

    They are laid side by side, which is an error in each format where they are not of as many users. ONNX Runtime would
    leave out one of no users, so each has a row more for that.

    Returns:
      items [B, T], lengths [B], candidates [B, C], and a function of logits [B, C] that gives those asked for.
    """
    width, shape = tf.shape(items)[1], tf.shape(candidates)
    rows = tf.concat([tf.pad(tf.expand_dims(lengths, 1), [[0, 1], [0, 0]]), tf.pad(items, [[0, 1], [0, 0]]),
                      tf.pad(candidates, [[0, 1], [0, tf.maximum(1 - shape[1], 0)]])], axis=1)
    rows = rows[:tf.maximum(shape[0], 1)]                                       # [B, 1 + T + C]
    return (rows[:, 1:1 + width], rows[:, 0], rows[:, 1 + width:],
            lambda logits: logits[:shape[0], :shape[1]])


def export(model_class, name, arguments):
    """Writes the best checkpoint in the format that is asked for.

    `model_class` is a subclass of BaseModel, `name` what the CSVs call it, `arguments` are export.py's, parsed.
    Raises UserError where the data set or the checkpoint is missing, damaged or of other data, or writing fails.
    """
    check_output(arguments.format, arguments.output)
    convert = onnx_converter() if arguments.format == "onnx" else None
    dataset = read_dataset(arguments.dataset)
    names = read_names(dataset, arguments.remap or REMAP) if arguments.remap is not None else None

    def make():
        tables, checked = EmbeddingTables(dataset), arguments.format == "saved_model"
        signatures = {"flat": flat_signature(model_class, tables, checked),
                      "padded": padded_signature(model_class, tables, checked)}
        if arguments.format != "saved_model":
            check_size(arguments.format)
        return signatures

    with restored(make, name, dataset, arguments.save_path) as (signatures, session, checkpoint):
        if arguments.format == "saved_model":
            versions = arguments.output or os.path.join(checkpoint.save_path, "saved_model")
            make_folder(versions)
            with waited_for(os.path.join(versions, ".lock")):  # exports at the same time get versions of their own
                path = os.path.join(versions, str(next_version(versions)))
                with new_folder(path) as folder:
                    try:
                        write_saved_model(folder, session, signatures)
                    except tf.errors.OpError as error:
                        raise unwritable(path, tf_reason(error).split("; ")[-1]) from None  # without the file beside
                    extra = os.path.join(folder, "assets.extra")
                    with replacing(os.path.join(extra, "export.json"), "w") as file:
                        json.dump({"model": name, "dataset": dataset.name, "step": checkpoint.step,
                                   "run": checkpoint.run}, file, indent=1)
                    if names:
                        write_items(os.path.join(extra, "items.csv"), names, dataset.cate_list)
        else:
            path = arguments.output or os.path.join(checkpoint.save_path, FILES[arguments.format])
            with converting(arguments.format):
                if convert:
                    content = onnx(convert, frozen(session, [signatures["padded"]]), signatures["padded"])
                else:
                    content = frozen(session, list(signatures.values())).SerializeToString()
            with replacing(path) as file:
                file.write(content)
    log("%s of %s at step %d: %s" % (arguments.format, name, checkpoint.step, path))


def check_output(export_format, output):
    """Raises UserError where `output`, what --output names, is a file but a folder is wanted, or the reverse."""
    if not output:
        return
    if export_format == "saved_model" and os.path.exists(output) and not os.path.isdir(output):
        raise UserError("%s is a file; name the folder of versions that the SavedModel is to be in" % output)
    if export_format != "saved_model" and (os.path.isdir(output) or output.endswith(os.sep)):
        raise UserError("%s is a folder; name the file to write: --output %s"
                        % (output, os.path.join(output, FILES[export_format])))


def check_size(export_format):
    """Raises UserError where the default graph, its variables as constants, has more than MAX_GRAPH bytes."""
    graph = tf.get_default_graph()
    size = graph.as_graph_def().ByteSize() + sum(
        variable.shape.num_elements() * variable.dtype.size for variable in tf.global_variables())
    if size > MAX_GRAPH:
        raise UserError("the model has %d bytes, and --format %s can't have more than %d; export a SavedModel, which "
                        "has no such limit: --format saved_model" % (size, export_format, MAX_GRAPH))


@contextlib.contextmanager
def converting(export_format):
    """A context for a library's work on the graph: whatever it raises becomes a UserError."""
    try:
        yield
    except Exception as error:
        raise UserError("the model can't be written as %s (%s); export a SavedModel: --format saved_model"
                        % (export_format, tf_reason(error))) from None


def next_version(folder):
    """The number after the highest version of the SavedModels in `folder`; 1 where there is none.

    A server takes the highest. The checkpoint's step would not do: after another training the best may come sooner.
    """
    return 1 + max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=0)


def write_saved_model(folder, session, signatures):
    """Writes `session`'s graph and variables into `folder`, a SavedModel with `signatures`, a dictionary."""
    with plain_path(os.path.dirname(folder)) as parent:
        builder = tf.saved_model.Builder(os.path.join(parent, os.path.basename(folder)))
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.tag_constants.SERVING], clear_devices=True, strip_default_attrs=True,
            signature_def_map={name: tf.saved_model.predict_signature_def(*signature)
                               for name, signature in dict(signatures, serving_default=signatures["padded"]).items()})
        builder.save()


def write_items(path, names, cate_list):
    """Writes the CSV that says what each item id stands for."""
    with replacing(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("item", "asin", "category"))
        writer.writerows((item, asin, names.categories[cate_list[item]]) for item, asin in enumerate(names.asins))


def frozen(session, signatures):
    """The GraphDef that computes the outputs of `signatures`, its variables turned into constants."""
    outputs = [tensor.op.name for signature in signatures for tensor in signature.outputs.values()]
    graph = tf.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), outputs)
    for node in graph.node:
        node.device = ""
    return graph


def onnx_converter():
    """tf2onnx's function of a GraphDef; raises UserError where it is not installed, or does not go with TensorFlow."""
    try:
        from tf2onnx import convert
    except Exception as error:  # of several kinds, where the versions don't go together
        missing = isinstance(error, ImportError) and error.name == "tf2onnx"
        raise UserError("tf2onnx %s; it needs Python 3.10 or newer: pip install -r %s" % (
            "is not installed" if missing else "can't be used (%s)" % tf_reason(error),
            os.path.relpath(os.path.join(ROOT, "requirements", "onnx.txt")))) from None
    return convert.from_graph_def


def onnx(convert, graph, signature):
    """The bytes of the ONNX model that `convert` makes of a frozen `graph`, with the names of `signature`."""
    renamed = {tensor.name: name for part in signature for name, tensor in part.items()}
    model, _ = convert(
        graph, opset=OPSET, input_names=[tensor.name for tensor in signature.inputs.values()],
        output_names=[tensor.name for tensor in signature.outputs.values()], tensors_to_rename=renamed)
    return model.SerializeToString()
