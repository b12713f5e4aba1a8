"""The models learn the interests in the sample, by way of the history, and nothing that leaks the label."""
import numpy as np
import pytest

from tests.helpers import Graph, golden
from utils import metrics
from utils.batches import test_batches as batches_of_test
from utils.batches import train_batches
from utils.data.purchases import SIZES, Sizes, make_purchases
from utils.dataset import Dataset, build_sets, read_dataset
from utils.models import names

TINY = Sizes(users=2000, items=1100, categories=60, reviews=17200, products=1100, text_bytes=100)


def sample(sizes, seed):
    """The sample's data set, with item ids in random order as sorting by asin gives them."""
    purchases = make_purchases(sizes, seed)
    item_id = np.random.RandomState(seed).permutation(sizes.items)
    order = np.lexsort((purchases.day, purchases.user))
    train, test = build_sets(purchases.user[order], item_id[purchases.item[order]], sizes.items)
    cate_list = np.empty(sizes.items, np.int32)
    cate_list[item_id] = purchases.category
    return Dataset(train, test, cate_list, sizes.users, sizes.items, sizes.categories, "sample")


def train(graph, dataset, epochs, lr, seed=1):
    for epoch in range(epochs):
        for batch in train_batches(dataset.train, 256, seed, epoch):
            graph.train(batch, lr)


def scores(graph, test, batch_size=1024):
    """[users, 2] logits of the positive and the negative of a TestSet."""
    return np.concatenate([graph.score(batch) for batch in batches_of_test(test, batch_size)])


def gauc(graph, test):
    return metrics.gauc(*scores(graph, test).T)


def model(name, dataset, seed=1):
    return Graph(name, dataset, optimizer="adam", seed=seed)


def gauc_without_history(dataset):
    """GAUC by popularity: how often an item, or else its category, was bought where it was shown."""
    train_set, cate_list = dataset.train, dataset.cate_list

    def rate(ids, count, prior):
        shown = np.bincount(ids, minlength=count)
        return (np.bincount(ids, train_set.labels, count) + 4 * prior) / (shown + 4)

    category_rates = rate(cate_list[train_set.items], dataset.cate_count, 0.5)
    item_rates = rate(train_set.items, dataset.item_count, category_rates[cate_list])
    return metrics.gauc(item_rates[dataset.test.positives], item_rates[dataset.test.negatives])


@pytest.mark.parametrize("seed", [1234, 1, 2])
def test_on_the_small_sample_din_ends_clearly_above_mean_pooling_and_popularity(seed):
    dataset = sample(SIZES["small"], seed)
    best = {}
    for name in ("din", "pnn"):  # pnn is din with the mean of the history in place of attention
        with model(name, dataset, seed) as graph:
            train(graph, dataset, epochs=2, lr=0.001, seed=seed)
            best[name] = gauc(graph, dataset.test)
    assert best["din"] > best["pnn"] + 0.02
    assert best["pnn"] > gauc_without_history(dataset) + 0.1


def test_on_real_purchases_din_nears_its_reference_in_two_epochs(beauty):
    """The reference is the best of five epochs with the same settings, by an independent implementation."""
    dataset = read_dataset(str(beauty / "dataset.pkl"))
    with model("din", dataset) as graph:
        train(graph, dataset, epochs=2, lr=0.001)
        assert gauc(graph, dataset.test) > golden("gauc_amazon_beauty")["adam_0.001_batch_256_5_epochs"]["din"] - 0.01


@pytest.fixture(scope="module", params=names())
def graph_and_data(request):
    """(the `Graph` of a model after six epochs, its data)."""
    dataset = sample(TINY, 1234)
    with model(request.param, dataset) as graph:
        train(graph, dataset, epochs=6, lr=0.003)
        yield graph, dataset


def test_swapping_positive_and_negative_turns_gauc_into_its_complement(graph_and_data):
    graph, dataset = graph_and_data
    test = dataset.test
    swapped = test._replace(positives=test.negatives, negatives=test.positives)
    ties = np.mean(scores(graph, test)[:, 0] == scores(graph, test)[:, 1])
    assert gauc(graph, test) > 0.75
    assert gauc(graph, swapped) == pytest.approx(1 - gauc(graph, test) - ties, abs=2 / len(test.users))


def test_a_score_does_not_depend_on_the_batch_around_it(graph_and_data):
    graph, dataset = graph_and_data
    test = dataset.test
    expected = scores(graph, test)[:, 0]
    order = np.random.RandomState(0).permutation(len(test.users))
    shuffled = test._replace(**{name: getattr(test, name)[order] for name in test._fields[1:]})
    other_candidate = test._replace(negatives=np.roll(test.negatives, 1))
    for score in (scores(graph, test, batch_size=7)[:, 0], scores(graph, test, batch_size=1999)[:, 0],
                  scores(graph, other_candidate)[:, 0], scores(graph, shuffled)[np.argsort(order), 0]):
        np.testing.assert_allclose(score, expected, atol=1e-5)


def test_random_histories_leave_only_what_item_bias_and_category_give(graph_and_data):
    graph, dataset = graph_and_data
    random = np.random.RandomState(0)
    random_test = dataset.test._replace(
        history_items=random.randint(0, dataset.item_count, len(dataset.test.history_items)).astype(np.int32))
    assert gauc(graph, random_test) < gauc_without_history(dataset) + 0.03
    assert gauc(graph, dataset.test) > gauc_without_history(dataset) + 0.05


def test_no_negative_is_an_item_of_its_user():
    dataset = sample(TINY, 1234)
    test = dataset.test
    purchases = {user: set(test.history_items[offset:offset + length]) | {positive} for user, offset, length, positive
                 in zip(test.users, test.offsets, test.lengths, test.positives)}
    train_set = dataset.train
    negative = train_set.labels == 0
    pairs = list(zip(test.users, test.negatives)) + list(zip(train_set.users[negative], train_set.items[negative]))
    assert not any(item in purchases[user] for user, item in pairs)
    assert 2 * negative.sum() == len(negative)
