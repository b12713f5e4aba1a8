"""A trained model as others run it: a SavedModel, a frozen GraphDef, or ONNX.

    signature  inputs                                         outputs
    flat       items [N], lengths [B], candidates [B, C]      logits [B, C], probabilities [B, C]
    padded     items [B, T], lengths [B], candidates [B, C]   the same

Inputs are int32, outputs float32; a caller who names no signature gets `padded`. `flat` is this project's own form, for
a caller that knows its data: what does not fit is an error. `padded` takes what a server is sent. It leaves out history
items that the model does not know, like the padding. A user without known items is ranked by the learned item bias. A
candidate that the model does not know is given the lowest logit, probability 0.

A SavedModel is a version, a number, in a folder of versions; its assets.extra/export.json says what it is of: model,
data set, step, and the identity of the training (runs/identity.py).
"""
import csv
import json
import os
import typing

import numpy as np

from utils.data.original_ids import read_names
from utils.dataset import read_dataset
from utils.engine.embeddings import EmbeddingTables, ScoredItems
from utils.engine.scoring_graph import logit_of_ids
from utils.files import UserError, make_folder, new_folder, plain_path, replacing
from utils.runs.locks import waited_for
from utils.runs.log import log
from utils.serving.restore import restored
from utils.tf1 import tf

OPSET = 15  # of ONNX
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


def flat_signature(model_class, tables, checked):
    """The `Signature` for flat histories, of `EmbeddingTables`; `checked`: what does not fit is an error."""
    item_count = tables.item_count
    with tf.name_scope("flat"):
        inputs = _inputs([None])
        items, lengths, candidates = inputs.values()
        range_text = "an item is not in 0 .. %d" % (item_count - 1)
        checks = [(tf.reduce_all(_known(items, item_count)), range_text),
                  (tf.reduce_all(_known(candidates, item_count)), range_text),
                  (tf.reduce_all(lengths > 0), "a history is empty"),
                  (tf.equal(tf.reduce_sum(tf.cast(lengths, tf.int64)), tf.size(items, out_type=tf.int64)),
                   "the sum of the lengths is not the number of items"),
                  (tf.equal(tf.size(lengths), tf.shape(candidates)[0]),
                   "lengths and candidates are not of as many users")]
        with tf.control_dependencies([tf.Assert(fits, [text]) for fits, text in checks] if checked else []):
            items, lengths, candidates = map(tf.identity, inputs.values())
        segments = tf.searchsorted(tf.cumsum(lengths), tf.range(tf.size(items)), side="right")
        return Signature(inputs, _outputs(logit_of_ids(model_class, tables, items, segments, lengths, candidates)[0]))


def padded_signature(model_class, tables):
    """The `Signature` for padded histories, of `EmbeddingTables`."""
    item_count = tables.item_count
    with tf.name_scope("padded"):
        inputs = _inputs([None, None])
        items, lengths, candidates = inputs.values()
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
        return Signature(inputs, _outputs(tf.where_v2(known, logits, LOWEST)))


def export(model_class, name, arguments):
    """Writes the best checkpoint in the format that is asked for.

    `model_class` is a subclass of BaseModel, `name` what the CSVs call it, `arguments` are export.py's, parsed.
    Raises UserError where the data set or the checkpoint is missing, damaged or of other data, or writing fails.
    """
    dataset = read_dataset(arguments.dataset)
    names = read_names(dataset, arguments.remap) if arguments.remap else None

    def make():
        tables = EmbeddingTables(dataset)
        return {"flat": flat_signature(model_class, tables, checked=arguments.format == "saved_model"),
                "padded": padded_signature(model_class, tables)}

    with restored(make, name, dataset, arguments.save_path) as (signatures, session, checkpoint):
        if arguments.format == "saved_model":
            versions = arguments.output or os.path.join(checkpoint.save_path, "saved_model")
            make_folder(versions)
            with waited_for(os.path.join(versions, ".lock")):  # exports at the same time get versions of their own
                path = os.path.join(versions, str(next_version(versions)))
                with new_folder(path) as folder:
                    write_saved_model(folder, session, signatures)
                    extra = os.path.join(folder, "assets.extra")
                    with replacing(os.path.join(extra, "export.json"), "w") as file:
                        json.dump({"model": name, "dataset": dataset.name, "step": checkpoint.step,
                                   "run": checkpoint.run}, file, indent=1)
                    if names:
                        write_items(os.path.join(extra, "items.csv"), names, dataset.cate_list)
        elif arguments.format == "frozen":
            path = arguments.output or os.path.join(checkpoint.save_path, "frozen.pb")
            graph = frozen(session, list(signatures.values()))
            with replacing(path) as file:
                file.write(graph.SerializeToString())
        else:
            path = arguments.output or os.path.join(checkpoint.save_path, "padded.onnx")
            content = onnx(frozen(session, [signatures["padded"]]), signatures["padded"])
            with replacing(path) as file:
                file.write(content)
    log("%s of %s at step %d: %s" % (arguments.format, name, checkpoint.step, path))


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


def onnx(graph, signature):
    """The bytes of the ONNX model of a frozen `graph`; its inputs and outputs have the names of `signature`.

    Raises:
      UserError: tf2onnx is not installed.
    """
    try:
        from tf2onnx import convert
    except ImportError:
        raise UserError("tf2onnx is not installed; pip install -r requirements/onnx.txt") from None
    renamed = {tensor.name: name for part in signature for name, tensor in part.items()}
    model, _ = convert.from_graph_def(
        graph, opset=OPSET, input_names=[tensor.name for tensor in signature.inputs.values()],
        output_names=[tensor.name for tensor in signature.outputs.values()], tensors_to_rename=renamed)
    return model.SerializeToString()
