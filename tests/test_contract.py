"""The contract of `logit`: whatever a model does with its items, it trains and scores as its formula in a dense graph.

Each toy model is written once. Two graphs are built from it: one of the project's, and a dense one by TensorFlow's own
gathers, gradients and optimizers.
"""
import numpy as np
import pytest

from tests.helpers import Graph, load, random_dataset
from utils.base_model import BaseModel
from utils.batches import test_batches as batches_of_test
from utils.batches import train_batches
from utils.engine.embeddings import EmbeddingTables, History, ScoredItems
from utils.files import UserError
from utils.layers import dense, mean_pooling, segment_sum
from utils.serving import ranking
from utils.serving.export import flat_signature
from utils.serving.scoring import Scorer
from utils.tf1 import tf

DATASET = random_dataset(users=40, items=30, categories=4)
STEPS = 10
BATCHES = list(train_batches(DATASET.train, 24, seed=1, epoch=0))[:STEPS]
RATES = {"sgd": 0.5, "adam": 0.01}
PLAIN_OPTIMIZERS = {"sgd": tf.train.GradientDescentOptimizer, "adam": tf.train.AdamOptimizer}


class TwoLookups(BaseModel):
    """The candidates are embedded twice, and so is the history."""

    def logit(self, history, candidate):
        u, i = mean_pooling(self.embed(history), history), self.embed(candidate)
        again = self.embed(candidate)
        latest = mean_pooling(tf.square(self.embed(history)), history)
        return tf.reduce_sum(u * i + again * again + latest * i, -1) + self.item_bias(candidate)


class IdFeature(BaseModel):
    """Whether the candidate is in the history, by ids, is a feature."""

    def logit(self, history, candidate):
        same = tf.equal(history.ids[:, tf.newaxis], tf.gather(candidate.ids, history.segments))      # [N, C]
        count = segment_sum(tf.cast(same, tf.float32), history.segments, tf.size(history.lengths))   # [B, C]
        even = tf.cast(tf.equal(candidate.ids % 2, 0), tf.float32)
        u, i = mean_pooling(self.embed(history), history), self.embed(candidate)
        features = tf.stack([tf.reduce_sum(u * i, -1), count, even], -1)                             # [B, C, 3]
        return tf.squeeze(dense(features, 1, "features"), -1) + self.item_bias(candidate)


class SlicedCandidates(BaseModel):
    """The first candidate is looked up alone, a part of a part, with an ellipsis; the history by a slice of it all."""

    def logit(self, history, candidate):
        first, i = self.embed(candidate[:, :1]), self.embed(candidate)                               # [B, 1 or C, H]
        column = self.embed(candidate[..., 0])                                                       # [B, H]
        u = mean_pooling(self.embed(history[0:]) + self.embed_item(history[...])[:, :1], history)
        bias = self.item_bias(candidate[:, :1]) + self.item_bias(candidate)
        ids = tf.cast(candidate[:, :1].ids + candidate[..., 0][:, tf.newaxis].ids, tf.float32)
        return tf.reduce_sum(u * i + 0.1 * first * i + column[:, tf.newaxis], -1) + bias + 0.01 * ids


class NoItemBias(BaseModel):
    def logit(self, history, candidate):
        return tf.reduce_sum(mean_pooling(self.embed(history), history) * self.embed(candidate), -1)


class NoHistory(BaseModel):
    def logit(self, history, candidate):
        return tf.squeeze(dense(tf.tanh(self.embed(candidate)), 1, "score"), -1) + self.item_bias(candidate)


class OnlyHistory(BaseModel):
    """The same score for every candidate of a user."""

    def logit(self, history, candidate):
        u = dense(mean_pooling(self.embed(history), history), 1, "score")                            # [B, 1, 1]
        return tf.squeeze(u, -1) + tf.zeros(tf.shape(candidate.ids))


class OnlyItems(BaseModel):
    def logit(self, history, candidate):
        u, i = mean_pooling(self.embed_item(history), history), self.embed_item(candidate)
        return tf.reduce_sum(u * i, -1) + self.item_bias(candidate)


class OnlyCategories(BaseModel):
    def logit(self, history, candidate):
        u, i = mean_pooling(self.embed_category(history), history), self.embed_category(candidate)
        return tf.reduce_sum(u * i, -1)


class HalvesAndWhole(BaseModel):
    """Halves of embeddings are looked up beside whole ones; of the history the items' half alone."""

    def logit(self, history, candidate):
        item, category, whole = self.embed_item(candidate), self.embed_category(candidate), self.embed(candidate)
        u = mean_pooling(self.embed_item(history), history)
        return tf.reduce_sum(u * item + category * category + item * category, -1) + tf.reduce_sum(whole * whole, -1)


class OnlyBias(BaseModel):
    def logit(self, history, candidate):
        return self.item_bias(candidate)


class LookedUpInVain(BaseModel):
    """Lookups that are never used, and a variable that is never used."""

    def logit(self, history, candidate):
        self.embed(history), self.embed_category(candidate), tf.get_variable("idle", [2])
        return tf.reduce_sum(self.embed_item(candidate) ** 2, -1) + self.item_bias(candidate)


class InScopesAndBranches(BaseModel):
    """The first lookup is inside a variable scope, a branch and a loop."""

    def logit(self, history, candidate):
        with tf.variable_scope("inner"):
            squares = tf.cond(tf.size(history.lengths) > 0, lambda: tf.reduce_sum(self.embed(candidate) ** 2, -1),
                              lambda: tf.zeros(tf.shape(candidate.ids)))
            _, total = tf.while_loop(lambda step, _: step < 3, lambda step, sums: (
                step + 1, sums + tf.reduce_sum(self.embed(history) ** 2, -1)), [0, tf.zeros([tf.size(history.ids)])])
        total = segment_sum(total, history.segments, tf.size(history.lengths))
        return squares + total[:, tf.newaxis] + tf.reduce_sum(self.embed(candidate), -1) + self.item_bias(candidate)


class OwnTables(BaseModel):
    """Tables of the model's own are looked up by ids, which repeat in a batch."""

    def logit(self, history, candidate):
        popularity = tf.get_variable("popularity", [DATASET.item_count])
        vectors = tf.get_variable("vectors", [DATASET.item_count, 8])
        u, i = mean_pooling(tf.gather(vectors, history.ids), history), tf.gather(vectors, candidate.ids)
        return tf.gather(popularity, candidate.ids) + tf.reduce_sum(u * i, -1)


class TablesThemselves(BaseModel):
    """The tables of embeddings are used beside what is looked up in them."""

    def logit(self, history, candidate):
        table = tf.get_variable("item_emb_w", [DATASET.item_count, 64])
        biases = tf.get_variable("item_b", [DATASET.item_count])
        u, i = mean_pooling(self.embed_item(history), history), self.embed_item(candidate)
        product = tf.reduce_sum(u * i, -1) + self.item_bias(candidate) + tf.gather(biases, candidate.ids)
        return product + 0.1 * tf.reduce_sum(table ** 2) / DATASET.item_count


class LoopOfBoth(BaseModel):
    """A loop needs history and candidate, so that it is in each tower's copy of the graph."""

    def logit(self, history, candidate):
        u, i = mean_pooling(self.embed(history), history), self.embed(candidate)
        _, x = tf.while_loop(lambda step, _: step < 3, lambda step, x: (step + 1, tf.tanh(x * u)), [0, i])
        return tf.reduce_sum(x, -1) + self.item_bias(candidate)


class Heads(BaseModel):
    """A map over weights, an array of variables alone."""

    def logit(self, history, candidate):
        weights = tf.get_variable("heads", [4, 1, 1, 128])
        u, i = mean_pooling(self.embed(history), history), self.embed(candidate)
        return tf.reduce_sum(tf.map_fn(lambda head: tf.reduce_sum(head * u * i, -1), weights), 0)


TOYS = [toy for toy in BaseModel.__subclasses__() if toy.__module__ == __name__]


class DenseGraph:
    """A model in a dense graph: TensorFlow's own gathers, gradients and optimizers."""

    def __init__(self, model_class, optimizer):
        self.inputs = [tf.placeholder(tf.int32, shape) for shape in ([None], [None], [None], [None, None])]
        self.labels = tf.placeholder(tf.float32, [None, None])
        items, segments, lengths, candidates = self.inputs
        tables = EmbeddingTables(DATASET)
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            self.logits = model_class().logit(History(ScoredItems(tables, items), segments, lengths),
                                              ScoredItems(tables, candidates))
        self.variables = tf.trainable_variables()
        self.loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=self.labels, logits=self.logits))
        self.gradients = [tf.zeros_like(variable) if gradient is None else tf.convert_to_tensor(gradient)
                          for gradient, variable in zip(tf.gradients(self.loss, self.variables), self.variables)]
        clipped, _ = tf.clip_by_global_norm(self.gradients, 5)
        self.update = PLAIN_OPTIMIZERS[optimizer](RATES[optimizer]).apply_gradients(zip(clipped, self.variables))

    def feeds(self, batch):
        return dict(zip(self.inputs + [self.labels], batch))


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("optimizer", sorted(RATES))
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.__name__)
def test_a_model_trains_and_scores_as_the_same_formula_in_a_dense_graph(toy, optimizer, shards):
    with Graph(toy, DATASET, optimizer=optimizer, shards=shards) as graph, \
            tf.Graph().as_default(), tf.Session() as session:
        plain = DenseGraph(toy, optimizer)
        assert {variable.op.name for variable in plain.variables} == {variable.op.name for variable in graph.variables}
        session.run(tf.global_variables_initializer())
        start = {name: 4 * values for name, values in graph.values().items()}
        graph.load(start)
        load(session, {variable: start[variable.op.name] for variable in plain.variables})
        for batch in BATCHES:
            gradients = graph.gradients(batch)
            values, loss, _ = session.run([plain.gradients, plain.loss, plain.update], plain.feeds(batch))
            expected = dict(zip([variable.op.name for variable in plain.variables], values))
            largest = max(np.abs(gradient).max() for gradient in expected.values())
            for name, gradient in gradients.items():
                np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-3 * largest, err_msg=name)
            assert graph.train(batch, RATES[optimizer]) == pytest.approx(loss, rel=5e-5)
        # Adam divides a gradient by its size: where it is next to nothing, its rounding error moves a variable.
        tolerance = {"sgd": 1e-5, "adam": 0.02 * STEPS * RATES["adam"]}[optimizer]
        values = graph.values()
        for variable, expected in zip(plain.variables, session.run(plain.variables)):
            np.testing.assert_allclose(values[variable.op.name], expected, rtol=1e-4, atol=tolerance)
        load(session, {variable: values[variable.op.name] for variable in plain.variables})
        for batch in batches_of_test(DATASET.test, 17):
            expected = session.run(plain.logits, plain.feeds(batch))
            np.testing.assert_allclose(graph.score(batch), expected, rtol=1e-4, atol=1e-5)


class Wide(BaseModel):
    def logit(self, history, candidate):
        return tf.reduce_sum(mean_pooling(self.embed(history), history) * self.embed(candidate), 1)  # [B, H]


class Flat(BaseModel):
    def logit(self, history, candidate):
        return self.item_bias(candidate)[:, 0]


class OneLogit(BaseModel):
    def logit(self, history, candidate):
        return self.item_bias(candidate)[:, :1]


class WholeNumbers(BaseModel):
    def logit(self, history, candidate):
        return candidate.ids


class NoResult(BaseModel):
    def logit(self, history, candidate):
        self.item_bias(candidate)


class LocalVariable(BaseModel):
    def logit(self, history, candidate):
        return self.item_bias(candidate) * tf.Variable(1.0, name="factor")


@pytest.mark.parametrize("toy", [Wide, Flat, OneLogit, WholeNumbers, NoResult, LocalVariable],
                         ids=lambda toy: toy.__name__)
def test_what_is_no_logit_is_refused_in_a_line(toy):
    with pytest.raises(UserError, match="use tf.get_variable" if toy is LocalVariable else
                       "let it give a float32 logit for each candidate"):
        with Graph(toy, DATASET, optimizer="sgd") as graph:
            graph.score(next(batches_of_test(DATASET.test, 12)))


def test_items_are_no_list_to_go_through():
    with tf.Graph().as_default(), pytest.raises(TypeError):
        list(ScoredItems(EmbeddingTables(DATASET), tf.zeros([3], tf.int32)))


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.__name__)
def test_a_model_is_scored_with_tables_ranked_and_exported_as_its_graph_scores_it(toy, monkeypatch):
    monkeypatch.setattr(ranking, "BLOCK", 11)
    batch = next(batches_of_test(DATASET.test, 12, 3, lambda rows: rows[:, np.newaxis] % DATASET.item_count))
    histories = np.split(batch.history, np.cumsum(batch.lengths)[:-1])
    with Graph(toy, DATASET, optimizer=None, shards=2) as graph:
        graph.load({name: 4 * values for name, values in graph.values().items()})
        scorer = Scorer(graph.built, graph.session, DATASET.item_count, ["/cpu:0", "/cpu:0"])
        signature = flat_signature(toy, EmbeddingTables(DATASET), checked=True)
        plain = ranking.PlainRanking(graph.session, graph.built, DATASET.item_count)
        expected = graph.score(batch)
        np.testing.assert_allclose(scorer.score(batch), expected, rtol=1e-4, atol=1e-5)
        logits = graph.session.run(signature.outputs["logits"], dict(zip(
            signature.inputs.values(), (batch.history, batch.lengths, batch.candidates))))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        plain.begin(histories)
        if toy is not SlicedCandidates:  # its scores depend on which candidate is the first
            for number, items in enumerate(plain.blocks):
                score = plain.block(number)
                for user, history in enumerate(histories):
                    scores = graph.score(ranking.batch_of_one(history, items))[0]
                    np.testing.assert_allclose(score(user), scores, rtol=1e-4, atol=1e-5)


def test_only_what_is_asked_for_is_made():
    tables = {OnlyItems: {"item_emb_w", "item_b"}, OnlyCategories: {"cate_emb_w"}, OnlyBias: {"item_b"},
              NoItemBias: {"item_emb_w", "cate_emb_w"}}
    for toy, expected in tables.items():
        with Graph(toy, DATASET) as graph:
            assert {variable.op.name for variable in graph.variables} == expected
            assert {table.op.name for table in graph._embeddings.tables.made.values()} == expected


def test_the_ids_are_the_batchs_in_graphs_that_train_and_in_graphs_that_score():
    class Ids(BaseModel):
        def logit(self, history, candidate):
            self.attention = tf.cast(history.ids, tf.float32)[:, tf.newaxis] / DATASET.item_count
            return tf.cast(candidate.ids, tf.float32) + 0 * self.item_bias(candidate)

    batch = next(batches_of_test(DATASET.test, 12))
    for optimizer, shards in (("sgd", 1), ("sgd", 3), (None, 1)):
        with Graph(Ids, DATASET, optimizer=optimizer, shards=shards) as graph:
            np.testing.assert_array_equal(graph.score(batch), batch.candidates)
            # The weights are a softmax over each history: their logarithm is the ids plus a constant of the history.
            ids = np.log(graph.attention_weights(batch)[:, 0]) * DATASET.item_count
            for history in np.split(np.arange(len(batch.history)), np.cumsum(batch.lengths)[:-1]):
                np.testing.assert_allclose(np.diff(ids[history]), np.diff(batch.history[history]), atol=0.01)


@pytest.mark.parametrize("optimizer", ["sgd", None])
def test_the_bias_of_a_history_is_refused_in_graphs_that_train_and_in_graphs_that_score(optimizer):
    class HistoryBias(BaseModel):
        def logit(self, history, candidate):
            return self.item_bias(history[:1]) + self.item_bias(candidate)

    with pytest.raises(NotImplementedError, match="item_bias is of candidates"):
        Graph(HistoryBias, DATASET, optimizer=optimizer)
