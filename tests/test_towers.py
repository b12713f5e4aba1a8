"""Several accelerators (here logical CPU devices) compute what one computes with the whole batch."""
import numpy as np
import pytest

from tests.helpers import TRIED_MODELS, Graph, random_dataset
from utils import towers
from utils.batches import test_batches as batches_of_test
from utils.batches import train_batches
from utils.engine.optimizers import clipped_update
from utils.files import UserError
from utils.tf1 import tf

DATASET = random_dataset()
RATES = {"sgd": 0.3, "adam": 0.001, "lazy_adam": 0.001}  # of each optimizer; with more, rounding errors grow as well
ONE = (1, 1)
WAYS = (ONE, (2, 1), (3, 1), (8, 1), (1, 3))  # (accelerators, towers on each) to split the same batch over
STEPS = 50
BATCHES = [batch for epoch in (0, 1) for batch in train_batches(DATASET.train, 24, seed=1, epoch=epoch)][:STEPS]


class Towers:
    """A model split over towers, with an update for each optimizer, since building graphs takes the time here."""

    def __init__(self, name, num_accelerators, shards):
        self.graph, self.num_accelerators = Graph(name, DATASET, num_accelerators, shards=shards), num_accelerators
        self.session, built = self.graph.session, self.graph.built
        with self.graph.tf_graph.as_default():
            self._updates = {optimizer: clipped_update(optimizer, built.learning_rate, built.gradients, built.variables,
                                                       built.global_step)
                             for optimizer in RATES if optimizer != "sgd"}
            self._updates["sgd"] = built.update
            self._initialize = tf.global_variables_initializer()
            # Doubled, variables are far enough from 0 for attention to have gradients that show over 50 steps.
            self._double = [variable.assign(2 * variable) for variable in built.variables]
            self.saver = tf.train.Saver()

    def begin(self, optimizer):
        """Goes back to the start; from here on `optimizer` trains."""
        self.session.run(self._initialize)
        self.session.run(self._double)
        self.graph.built.update, self._rate = self._updates[optimizer], RATES[optimizer]
        self.graph.built.start(self.session)

    def train(self, batches):
        """The loss of each of `batches`, before the update on it."""
        return [self.graph.train(batch, self._rate) for batch in batches]

    def scores(self):
        """The logits of all test users, scored by 7 on each accelerator at a time."""
        return np.concatenate([self.graph.score(batch)
                               for batch in batches_of_test(DATASET.test, 7 * self.num_accelerators)])


@pytest.fixture(scope="module", params=TRIED_MODELS)
def models(request):
    """A model split in each of WAYS: {way: its Towers}."""
    models = {way: Towers(request.param, *way) for way in WAYS}
    yield models
    for model in models.values():
        model.session.close()


@pytest.mark.parametrize("optimizer", sorted(RATES))
def test_several_towers_equal_one_with_the_whole_batch_over_50_steps(models, optimizer):
    assert min(len(batch.lengths) for batch in BATCHES) == 2  # the epoch's last batch: most towers have no share of it
    losses, variables = {}, {}
    for way, model in models.items():
        model.begin(optimizer)
        start = model.graph.values()
        losses[way], variables[way] = model.train(BATCHES), model.graph.values()
        assert model.session.run(model.graph.global_step) == STEPS
    for way in WAYS[1:]:
        np.testing.assert_allclose(losses[way], losses[ONE], rtol=2e-5, err_msg=str(way))
    # Sums taken in another order are rounded otherwise, and Adam, which divides a gradient by its own size, lets that
    # move a variable. Seen, with either TensorFlow: 5e-6 of a loss, 3e-4 of a variable's distance from its start.
    models[ONE].begin(optimizer)
    gradients = models[ONE].graph.gradients(BATCHES[0])
    for name, expected in variables[ONE].items():
        if np.abs(gradients[name]).max() < 1e-8:  # nothing but rounding: a bias before a softmax, which has no effect
            continue
        distance = np.abs(expected - start[name]).max()
        assert distance > 5e-5, name
        for way in WAYS[1:]:
            np.testing.assert_allclose(variables[way][name], expected, rtol=0, atol=2e-3 * distance,
                                       err_msg="%s on %s" % (name, way))


def test_a_checkpoint_of_any_number_of_towers_restores_on_any_other_which_scores_and_trains_on_alike(models, tmp_path):
    for model in models.values():
        model.begin("adam")
    few_users = next(batches_of_test(DATASET.test, 3))
    for number, writer in enumerate(models.values()):
        writer.train(BATCHES[5 * number:5 * number + 5])
        path = writer.saver.save(writer.session, str(tmp_path / str(number)))
        scores, losses = writer.scores(), None
        assert scores.shape == (len(DATASET.test.users), 2) and scores.std() > 1e-3
        for way, model in models.items():
            model.saver.restore(model.session, path)
            np.testing.assert_allclose(model.scores(), scores, rtol=1e-5, atol=1e-5, err_msg=str(way))
            np.testing.assert_allclose(model.graph.score(few_users), scores[:3], rtol=1e-5, atol=1e-5, err_msg=str(way))
            next_losses = model.train(BATCHES[40:43])
            np.testing.assert_allclose(next_losses, losses or next_losses, rtol=5e-6, err_msg=str(way))
            losses = next_losses


def test_the_first_device_holds_the_variables_and_each_device_computes_its_tower():
    batch = next(train_batches(DATASET.train, 24, seed=1, epoch=0))
    with Graph("din", DATASET, 3, "adam") as din:
        feeds = din.feeds(batch)
        feeds[din.learning_rate] = 0.001
        metadata = tf.RunMetadata()
        din.session.run([din.loss, din.update], feeds, tf.RunOptions(output_partition_graphs=True), metadata)
    ops = {int(part.node[0].device[-1]): [node.op for node in part.node] for part in metadata.partition_graphs}
    assert sorted(ops) == [0, 1, 2]
    for op in ("VarHandleOp", "ReadVariableOp", "ResourceGather", "ResourceApplyAdam", "DynamicStitch"):
        assert op in ops[0] and op not in ops[1] + ops[2], op
    products = [sum("MatMul" in op for op in ops[index]) for index in range(3)]
    assert products[0] == products[1] == products[2] > 10


def test_embedding_gradients_stay_sparse_with_each_row_once():
    batch = next(train_batches(DATASET.train, 32, seed=1, epoch=0))
    with Graph("din", DATASET, 2, "sgd") as din:
        gradients = dict(zip([variable.op.name for variable in din.variables], din.built.gradients))
        feeds = din.feeds(batch)
        for name in ("item_emb_w", "cate_emb_w", "item_b"):
            assert isinstance(gradients[name], tf.IndexedSlices)
            rows = din.session.run(gradients[name].indices, feeds)
            assert len(rows) == len(set(rows))
        rows = din.session.run(gradients["item_emb_w"].indices, feeds)
        assert set(rows) == set(batch.history) | set(batch.candidates[:, 0])


def test_the_gradient_is_clipped_by_its_true_norm():
    """With a learning rate of 1 the variables move by min(norm, 5) / norm times the gradient, repeats added up."""
    batch = next(train_batches(DATASET.train, 64, seed=1, epoch=0))
    with Graph("din", DATASET, 1, "sgd") as din:
        before = {name: value * (40 if name in ("f3/kernel", "f2/kernel", "item_emb_w") else 1)
                  for name, value in din.values().items()}
        din.load(before)
        gradients = din.gradients(batch)
        norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients.values()))
        assert norm > 5
        din.train(batch, 1.0)
        after = din.values()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(before[name] - after[name], gradient * (5 / norm), rtol=1e-3, atol=1e-4,
                                   err_msg=name)


def test_on_a_cpu_each_core_has_a_tower_where_the_batch_is_large_enough(monkeypatch):
    monkeypatch.setattr(towers, "gpu_names", lambda: ())
    monkeypatch.setattr(towers, "cores", lambda: 4)
    assert [towers.shards(1, size) for size in (1, 64, 128, 256, 65536)] == [1, 1, 2, 4, 4]
    assert [towers.shards(accelerators, 256) for accelerators in (2, 3, 8)] == [2, 1, 1]
    config = towers.session_config(1, 1)
    assert (config.inter_op_parallelism_threads, config.intra_op_parallelism_threads) == (4, 2)
    assert towers.session_config(2, 4).intra_op_parallelism_threads == 1
    assert config.experimental.executor_type and not towers.session_config(1, 2).experimental.executor_type
    assert not towers.session_config(1, 1, traced=True).experimental.executor_type  # it would record nothing


def test_a_gpu_has_one_tower(monkeypatch):
    monkeypatch.setattr(towers, "gpu_names", lambda: ("Test GPU",))
    assert towers.shards(1, 65536) == 1
    assert towers.session_config(1, 1).intra_op_parallelism_threads == 0  # TensorFlow's own choice
    assert [towers.session_config(count, count).inter_op_parallelism_threads for count in (1, 8)] == [2, 9]


def test_fewer_gpus_than_asked_for_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(towers, "gpu_names", lambda: ("Test GPU", "Test GPU"))
    with pytest.raises(UserError, match="3 accelerators asked for, 2 GPUs found; .*CUDA_VISIBLE_DEVICES"):
        towers.device_names(3)
    assert towers.device_names(2) == ["/gpu:0", "/gpu:1"]
    assert towers.describe_device(2) == "2 x Test GPU"


def test_the_device_column_tells_logical_devices_from_real_ones():
    assert towers.describe_device(1).startswith("CPU ") and "logical" not in towers.describe_device(1)
    assert towers.describe_device(3) == towers.describe_device(1) + " as 3 logical devices"
