"""Several workers, processes on loopback, train what one does; and what happens if one is late, wrong or gone."""
import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.helpers import random_dataset, results_of, run_script
from tests.rows import error_of
from utils.batches import train_batches
from utils.cluster.local_cluster import free_addresses
from utils.cluster.socket_filter import listen_only_on
from utils.cluster.tf_config import from_environment, workers_and_index
from utils.cluster.workers import PROXIES, Alone, Cluster
from utils.dataset import write_dataset
from utils.files import ROOT
from utils.tf1 import tf

DATASET = random_dataset()
WHOLE_BATCH = 24
TWO = ["10.0.0.1:2222", "10.0.0.2:2222"]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="socket filters and /proc are Linux's")


class Workers:
    """Processes of a train.py, one for each worker; `flags` are a list for all, or a list of lists, one for each."""

    def __init__(self, folder, count, flags, model="din", late=()):
        self.addresses = free_addresses(count)
        self._commands = []
        for index in range(count):
            worker_flags = flags[index] if isinstance(flags[0], list) else flags
            path = os.path.join(str(folder), "dataset.pkl")
            command = [sys.executable, os.path.join(ROOT, model, "train.py"), "--dataset", path,
                       "--save_path", os.path.join(str(folder), "save_path_%d" % index),
                       "--results", os.path.join(str(folder), "results_%d" % index)]
            self._commands.append(command + [str(flag) for flag in worker_flags])  # a later flag counts
        self.processes = [None] * count
        for index in range(count):
            if index not in late:
                self.start(index)

    def start(self, index):
        config = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": index}}
        environment = dict(os.environ, TF_CONFIG=json.dumps(config))
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which tf1.py has set for the tests' own process
        self.processes[index] = subprocess.Popen(self._commands[index], env=environment, stdout=subprocess.PIPE,
                                                 stderr=subprocess.PIPE, universal_newlines=True)

    def line_of(self, index, pattern, stream="stdout"):
        """Waits until a worker prints a line with `pattern`."""
        for line in getattr(self.processes[index], stream):
            if re.search(pattern, line):
                return line
        raise AssertionError("worker %d ended without it: %s" % (index, self.processes[index].stderr.read()))

    def ended(self):
        """Waits for all; returns the exit status of each and what it printed to standard error."""
        errors = [process.communicate(timeout=120)[1] for process in self.processes]
        return [process.returncode for process in self.processes], errors

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process and process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    write_dataset(str(folder / "dataset.pkl"), DATASET)
    return folder


def trained(folder, count, flags, model="din"):
    """Trains with `count` workers; returns the chief's (row, curve, variables)."""
    with Workers(folder, count, flags, model) as workers:
        statuses, errors = workers.ended()
    assert statuses == [0] * count, errors
    for index in range(1, count):
        for name in ("save_path_%d", "results_%d"):
            assert not (folder / (name % index)).exists()
    return what_the_chief_wrote(folder)


def what_the_chief_wrote(folder):
    with open(str(folder / "results_0" / "results_train.csv"), newline="") as file:
        row = list(csv.DictReader(file))[-1]
    with open(str(folder / "save_path_0" / "state.json")) as file:
        curve = json.load(file)["curve"]
    reader = tf.train.load_checkpoint(str(folder / "save_path_0" / "latest"))
    return row, curve, {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.parametrize("count, num_accelerators, optimizer, model", [
    (2, 1, "sgd", "din"), (3, 1, "adam", "din"), (2, 2, "adam", "deepFM"), (2, 1, "lazy_adam", "wide_deep")])
def test_workers_equal_one_with_the_whole_batch_over_50_steps(folder, count, num_accelerators, optimizer, model):
    """The last of an epoch is a batch of 2: with three workers one has no share of it."""
    assert len(DATASET.train.items) % WHOLE_BATCH == 2
    flags = ["--optimizer", optimizer, "--lr", {"sgd": 0.3}.get(optimizer, 0.001), "--max_steps", 50, "--eval_every", 1]
    one = trained(folder, 1, flags + ["--batch_size", WHOLE_BATCH], model)
    several = trained(folder, count, flags + ["--batch_size", WHOLE_BATCH // (count * num_accelerators),
                                              "--num_accelerators", num_accelerators], model)
    (row, curve, variables), (expected_row, expected_curve, expected) = several, one
    assert (row["num_workers"], expected_row["num_workers"]) == (str(count), "1")
    assert row["recommendations"] == expected_row["recommendations"] and row["steps"] == "50"
    assert [point["recommendations"] for point in curve] == [point["recommendations"] for point in expected_curve]
    assert len(curve) == 51
    np.testing.assert_allclose([point["train_loss"] for point in curve[1:]],
                               [point["train_loss"] for point in expected_curve[1:]], rtol=2e-5)
    np.testing.assert_allclose([[point["gauc"], point["auc"]] for point in curve],
                               [[point["gauc"], point["auc"]] for point in expected_curve], atol=0.02)  # a pair or two
    assert sorted(variables) == sorted(expected)
    largest = max(1, max(np.abs(value).max() for value in expected.values()))
    for name, value in expected.items():
        if not name.startswith("f3_att/bias"):  # no gradient but rounding: the softmax takes its effect away
            np.testing.assert_allclose(variables[name], value, rtol=1e-3, atol=1e-6 * largest, err_msg=name)


def test_two_workers_that_select_on_validation_write_the_row_of_one_with_twice_the_batch(folder):
    flags = ["--selection", "validation", "--lr", 0.3, "--max_steps", 12, "--eval_every", 4]
    expected, _, _ = trained(folder, 1, flags + ["--batch_size", WHOLE_BATCH])
    row, _, _ = trained(folder, 2, flags + ["--batch_size", WHOLE_BATCH // 2])
    assert (row["num_workers"], expected["num_workers"], row["selected_on"]) == ("2", "1", "validation")
    split = {"batch_size": expected["batch_size"], "num_workers": "1", "device": expected["device"]}
    assert results_of(dict(row, **split)) == results_of(expected)
    assert "" not in (row["validation_gauc"], row["best_gauc"], row["outcomes"])


LONG = ["--batch_size", 8, "--max_steps", 120, "--eval_every", 4, "--optimizer", "adam"]


@pytest.fixture(scope="module")
def undisturbed(folder):
    """What three workers' run of LONG writes."""
    return trained(folder, 3, LONG)


@pytest.mark.parametrize("victim", [0, 2])
def test_where_a_worker_is_killed_the_others_say_so_and_resuming_gives_what_an_undisturbed_run_gives(
        folder, undisturbed, victim):
    expected_row, expected_curve, expected = undisturbed
    with Workers(folder, 3, LONG) as workers:
        workers.line_of(0, "Global_step 20")
        workers.processes[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        statuses, errors = workers.ended()
        assert time.monotonic() < killed + 60
    for index in {0, 1, 2} - {victim}:
        assert statuses[index] == 1
        assert errors[index] == (
            "error: worker %d (%s) is gone; see what its own log ends with, then start every worker again with "
            "--resume\n" % (victim, workers.addresses[victim]))
    row, curve, variables = trained(folder, 3, LONG + ["--resume"])
    for column in ("steps", "recommendations", "final_loss", "final_gauc", "best_gauc", "best_step"):
        assert row[column] == expected_row[column], column
    assert [point["train_loss"] for point in curve] == [point["train_loss"] for point in expected_curve]
    for name, value in expected.items():
        np.testing.assert_array_equal(variables[name], value, err_msg=name)


def listening_ports(pid):
    """The TCP ports that a process listens on."""
    sockets = set()
    for name in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(OSError):
            sockets.add(os.readlink("/proc/%d/fd/%s" % (pid, name)))
    ports = []
    for table in ("tcp", "tcp6"):
        with open("/proc/%d/net/%s" % (pid, table)) as lines:
            for fields in map(str.split, list(lines)[1:]):
                if fields[3] == "0A" and "socket:[%s]" % fields[9] in sockets:
                    ports.append(int(fields[1].split(":")[1], 16))
    return ports


def connects(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False


@linux
def test_a_late_worker_is_waited_for_and_nothing_listens_beyond_the_address_in_tf_config(folder, monkeypatch):
    for variable in PROXIES:  # nobody listens there
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with Workers(folder, 2, ["--batch_size", 16, "--max_steps", 3], late={1}) as workers:
        assert workers.line_of(0, "waiting", "stderr") == "waiting for worker 1 (%s)\n" % workers.addresses[1]
        port = int(workers.addresses[0].split(":")[1])
        assert listening_ports(workers.processes[0].pid) == [port]
        assert connects("127.0.0.1", port) and not connects("127.0.0.2", port)
        workers.start(1)
        statuses, errors = workers.ended()
    assert statuses == [0, 0], errors


def test_a_worker_with_other_data_or_flags_is_refused(folder, tmp_path):
    other = str(tmp_path / "other.pkl")
    write_dataset(other, random_dataset(seed=1))
    flags = ["--batch_size", "16", "--max_steps", "3"]
    with Workers(folder, 2, [flags, flags + ["--seed", "6", "--dataset", other]]) as workers:
        statuses, errors = workers.ended()
    assert statuses == [1, 1]
    assert not (folder / "results_1").exists()
    for error in errors:
        assert re.match(r"error: worker 1 \(%s\) differs from the chief in what it trains \(dataset_fingerprint \w+ "
                        r"instead of \w+, seed 6 instead of 1234\); start every worker with the same data and flags\n$"
                        % re.escape(workers.addresses[1]), error), error


def test_a_port_in_use_is_one_line(folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        with Workers(folder, 2, ["--max_steps", 3], late={0, 1}) as workers:
            workers.addresses[0] = "127.0.0.1:%d" % other.getsockname()[1]
            workers.start(0)
            error = workers.processes[0].communicate(timeout=60)[1]
    assert error == ("error: port %s, which TF_CONFIG gives to this worker, can't be used (Address already in use); "
                     "end what uses it, or name another port\n" % workers.addresses[0].split(":")[1])


@pytest.mark.parametrize("config, index, addresses", [
    ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": 1}}, 1, TWO),
    ({"cluster": {"chief": ["a:1"], "worker": TWO}, "task": {"type": "worker", "index": 1}}, 2, ["a:1"] + TWO),
    ({"cluster": {"chief": ["a:1"], "worker": TWO}, "task": {"type": "chief", "index": 0}}, 0, ["a:1"] + TWO),
])
def test_tf_config_says_who_this_is(monkeypatch, config, index, addresses):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    cluster = from_environment()
    assert type(cluster) is Cluster
    assert (cluster.index, cluster.addresses, cluster.is_chief) == (index, addresses, index == 0)


def config(cluster=None, kind="worker", index=0):
    return json.dumps({"cluster": cluster or {"worker": TWO}, "task": {"type": kind, "index": index}})


CHIEF_AND_WORKER = {"chief": ["a:1"], "worker": ["b:1"]}
PLATFORM = {"environment": "cloud", "rpc_layer": "grpc", "job": {"scale_tier": "CUSTOM"},
            "cluster": dict(CHIEF_AND_WORKER, ps=[]),
            "task": {"type": "worker", "index": "0", "cloud": "x", "trial": "1"}}


@pytest.mark.parametrize("text", [
    "", " ", config({"worker": TWO[:1]}), "{}", '{"cluster": {}}', '{"cluster": null, "task": null}',
    '{"task": {"type": "worker", "index": 0}}', '{"cluster": {}, "task": {"type": "", "index": 0}}',
    '{"cluster": {"worker": ["a:1"]}}', config({"chief": ["a:1"], "worker": []}, "chief"),
    config({"master": ["a:1"]}, "master"), config({"chief": ["a:1"], "evaluator": ["b:1"]}, "chief")])
def test_without_others_a_worker_is_alone(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert type(from_environment()) is Alone


@pytest.mark.parametrize("text, index", [
    (config(CHIEF_AND_WORKER, index="0"), 1), (json.dumps(PLATFORM), 1),
    (config({"master": ["a:1"], "worker": ["b:1"]}, "master"), 0),
    (config({"master": ["a:1"], "worker": ["b:1"]}, "chief"), 0),
    (config(dict(CHIEF_AND_WORKER, evaluator=["c:1"])), 1)])
def test_what_platforms_write_has_its_one_meaning(monkeypatch, text, index):
    monkeypatch.setenv("TF_CONFIG", text)
    assert workers_and_index() == (["a:1", "b:1"], index)


@pytest.mark.parametrize("text, error", [
    ("{", "TF_CONFIG can't be read (JSONDecodeError: "),
    ("[]", "TF_CONFIG can't be read (TypeError: it is no object)"),
    (config(index="one"), "TF_CONFIG can't be read (ValueError: the index of the task is a number); it is like {"),
    (config(index="-1"), "TF_CONFIG can't be read (ValueError: the index of the task is a number)"),
    (config(index=True), "TF_CONFIG can't be read (ValueError: the index of the task is a number)"),
    (config(kind=1), "TF_CONFIG can't be read (ValueError: the type of the task is text)"),
    (config({"worker": "a:1"}), "TF_CONFIG can't be read (ValueError: addresses are lists of text"),
    (config({"worker": {"0": "a:1"}}), "TF_CONFIG can't be read (ValueError: addresses are lists of text"),
    (json.dumps({"cluster": {"worker": TWO}}), "TF_CONFIG names 2 workers, and not which of them this process is; give "
     "the task, like {"),
    (config({"ps": ["a:1"], "worker": TWO}),
     "TF_CONFIG has ps; give one chief or none, and workers: they need no other tasks"),
    (config({"chief": TWO}), "TF_CONFIG has several chiefs; give one chief or none"),
    (config({"chief": ["a:1"], "master": ["b:1"]}), "TF_CONFIG has a chief and a master, which is the same; give one"),
    (config(index=2), "TF_CONFIG says that this is worker 2, which its cluster does not have; give the task"),
    (config(kind="no\nname"), "TF_CONFIG says that this is no\\nname 0, which its cluster does not have"),
    (config(kind="evaluator"), "TF_CONFIG says that this is evaluator 0, which trains nothing; give the task"),
    (config(dict(CHIEF_AND_WORKER, evaluator=["c:1"]), "evaluator"), "TF_CONFIG says that this is evaluator 0, which "
     "trains nothing"),
    (config({"worker": [TWO[0]] * 2}), "TF_CONFIG has an address twice; give each worker its own"),
    (config({"worker": ["a:1", "b"]}), "TF_CONFIG has the address 'b'; write it as host:port"),
    (config({"worker": ["a:1", "b:70000"]}), "TF_CONFIG has the address 'b:70000'; write it as host:port"),
    (config({"worker": ["/a:1", "b:2"]}), "TF_CONFIG has the address '/a:1'; write it as host:port"),
    (config({"worker": ["a:\uff11", "b:2"]}), "TF_CONFIG has the address 'a:\\uff11'; write it as host:port"),
    (config({"worker": ["a:1", "\ud800:2"]}), "TF_CONFIG has the address '\\ud800:2'; write it as host:port"),
])
def test_a_tf_config_that_is_wrong_is_one_line(monkeypatch, text, error):
    monkeypatch.setenv("TF_CONFIG", text)
    assert error_of(from_environment, monkeypatch).startswith("error: " + error)


@pytest.mark.parametrize("num_workers", [2, 3, 4])
def test_the_workers_shares_make_up_each_batch_whatever_step_it_begins_with(num_workers):
    size = 4 * num_workers
    train = DATASET.train._replace(users=DATASET.train.users[:161])._replace(
        **{column: getattr(DATASET.train, column)[:161] for column in ("offsets", "lengths", "items", "labels")})
    for skip in (0, 3):
        whole = list(train_batches(train, size, seed=1, epoch=2, skip=skip))
        shares = [list(train_batches(train, size, 1, 2, skip, worker, num_workers)) for worker in range(num_workers)]
        assert len(whole[-1].lengths) == 161 % size and {len(batches) for batches in shares} == {len(whole)}
        for batch, parts in zip(whole, zip(*shares)):
            assert max(len(part.lengths) for part in parts) <= 4
            for column in ("history", "lengths", "candidates", "labels"):
                together = np.concatenate([getattr(part, column) for part in parts])
                np.testing.assert_array_equal(together, getattr(batch, column))
            for part in parts:
                np.testing.assert_array_equal(part.segments, np.repeat(np.arange(len(part.lengths)), part.lengths))


@linux
@pytest.mark.parametrize("host, taken, refused", [
    ("127.0.0.1", ["127.0.0.1"], ["127.0.0.2", "::1"]), ("localhost", ["127.0.0.1", "127.0.0.2", "::1"], []),
    ("::1", ["::1"], ["127.0.0.1"]), ("127.0.0.3", ["127.0.0.3"], ["127.0.0.1"])])
def test_a_port_is_deaf_to_what_is_sent_to_other_addresses(host, taken, refused):
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::", 0))
        listening.listen(8)
        port = listening.getsockname()[1]
        assert all(connects(address, port) for address in taken + refused)
        listen_only_on(host, port)
        assert [address for address in taken + refused if connects(address, port)] == taken


def test_where_a_machine_has_several_addresses_its_name_leaves_them_open():
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen(1)
        listen_only_on("trainer-1.example", listening.getsockname()[1])
        assert connects("127.0.0.1", listening.getsockname()[1])


def test_a_workers_lines_are_relayed_whatever_their_encoding_is(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, sys\nif '\"index\": 1' in os.environ['TF_CONFIG']: sys.stderr.buffer.write(b'caf\\xff\\n')")
    done = run_script("utils/cluster/local_cluster.py", 2, tmp_path / "script.py")
    assert (done.returncode, done.stderr) == (0, "worker 1: caf\\xff\n")


def test_a_profile_is_of_one_machine(folder, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config())
    done = subprocess.run([sys.executable, os.path.join(ROOT, "din", "train.py"), "--profile", "--dataset",
                           str(folder / "dataset.pkl")], stderr=subprocess.PIPE, universal_newlines=True)
    assert (done.returncode, done.stderr) == (
        1, "error: --profile traces one machine; leave it out, or unset TF_CONFIG\n")
