"""A server process that loads what export.py wrote answers many clients with infer.py's scores, and ends as is asked.

SERVING_REQUESTS=10000 ./test.sh tests/test_serving.py -s is the load test in full.
"""
import concurrent.futures
import functools
import http.client
import json
import os
import signal
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
SERVE = os.path.join(ROOT, "examples", "serve.py")
PREDICT = "/v1/models/din:predict"

pytest.importorskip("waitress", reason="pip install -r requirements/serve.txt")


class Client:
    """A connection to the server, which stays open."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def send(self, body):
        """(status, the answer, a dictionary) to `body`, a request to predict."""
        self._connection.request("POST", PREDICT, json.dumps(body))
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
        self.folder = os.path.join(folder.save_path, "saved_model")
        self.process, self.port = self.start()

    def start(self, **options):
        """(a server process, the port that it listens at)."""
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", SERVE, self.folder, "--port", "0", "--threads", str(CLIENTS)],
            stdout=subprocess.PIPE, universal_newlines=True, **options)
        line = process.stdout.readline()
        assert line.startswith("serving din, version 1, at http://127.0.0.1:"), line
        return process, int(line.rsplit(":", 1)[1])

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
    assert server.process.wait(timeout=60) == 128 + signal.SIGTERM


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


def test_ctrl_c_ends_it_with_status_130_and_no_traceback(server):
    process, _ = server.start(stderr=subprocess.PIPE)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
