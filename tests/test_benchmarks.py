"""The benchmarks: the padded sides are right, the floor is whole, and the commands say what they measured."""
import contextlib
import itertools
import json
import sys
import zlib

import numpy as np
import pytest

from benchmarks import floor as floor_module
from benchmarks import infer as infer_benchmark
from benchmarks import measure, padded, scaling
from benchmarks import train as train_benchmark
from benchmarks.command import make_parser
from benchmarks.floor import Floor, multiply_adds, operands, products
from benchmarks.network_model import seconds_of_a_step, seconds_of_hosts
from benchmarks.sides import OurSide, PaddedSide, find_dataset
from tests.helpers import golden, random_dataset, run_script
from tests.oracle import sigmoid
from utils.dataset import write_dataset
from utils.engine.embeddings import Catalogue
from utils.files import UserError
from utils.tf1 import tf

DATASET = random_dataset(users=80)


@contextlib.contextmanager
def padded_model(name, case, dense):
    """A padded model with the golden files' sizes and variables."""
    catalogue = Catalogue(case["sizes"]["item_count"], case["sizes"]["cate_count"], case["cate_list"])
    with tf.Graph().as_default(), tf.Session() as session:
        model = padded.PaddedModel(name, catalogue, case["expected"]["optimizer"]["name"], dense)
        session.run(tf.global_variables_initializer())
        model.start(session)
        model.load({name: np.random.RandomState(zlib.crc32(name.encode())).uniform(-0.3, 0.3, shape)
                    + name.endswith("gamma") for name, shape in case["expected"]["variables"].items()})
        yield model


def gradients_of(model, inputs):
    """The gradients of a padded model's loss, in the order of its variables: arrays, or IndexedSlicesValue."""
    return model.session.run(model.gradients, dict(zip((model.i, model.y, model.histories, model.lengths), inputs)))


def in_full(gradient, variable):
    """`gradient` as an array of its variable's shape."""
    if isinstance(gradient, np.ndarray):
        return gradient
    full = np.zeros(variable.shape.as_list())
    np.add.at(full, gradient.indices, gradient.values)
    return full


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", sorted(padded.REFERENCES))
def test_the_padded_sides_equal_the_golden_values(name, dense):
    case = golden(name)
    batch, expected = case["batch"], case["expected"]
    with padded_model(name, case, dense) as model:
        inputs, = padded.train_inputs(list(zip(batch["hist"], batch["i"], batch["y"])), 4)
        pairs, = padded.test_inputs(list(zip(batch["hist"], zip(batch["i"], batch["j"]))), 4)
        scores = sigmoid(model.score(pairs))
        np.testing.assert_allclose(scores[:, 0], expected["score_pos"], atol=1e-5)
        np.testing.assert_allclose(scores[:, 1], expected["score_neg"], atol=1e-5)
        assert {variable.op.name for variable in model.variables} == set(expected["gradients"])
        for variable, gradient in zip(model.variables, gradients_of(model, inputs)):
            assert np.linalg.norm(in_full(gradient, variable)) == pytest.approx(
                expected["gradients"][variable.op.name]["l2"], rel=1e-3, abs=1e-9), variable.op.name
        losses = [model.train(inputs, expected["optimizer"]["lr"]) for _ in range(5)]
        np.testing.assert_allclose(losses, expected["losses_5_steps"], atol=1e-5)
        np.testing.assert_allclose(model.score(pairs)[:, 0], expected["logits_after_5_steps"], atol=1e-5)


@pytest.mark.parametrize("name, of_loss, of_scores", [
    ("din", 4 + 1 + 3, 2 * (4 + 1 + 3)), ("pnn", 1 + 3, 1 + 2 * 3),
    ("deepFM", 1 + 3 + 1, 1 + 2 * (3 + 1)), ("wide_deep", 1 + 3 + 1, 1 + 2 * (3 + 1))])
def test_a_padded_side_computes_once_what_candidates_share_and_trains_on_one_alone(name, of_loss, of_scores):
    """Products: DIN's attention has four, its u one more, the others' u one; an MLP has three, FM and wide one."""
    with tf.Graph().as_default():
        model = padded.PaddedModel(name, DATASET, "sgd")
        assert len(products([model.loss])) == of_loss
        assert len(products([model.logits, model.other_logits])) == of_scores
        look_ups = [op for op in model.histories.consumers() if "Gather" in op.type]
        assert len(look_ups) == 2  # of the items, and of their categories


CLIP_INPUTS = [3, 4], [1, 0], np.array([[7, 7, 7, 7], [7, 7, 0, 0]]), [4, 2]  # item 7 is looked up six times


@pytest.mark.parametrize("steepness, clips", [(1, False), (1000, True)])
def test_the_authors_code_clips_by_the_norm_of_rows_looked_up_and_its_dense_variant_by_that_of_their_sums(
        steepness, clips):
    norms, changes = [], []
    for dense in (True, False):
        with padded_model("pnn", golden("pnn"), dense) as model:
            last_kernel, = [variable for variable in model.variables if variable.op.name == "f3/kernel"]
            last_kernel.load(steepness * model.session.run(last_kernel), model.session)
            gradients = gradients_of(model, CLIP_INPUTS)
            assert {variable.op.name for variable, gradient in zip(model.variables, gradients)
                    if not isinstance(gradient, np.ndarray)} == (
                        set() if dense else {"item_emb_w", "cate_emb_w", "item_b"})
            norms.append(np.sqrt(sum(np.sum(np.square(getattr(gradient, "values", gradient), dtype=np.float64))
                                     for gradient in gradients)))
            before = model.session.run(model.variables)
            model.train(CLIP_INPUTS, 1.0)
            changes.append([new - old for old, new in zip(before, model.session.run(model.variables))])
            for variable, change, gradient in zip(model.variables, changes[-1], gradients):
                shrunk = in_full(gradient, variable) * 5 / max(norms[-1], 5)
                np.testing.assert_allclose(change, -shrunk, rtol=1e-3, atol=5e-5 if clips else 1e-6,
                                           err_msg=variable.op.name)
    if clips:
        assert 5 < norms[1] < 0.995 * norms[0]
    else:
        assert max(norms) < 5
        for of_dense, of_sparse in zip(*changes):
            np.testing.assert_allclose(of_dense, of_sparse, atol=1e-6)


def same_batches(benchmark, batch_size, count):
    """(batches of this project, the same for the padded side)."""
    task = benchmark.TASK
    batches = list(itertools.islice(task.batches(DATASET, batch_size), count))
    return batches, list(task.padded_inputs(task.examples(batches), batch_size))


@pytest.mark.parametrize("name", sorted(padded.REFERENCES))
def test_all_sides_give_the_same_losses_updates_and_scores(name):
    ours = OurSide(name, True, DATASET, 24)
    others = [PaddedSide(name, True, DATASET, dense=dense) for dense in (True, False)]
    with contextlib.closing(ours), contextlib.closing(others[0]), contextlib.closing(others[1]):
        for other in others:
            other.model.load(ours.values())
        for batch, inputs in zip(*same_batches(train_benchmark, 24, 3)):
            loss = ours.first_step(batch)
            assert [other.step(inputs) for other in others] == pytest.approx([loss, loss], rel=1e-5)
        values = ours.values()
        batches_and_inputs = list(zip(*same_batches(infer_benchmark, 10, 2)))
        for other in others:
            for variable, value in zip(other.model.variables, other.session.run(other.model.variables)):
                np.testing.assert_allclose(values[variable.op.name], value, atol=2e-4, err_msg=variable.op.name)
            for batch, inputs in batches_and_inputs:
                np.testing.assert_allclose(ours.graph.score(batch), other.model.score(inputs), atol=1e-3)


@pytest.mark.parametrize("benchmark", [train_benchmark, infer_benchmark])
def test_batches_are_all_full_and_go_on_after_the_last(benchmark):
    batches, others = same_batches(benchmark, 25, 40)
    assert [len(batch.lengths) for batch in batches] == [len(inputs[0]) for inputs in others] == [25] * 40
    for batch, (_, _, histories, lengths) in zip(batches, others):
        assert histories.shape == (25, max(batch.lengths)) and lengths == batch.lengths.tolist()
        assert batch.history.tolist() == [item for row, length in zip(histories, lengths) for item in row[:length]]


@pytest.mark.parametrize("benchmark, candidates", [(train_benchmark, 1), (infer_benchmark, 2)])
def test_the_floor_holds_every_product_of_din(benchmark, candidates):
    """A product takes as many multiplications again for the gradient of each factor.

    Affine norms are folded into the layers after them: their beta takes a product with the kernel. Scoring has no
    products of one item alone or of variables alone.
    """
    batches, _ = same_batches(benchmark, 8, 2)
    ours = OurSide("din", benchmark.TASK.training, DATASET, 8)
    ours.first_step(batches[0])
    ops, shapes = ours.shapes(batches)
    ours.close()
    for batch, (shapes_of_call,) in zip(batches, shapes):
        shape_of = dict(zip(operands(ops), shapes_of_call))
        items, recommendations = len(batch.history), candidates * len(batch.lengths)
        attention = candidates * items * (128 * 80 + 80 * 40 + 40)
        one_item_alone = items * 128 * 80 + recommendations * 128 * 80
        mlp = recommendations * (128 * 128 + 384 * 80 + 80 * 40 + 40)
        norms = 128 * 128 + 384 * 80
        times, once = (3, one_item_alone + norms) if benchmark.TASK.training else (1, 0)
        # Products with a single column may as well be written as sums of products: within a hundredth.
        assert sum(multiply_adds(op, shape_of) for op in ops) == pytest.approx(
            times * (attention + mlp + once), rel=0.01)


def test_the_floor_computes_each_needed_product_of_a_graph_and_no_other(monkeypatch):
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 3])
        kernel = tf.get_variable("kernel", [4, 3])
        batch_product = tf.matmul(tf.reshape(x, [2, -1, 3]), tf.reshape(x, [2, -1, 3]), transpose_b=True)
        y = tf.matmul(x, kernel, transpose_b=True)
        unneeded = tf.matmul(y, kernel)
        fetches = [tf.reduce_sum(y), tf.tanh(batch_product).op]
        ops = products(fetches)
        assert unneeded.op not in ops and [op.type.rstrip("V23") for op in ops] == ["BatchMatMul", "MatMul"]

        def shapes_at(rows):
            halves, kernel_shape = (2, rows // 2, 3), (4, 3)
            return dict(zip(operands(ops), [halves, halves, (rows, 3), kernel_shape]))
        shapes = [list(shapes_at(rows).values()) for rows in (6, 10)]
        assert [multiply_adds(op, shapes_at(6)) for op in ops] == [2 * 3 * 3 * 3, 6 * 3 * 4]
        calls = []

        class RecordingSession(floor_module.Session):
            def make_callable(self, fetches, feed_list=None):
                def call(*values):
                    calls.append((fetches, dict(zip(feed_list, values))))
                return call
        monkeypatch.setattr(floor_module, "Session", RecordingSession)
        floor = Floor(ops, shapes, tf.ConfigProto())
        assert len(floor.runs) == 2
        for run, index in itertools.product(floor.runs, (0, 1)):
            run(index)
            copies, feeds = calls.pop()
            assert [copy.type for copy in copies] == [op.type for op in ops]
            waits = [copy.control_inputs for copy in copies]
            assert waits == ([[], []] if run is floor.runs[0] else [[], [copies[0]]])  # side by side, one by one
            results = floor.session.run([copy.outputs[0] for copy in copies], feeds)
            rows = (6, 10)[index]
            assert [result.shape for result in results] == [(2, rows // 2, rows // 2), (rows, 4)]
            assert all(result.all() for result in results)
        floor.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(str(folder / "dataset.pkl"), DATASET)
    return folder


def test_scaling_measures_each_size_and_optimizer_and_draws_them(tmp_path, capsys, monkeypatch):
    picture = tmp_path / "scaling.png"
    flags = "--histories 2 30 --items 50 500 --batch_sizes 8 --rounds 2 --seconds 0.01 --json --plot".split()
    monkeypatch.setattr(sys, "argv", ["scaling"] + flags + [str(picture)])
    scaling.main()
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {result["benchmark"] for result in results} == {"scaling"} and all(result["ours"] > 0 for result in results)
    settings = [(result["varied"], result[result["varied"]], result["optimizer"]) for result in results]
    assert settings[:5] == [("history_length", 2, "sgd"), ("history_length", 30, "sgd"), ("batch_size", 8, "sgd"),
                            ("items", 50, "sgd"), ("items", 500, "sgd")]
    assert {("items", 50, "adam"), ("items", 500, "adam")} <= set(settings[5:])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_size_that_needs_more_memory_than_is_free_is_known():
    assert scaling.missing_memory({"items": 10 ** 4}) is None
    assert scaling.missing_memory({"items": 10 ** 10}) > 10000


@pytest.mark.parametrize("name, batch_sizes", [("train", (16, 8)), ("infer", (8,))])
def test_a_json_line_per_batch_size_with_the_table_beside_it(data, name, batch_sizes):
    done = run_script("-m", "benchmarks." + name, "--data", data, "--batch_sizes", *batch_sizes, "--rounds", 2,
                      "--seconds", 0.05, "--json")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(result["benchmark"], result["batch_size"]) for result in results] == [(name, size) for size in batch_sizes]
    for result in results:
        others = ["padded_dense", "padded_sparse"] if name == "train" else ["padded"]
        ratios = [other.replace("padded", "ratio") for other in others]
        assert set(result["spread"]) == {"ours", "floor_share", "outside", *others, *ratios}
        assert set(result["steps"]) == set(result["peak_memory_mib"]) == {"ours", *others}
        for figure in ["ours", "floor_share"] + others + ratios:
            low, high = result["spread"][figure]
            assert 0 < low <= result[figure] <= high, figure
        assert 0 <= result["outside"] < 1
        assert (result["model"], result["dataset"], result["rounds"]) == ("din", "random", 2)
        assert all(memory > 0 for memory in result["peak_memory_mib"].values())
        assert (name == "infer") == ("latency_ms_p50" in result)
    assert "ratio" in done.stderr and "  8 " in done.stderr


def test_without_json_the_table_is_what_is_printed(data, capsys, monkeypatch):
    monkeypatch.setattr(measure, "peak_memory", lambda *_: {8: None})  # as where the system does not tell
    monkeypatch.setattr(sys, "argv", ["infer", "--data", str(data / "dataset.pkl"), "--model", "deepFM",
                                      "--batch_sizes", "8", "--rounds", "1", "--seconds", "0.05"])
    measure.run(infer_benchmark.TASK, make_parser("infer", ""))
    title, _, heading, row = capsys.readouterr().out.splitlines()
    assert title.startswith("infer, deepFM on random; ") and tf.__version__ in title
    assert heading.split()[:3] == ["batch", "ours", "padded"] and row.split()[0] == "8"


@pytest.fixture
def without_padded_pnn(monkeypatch):
    """pnn is as a model that padded.py does not have: one that a user adds."""
    monkeypatch.delitem(padded.REFERENCES, "pnn")


def test_a_model_without_a_padded_form_is_an_error_before_anything_is_measured_or_printed(
        data, without_padded_pnn, capsys, monkeypatch):
    monkeypatch.setattr(measure, "peak_memory", None)
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(data), "--model", "pnn", "--batch_sizes", "8"])
    with pytest.raises(UserError) as raised:
        measure.run(train_benchmark.TASK, make_parser("train", ""))
    assert str(raised.value) == (
        "benchmarks/padded.py has no pnn to compare with; write it there, measure this project alone with --ours_only, "
        "or choose one of: din din_dice deepFM wide_deep")
    assert capsys.readouterr() == ("", "")


def test_a_model_without_a_padded_form_is_measured_with_ours_only(data, without_padded_pnn, capsys, monkeypatch):
    monkeypatch.setattr(measure, "peak_memory", lambda side, *_: {8: {"ours": 77}[side]})
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(data), "--model", "pnn", "--batch_sizes", "8", "--rounds",
                                      "1", "--seconds", "0.05", "--ours_only", "--json"])
    measure.run(train_benchmark.TASK, make_parser("train", ""))
    output, table = capsys.readouterr()
    result = json.loads(output)
    assert set(result["spread"]) == {"ours", "floor_share", "outside"} and result["ours"] > 0
    assert result["peak_memory_mib"] == {"ours": 77} and set(result["steps"]) == {"ours"}
    assert not {"padded", "ratio"} & {word.split("_")[0] for word in result}
    assert table.splitlines()[2].split() == "batch ours floor share outside MiB, ours".split()


@pytest.mark.parametrize("flags, error", [
    (["--batch_sizes", "0"], "argument --batch_sizes: 0 is less than 1; see python -m benchmarks.train --help"),
    (["--model", "dien"], "argument --model: invalid choice: 'dien'"),
    (["--rounds", "x"], "argument --rounds: invalid whole number value: 'x'"),
    (["--seconds", "nan"], "argument --seconds: nan is not a number above 0"),
    (["--threads", "-1"], "argument --threads: -1 is less than 0"),
])
def test_bad_flags_are_one_line(flags, error):
    with pytest.raises(UserError) as raised:
        make_parser("train", "").parse_args(flags)
    assert str(raised.value).startswith(error) and "\n" not in str(raised.value)


def test_errors_are_one_line_and_exit_status_1():
    done = run_script("-m", "benchmarks.train", "--data", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no dataset.pkl at nowhere; give small, full, a dataset.pkl or a folder with one\n"


def test_a_batch_larger_than_the_data_is_an_error(data, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["infer", "--data", str(data), "--batch_sizes", "81"])
    with pytest.raises(UserError, match="a batch of 81 is larger than the 80 examples of random; lower --batch_sizes"):
        measure.run(infer_benchmark.TASK, make_parser("infer", ""))


def test_a_prepared_folder_of_the_project_is_found(tmp_path):
    (tmp_path / "din").mkdir()
    (tmp_path / "din" / "dataset.pkl").write_bytes(b"")
    assert find_dataset(str(tmp_path)) == str(tmp_path / "din" / "dataset.pkl")
    with pytest.raises(UserError, match="no dataset.pkl at "):
        find_dataset(str(tmp_path / "pnn"))


def test_what_workers_send_follows_the_batch_and_not_the_tables():
    """Here the tables grow 50 times, and the distinct rows of a batch of random items by a third."""
    done = run_script("-m", "benchmarks.cluster", "--items", 2000, 100000, "--workers", 2, "--batch_sizes", 16, 64,
                      "--steps", 3, "--rounds", 1, "--json", env={"TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["benchmark"], line["workers"], line["items"], line["batch_size"]) for line in lines] == [
        ("cluster", 2, items, batch_size) for items in (2000, 100000) for batch_size in (16, 64)]
    assert all(line["ours"] > 0 and line["step_ms"] > 0 for line in lines)
    assert lines[2]["table_mb"] > 30 * lines[0]["table_mb"]
    if not lines[0]["isolated"]:
        pytest.skip("Linux gives no network namespace here, so that other traffic counts as well")
    small, small_batch_of_64, large, large_batch_of_64 = (line["sent_mb"] for line in lines)
    assert 0.5 < small < 1.2 and large < 1.2 * small and large_batch_of_64 < 1.5 * small_batch_of_64
    assert small_batch_of_64 > small


def test_the_model_of_real_networks_is_its_formula():
    """DIN's 96,000 dense numbers, 1,000 rows of tables and 100 biases, over 1 GB/s."""
    step, others = 0.01, 3
    sent = 2 * 384000 * 3 / 4 + 1.06 * others * (1000 * 260 + 100 * 8)
    seconds = seconds_of_hosts(4, step, (900, 100, 100), 384000, 2e-7, 1e9, 1e-4)
    assert seconds == pytest.approx(step + others * 1000 * 2e-7 + sent / 1e9 + 3 * others * 1e-4)
    assert seconds_of_hosts(1, step, (900, 100, 100), 384000, 2e-7, 1e9, 1e-4) == step


def test_the_model_of_a_network_measures_one_hosts_steps_and_counts_its_dense_gradients():
    seconds, dense = seconds_of_a_step("pnn", DATASET, 32, 0.001)
    layers = 2 * 128 + 129 * 128 + 2 * 384 + 385 * 80 + 81 * 40 + 41
    assert seconds > 0 and dense == 4 * layers
