"""Several accelerators (here logical CPU devices) compute what one computes with the whole batch."""
import numpy as np
import pytest

from tests.helpers import Graph, random_dataset
from utils import towers
from utils.batches import split_batch, test_batches as batches_of_test, train_batches
from utils.commands import MODELS
from utils.files import UserError
from utils.tf1 import tf

DATASET = random_dataset()


def graph(name, num_accelerators, optimizer, shards=1):
    return Graph(name, DATASET.item_count, DATASET.cate_count, DATASET.cate_list, num_accelerators, optimizer,
                 shards=shards)


def trained(name, num_accelerators, optimizer, lr, steps=20, shards=1):
    """Losses, variables and test scores after `steps` updates on batches of 24."""
    with graph(name, num_accelerators, optimizer, shards) as own:
        losses = [own.model.train(batch, lr) for batch, _ in
                  zip(train_batches(DATASET.train, 24, seed=1, epoch=0), range(steps))]
        variables = own.session.run({variable.op.name: variable for variable in own.model.variables})
        scores = np.concatenate([own.model.score(batch) for batch in batches_of_test(DATASET.test, 25)])
        assert own.session.run(own.model.global_step) == steps
    return losses, variables, scores


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("optimizer, lr", [("sgd", 0.5), ("adam", 0.001), ("lazy_adam", 0.001)])
def test_several_towers_equal_one_with_the_whole_batch(name, optimizer, lr):
    losses, variables, scores = trained(name, 1, optimizer, lr)
    for num_accelerators, shards in ((2, 1), (5, 1), (1, 3)):
        other_losses, other_variables, other_scores = trained(name, num_accelerators, optimizer, lr, shards=shards)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        for variable in variables:
            np.testing.assert_allclose(other_variables[variable], variables[variable], atol=2e-4, err_msg=variable)
        np.testing.assert_allclose(other_scores, scores, atol=2e-3)


def test_a_batch_smaller_than_the_number_of_towers_leaves_some_without_work():
    batch = next(train_batches(DATASET.train, 2, seed=1, epoch=0))
    with graph("din", 1, "sgd") as one, graph("din", 3, "sgd") as three:
        for own in (one, three):
            own.loss = own.model.train(batch, 1.0)
        assert three.loss == pytest.approx(one.loss, rel=1e-6)
        np.testing.assert_allclose(three.model.score(batch), one.model.score(batch), atol=1e-6)


def test_embedding_gradients_stay_sparse_with_each_row_once():
    batch = next(train_batches(DATASET.train, 32, seed=1, epoch=0))
    with graph("din", 2, "sgd") as own:
        gradients = dict(zip([variable.op.name for variable in own.model.variables], own.model.gradients))
        feeds = {placeholder: array for inputs, part in zip(own.model.inputs, split_batch(batch, 2))
                 for placeholder, array in zip(inputs, part)}
        for name in ("item_emb_w", "cate_emb_w", "item_b"):
            assert isinstance(gradients[name], tf.IndexedSlices)
            rows = own.session.run(gradients[name].indices, feeds)
            assert len(rows) == len(set(rows))
        rows = own.session.run(gradients["item_emb_w"].indices, feeds)
        assert set(rows) == set(batch.history) | set(batch.candidates[:, 0])


def test_the_gradient_is_clipped_by_its_true_norm():
    """With a learning rate of 1 the variables move by min(norm, 5) / norm times the gradient, repeats added up."""
    batch = next(train_batches(DATASET.train, 64, seed=1, epoch=0))
    with graph("din", 1, "sgd") as own:
        for variable in own.model.variables:
            if variable.op.name in ("f3/kernel", "f2/kernel", "item_emb_w"):
                variable.load(40 * own.session.run(variable), own.session)
        before = own.session.run({variable.op.name: variable for variable in own.model.variables})
        gradients = own.gradients(batch)
        norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients.values()))
        assert norm > 5
        own.model.train(batch, 1.0)
        after = own.session.run({variable.op.name: variable for variable in own.model.variables})
    for name, gradient in gradients.items():
        np.testing.assert_allclose(before[name] - after[name], gradient * (5 / norm), rtol=1e-3, atol=1e-4, err_msg=name)


def test_on_a_cpu_each_core_has_a_tower_where_the_batch_is_large_enough(monkeypatch):
    monkeypatch.setattr(towers, "gpu_names", lambda: ())
    monkeypatch.setattr(towers, "cores", lambda: 4)
    assert [towers.shards(1, size) for size in (1, 64, 128, 256, 65536)] == [1, 1, 2, 4, 4]
    assert [towers.shards(accelerators, 256) for accelerators in (2, 3, 8)] == [2, 1, 1]
    config = towers.session_config(1, 1)
    assert (config.inter_op_parallelism_threads, config.intra_op_parallelism_threads) == (4, 2)
    assert towers.session_config(2, 4).intra_op_parallelism_threads == 1


def test_a_gpu_has_one_tower(monkeypatch):
    monkeypatch.setattr(towers, "gpu_names", lambda: ("Test GPU",))
    assert towers.shards(1, 65536) == 1
    assert towers.session_config(1, 1).intra_op_parallelism_threads == 0  # TensorFlow's own choice


def test_fewer_gpus_than_asked_for_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(towers, "gpu_names", lambda: ("Test GPU", "Test GPU"))
    with pytest.raises(UserError, match="3 accelerators asked for, 2 GPUs found; .*CUDA_VISIBLE_DEVICES"):
        towers.device_names(3)
    assert towers.device_names(2) == ["/gpu:0", "/gpu:1"]
    assert towers.describe_device(2) == "2 x Test GPU"


def test_the_device_column_tells_logical_devices_from_real_ones():
    assert towers.describe_device(1).startswith("CPU ") and "logical" not in towers.describe_device(1)
    assert towers.describe_device(3) == towers.describe_device(1) + " as 3 logical devices"
