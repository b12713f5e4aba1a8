"""A server process that loads what export.py wrote answers many clients with infer.py's scores, also amid bad requests.

SERVING_REQUESTS=10000 ./test.sh tests/test_serving.py -s is the load test in full.
"""
import concurrent.futures
import functools
import http.client
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.helpers import Folder, random_dataset
from tests.oracle import padded, sigmoid
from utils.batches import draw_ads
from utils.batches import test_batches as batches_of_test
from utils.commands import export_parser
from utils.engine.scoring_graph import ScoringGraph
from utils.files import ROOT
from utils.models import model_class
from utils.serving.export import export
from utils.serving.restore import restored

REQUESTS = int(os.environ.get("SERVING_REQUESTS", 400))
CLIENTS, USERS, ADS = 4, 5, 20  # clients at a time; users in a request, and candidates of each
DATASET = random_dataset()
PREDICT = "/v1/models/din:predict"

pytest.importorskip("waitress", reason="pip install -r requirements/serve.txt")


class Client:
    """A connection to the server, which stays open."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(self, body, path=PREDICT, method="POST"):
        """(status, the answer, a dictionary)."""
        self._connection.request(method, path, body if isinstance(body, (bytes, type(None))) else json.dumps(body))
        response = self._connection.getresponse()
        return response.status, json.loads(response.read().decode())


class Server:
    """A server process with a trained DIN; `inputs` are requests by signature, `logits` the answers that they need."""

    def __init__(self, path):
        folder = Folder(path / "din", DATASET)
        folder.train("--batch_size", 64, "--max_steps", 20, "--optimizer", "adam", "--lr", 0.02)
        arguments = export_parser(folder.path, "").parse_args(["--save_path", folder.save_path])
        export(model_class("din"), "din", arguments)
        self.inputs, self.logits = [], []

        draw = functools.partial(draw_ads, count=ADS - 2, item_count=DATASET.item_count, seed=1)
        scoring_graph = functools.partial(ScoringGraph, model_class("din"), DATASET)
        with restored(scoring_graph, "din", DATASET, folder.save_path) as (graph, session, _):
            graph.start(session)
            for batch in batches_of_test(DATASET.test, USERS, ADS, draw):
                self.logits.append(graph.score(batch))
                lengths, candidates = batch.lengths.tolist(), batch.candidates.tolist()
                padded_items, _ = padded(np.split(batch.history, np.cumsum(batch.lengths)[:-1]))
                self.inputs.append({
                    "flat": {"items": batch.history.tolist(), "lengths": lengths, "candidates": candidates},
                    "padded": {"items": padded_items.tolist(), "lengths": lengths, "candidates": candidates}})
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", os.path.join(ROOT, "examples", "serve.py"),
             os.path.join(folder.save_path, "saved_model"), "--port", "0", "--threads", str(CLIENTS)], cwd=str(path),
            stdout=subprocess.PIPE, universal_newlines=True)
        line = self.process.stdout.readline()
        assert line.startswith("serving din, version "), line
        self.port = int(line.rsplit(":", 1)[1])

    def check(self, client, index, signature):
        """Sends a request; fails unless it is answered with infer.py's scores."""
        index %= len(self.inputs)
        status, answer = client.send({"signature_name": signature, "inputs": self.inputs[index][signature]})
        assert status == 200, answer
        np.testing.assert_allclose(answer["outputs"]["logits"], self.logits[index], atol=1e-5)
        np.testing.assert_allclose(answer["outputs"]["probabilities"], sigmoid(self.logits[index]), atol=1e-5)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("serving"))
    yield server
    server.process.terminate()
    server.process.wait(timeout=60)


def test_every_answer_to_several_clients_is_infers_score(server):
    local, milliseconds = threading.local(), []

    def request(index):
        if not hasattr(local, "client"):
            local.client = Client(server.port)
        started = time.perf_counter()
        server.check(local.client, index, ("flat", "padded")[index % 2])
        milliseconds.append(1000 * (time.perf_counter() - started))

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        assert len(list(threads.map(request, range(REQUESTS)))) == REQUESTS
    seconds = time.perf_counter() - started
    rate = REQUESTS / seconds
    print("\n%d requests of %d x %d recommendations, %d clients: %.0f requests, %.0f recommendations per second, "
          "latency in ms: p50 %.1f, p99 %.1f" % (REQUESTS, USERS, ADS, CLIENTS, rate, rate * USERS * ADS,
                                                 *np.percentile(milliseconds, [50, 99])))


GOOD = {"items": [[1, 2]], "lengths": [2], "candidates": [[3, 4]]}
FLAT = {"items": [1, 2], "lengths": [2], "candidates": [[3, 4]]}


def with_inputs(inputs=GOOD, signature="padded", **changes):
    return {"signature_name": signature, "inputs": dict(inputs, **changes)}


MALFORMED_REQUESTS = [  # (request, the error that it gets)
    (b"", "the request is not JSON"), (b"{", "the request is not JSON"), (b"\xff\xfe", "the request is not JSON"),
    (b"[" * 100000, "the request is not JSON"), ([], "the request is not an object with"),
    ({"instances": []}, "the request is not an object with"), ({"inputs": [1]}, "the request is not an object with"),
    (with_inputs(signature="other"), "no signature other; there are flat, padded, serving_default"),
    (with_inputs(signature=["flat"]), "no signature ['flat']; there are flat"),
    ({"inputs": {"items": [[1]]}}, "signature serving_default has the inputs candidates, items, lengths"),
    (with_inputs(users=[1]), "signature padded has the inputs candidates, items, lengths"),
    (with_inputs(items=[[1, 2], [3]]), "items is not an array of whole numbers with 2 axes"),
    (with_inputs(items=[1, 2]), "items is not an array of whole numbers with 2 axes"),
    (with_inputs(items=0), "items is not an array of whole numbers with 2 axes"),
    (with_inputs(lengths=[1.5]), "lengths is not an array of whole numbers with 1 axes"),
    (with_inputs(lengths=[True]), "lengths is not an array of whole numbers with 1 axes"),
    (with_inputs(lengths=None), "lengths is not an array of whole numbers with 1 axes"),
    (with_inputs(candidates=[["a"]]), "candidates is not an array of whole numbers with 2 axes"),
    (with_inputs(candidates=[[10 ** 10]]), "candidates has numbers beyond 32 bits"),
    (with_inputs(candidates=[[10 ** 100]]), "candidates is not an array of whole numbers with 2 axes"),
    (with_inputs(candidates=[[1], [2]]), ""), (with_inputs(lengths=[1, 1]), ""),
    (with_inputs(FLAT, "flat", items=[1, 999]), "an item is not in 0 .. 49"),
    (with_inputs(FLAT, "flat", candidates=[[-1]]), "an item is not in 0 .. 49"),
    (with_inputs(FLAT, "flat", lengths=[2 ** 31 - 1]), "the sum of the lengths is not the number of items"),
    (with_inputs(FLAT, "flat", lengths=[0]), ""),
]


@pytest.mark.parametrize("body, error", MALFORMED_REQUESTS, ids=[error for _, error in MALFORMED_REQUESTS])
def test_a_malformed_request_gets_an_error_and_the_server_stays_up(server, body, error):
    client = Client(server.port)
    status, answer = client.send(body)
    assert status == 400 and list(answer) == ["error"]
    assert error in answer["error"] and "\n" not in answer["error"]
    server.check(client, 0, "padded")


def test_an_unknown_address_or_method_gets_an_error(server):
    client = Client(server.port)
    for path, method, expected in (("/", "GET", 404), ("/v1/models/other:predict", "POST", 404), (PREDICT, "GET", 405)):
        status, answer = client.send(None, path, method)
        assert (status, list(answer)) == (expected, ["error"])
    status, answer = client.send(None, "/v1/models/din", "GET")
    assert status == 200 and answer["model_version_status"] == [{"version": "1", "state": "AVAILABLE"}]


def test_without_an_export_it_says_so(tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", os.path.join(ROOT, "examples", "serve.py"), str(tmp_path)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: no SavedModel in %s; write one: python export.py" % tmp_path
