"""The example server, in this process: what it answers to each request, good, malformed, hostile or random.

FUZZ_EXAMPLES=10000 ./test.sh tests/test_serving_requests.py gives it 10,000 random requests.
"""
import gzip
import io
import json
import os
import shutil
import socket
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_export import Exporter

pytest.importorskip("waitress", reason="pip install -r requirements/serve.txt")
from examples import serve

MAX_PAIRS = 1000
MODEL = "/v1/models/din"
GOOD = {"items": [[1, 2], [3, 0]], "lengths": [2, 1], "candidates": [[3, 4, 5], [6, 7, 8]]}
FLAT = {"items": [1, 2, 3], "lengths": [2, 1], "candidates": GOOD["candidates"]}
ROWS = [{name: values[row] for name, values in GOOD.items()} for row in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one version, 1."""
    exporter = Exporter(tmp_path_factory.mktemp("export"), "din")
    exporter()
    return exporter.path("saved_model")


@pytest.fixture(scope="module")
def predictor(folder):
    return serve.Predictor(folder, MAX_PAIRS)


@pytest.fixture(scope="module")
def ask(predictor):
    """A function of a request that returns (status, the answer)."""
    respond = serve.application("din", predictor)

    def ask(body, path=MODEL + ":predict", method="POST", **environment):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        statuses = []
        content = b"".join(respond(
            dict({"wsgi.input": io.BytesIO(body), "PATH_INFO": path, "REQUEST_METHOD": method}, **environment),
            lambda status, headers: statuses.append((status, dict(headers)))))
        (status, headers), = statuses
        assert method == "HEAD" or headers["Content-Length"] == str(len(content))
        return int(status[:3]), json.loads(content.decode(), parse_constant=pytest.fail) if content else None
    return ask


def with_inputs(inputs=GOOD, signature="padded", **changes):
    return {"signature_name": signature, "inputs": dict(inputs, **changes)}


def with_row(**changes):
    return {"instances": [ROWS[0], dict(ROWS[1], **changes)]}


WHOLE = " is not an array of whole numbers with %d axes"
MALFORMED_REQUESTS = [  # (request, the error that it gets)
    (b"", "the request is not JSON"), (b"{", "the request is not JSON"), (b"\xff\xfe", "the request is not JSON"),
    (b"[" * 100000, "the request is not JSON"), ([], "the request is not an object with either"),
    ({}, "the request is not an object with either"),
    ({"inputs": GOOD, "instances": ROWS}, "the request is not an object with either"),
    ({"inputs": [1]}, "signature serving_default has the inputs candidates, items, lengths"),
    (with_inputs(signature="other"), "no signature other; there are flat, padded, serving_default"),
    (with_inputs(signature=["flat"]), "no signature ['flat']; there are flat"),
    (with_inputs(signature=False), "no signature False; there are flat"),
    ({"inputs": {"items": [[1]]}}, "signature serving_default has the inputs candidates, items, lengths"),
    (with_inputs(users=[1]), "signature padded has the inputs candidates, items, lengths"),
    (with_inputs(items=[[1, 2], [3]]), "items" + WHOLE % 2 + "; pad its rows to one length"),
    (with_inputs(items=[1, 2]), "items" + WHOLE % 2),
    (with_inputs(items=0), "items" + WHOLE % 2), (with_inputs(items=[[[1]]]), "items" + WHOLE % 2),
    (with_inputs(lengths=[1.5, 1]), "lengths" + WHOLE % 1), (with_inputs(lengths=[2.0, 1]), "lengths" + WHOLE % 1),
    (with_inputs(lengths=[True, 1]), "lengths" + WHOLE % 1), (with_inputs(lengths=None), "lengths" + WHOLE % 1),
    (with_inputs(lengths=[float("nan"), 1]), "lengths" + WHOLE % 1), (with_inputs(lengths={}), "lengths" + WHOLE % 1),
    (with_inputs(candidates=[["a"]]), "candidates" + WHOLE % 2),
    (with_inputs(candidates=[[10 ** 10]]), "candidates has numbers beyond 32 bits"),
    (with_inputs(candidates=[[-10 ** 100]]), "candidates has numbers beyond 32 bits"),
    (with_inputs(candidates=[[1], [2], [3]]), "lengths and candidates are not of as many users"),
    (with_inputs(lengths=[2]), "are not of as many users"),
    (with_inputs(lengths=[3, 1]), "a length is negative or beyond the items"),
    (with_inputs(FLAT, "flat", items=[1, 2, 999]), "an item is not in 0 .. 49"),
    (with_inputs(FLAT, "flat", candidates=[[-1], [1]]), "an item is not in 0 .. 49"),
    (with_inputs(FLAT, "flat", lengths=[2 ** 31 - 1, 1]), "the sum of the lengths is not the number of items"),
    (with_inputs(FLAT, "flat", lengths=[0, 3]), "a history is empty"),
    ({"instances": []}, "\"instances\" is not a list of objects, one or more"),
    ({"instances": GOOD}, "\"instances\" is not a list of objects, one or more"),
    ({"instances": [[1]]}, "an instance is not an object with candidates, items, lengths"),
    ({"instances": [ROWS[0], {}]}, "an instance is not an object with candidates, items, lengths"),
    (with_row(items=[3]), "items" + WHOLE % 2), (with_row(lengths=[1]), "lengths" + WHOLE % 1),
    ({"signature_name": "flat", "instances": ROWS}, "signature flat takes no rows; send \"inputs\""),
]


@pytest.mark.parametrize("body, error", MALFORMED_REQUESTS, ids=range(len(MALFORMED_REQUESTS)))
def test_a_malformed_request_gets_an_error(ask, body, error):
    status, answer = ask(body)
    assert status == 400 and list(answer) == ["error"]
    assert error in answer["error"] and "\n" not in answer["error"]


def test_columns_are_answered_with_columns_and_rows_with_rows(ask):
    status, columns = ask({"inputs": GOOD})
    assert status == 200 and sorted(columns["outputs"]) == ["logits", "probabilities"]
    assert np.shape(columns["outputs"]["logits"]) == (2, 3)
    rows = [dict(zip(columns["outputs"], row)) for row in zip(*columns["outputs"].values())]
    assert ask({"instances": ROWS}) == (200, {"predictions": rows})
    for name in (None, "", "padded", "serving_default"):
        assert ask({"signature_name": name, "inputs": GOOD}) == (200, columns)
    status, flat = ask(with_inputs(FLAT, "flat"))
    np.testing.assert_allclose(flat["outputs"]["logits"], columns["outputs"]["logits"], atol=1e-6)


def test_the_values_of_one_output_stand_alone(predictor, monkeypatch):
    ranks, call = predictor._signatures["serving_default"]
    monkeypatch.setitem(predictor._signatures, "serving_default",
                        (ranks, lambda *arrays: {"logits": call(*arrays)["logits"]}))
    values = predictor.predict({"inputs": GOOD})["outputs"]
    assert np.shape(values) == (2, 3) and predictor.predict({"instances": ROWS}) == {"predictions": values}


def test_without_users_or_candidates_the_answer_is_empty(ask):
    for change in ({"items": [], "lengths": [], "candidates": []}, {"candidates": [[], []]}):
        status, answer = ask(with_inputs(**change))
        assert status == 200 and not np.size(answer["outputs"]["logits"])


@pytest.mark.parametrize("pairs, changes", [
    (25005000, {"items": [[1] * 5000], "lengths": [5000], "candidates": [[1] * 5000]}),
    (1050, {"items": [[0] * 20] * 5, "lengths": [0] * 5, "candidates": [[1] * 10] * 5}),
    (5002, {"items": [[1]], "lengths": [1] * 5001, "candidates": [[1]]})])
@pytest.mark.parametrize("signature", ["padded", "flat"])
def test_a_request_of_more_pairs_than_the_limit_is_refused(ask, signature, pairs, changes):
    if signature == "flat":
        changes = dict(changes, items=np.ravel(changes["items"]).tolist())
    status, answer = ask(with_inputs(signature=signature, **changes))
    assert status == 413 and answer["error"] == (
        "the request has %d (history item, candidate) pairs, padding included; the limit is 1000, so send fewer users "
        "or candidates at a time" % pairs)


def test_a_gzipped_request_is_answered_and_its_unpacked_size_is_bounded(ask):
    good = json.dumps({"inputs": GOOD}).encode()
    packed = {"HTTP_CONTENT_ENCODING": "GZIP"}
    assert ask(gzip.compress(good), **packed) == ask(good)
    for body, environment, status, error in (
            (gzip.compress(bytes(serve.MAX_REQUEST + 1)), packed, 413, "the request unpacks to more than 4194304"),
            (gzip.compress(good)[:-9], packed, 400, "the gzipped request is cut off"),
            (good, packed, 400, "the request is not gzipped"), (b"", packed, 400, "the gzipped request is cut off"),
            (good, {"HTTP_CONTENT_ENCODING": "br"}, 415, "the request is encoded as br; send it plain or gzipped")):
        number, answer = ask(body, **environment)
        assert number == status and error in answer["error"]


def test_a_body_of_the_largest_size_that_unpacks_to_the_limit_is_read(ask):
    body = json.dumps({"inputs": GOOD}).encode()
    packed = gzip.compress(body + b" " * (serve.MAX_REQUEST - len(body)))
    assert ask(packed, HTTP_CONTENT_ENCODING="gzip") == ask(body)


@pytest.mark.parametrize("path, method, status", [
    ("/", "GET", 404), ("/v1/models/other:predict", "POST", 404), (MODEL + "/", "GET", 404),
    (MODEL + "/versions/2", "GET", 404), (MODEL + "/versions/2:predict", "POST", 404),
    (MODEL + "/versions/" + "1" * 5000, "GET", 404), (MODEL + "/versions/one", "GET", 404),
    (MODEL + "/labels/stable:predict", "POST", 404), (MODEL + ":classify", "POST", 404), ("/\xff", "GET", 404),
    (MODEL + ":predict", "GET", 405), (MODEL, "POST", 405), (MODEL + "/metadata", "PUT", 405)])
def test_an_unknown_address_or_method_gets_an_error(ask, path, method, status):
    number, answer = ask({"inputs": GOOD}, path, method)
    assert (number, list(answer)) == (status, ["error"])


def test_the_status_is_as_tensorflow_servings(ask):
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in (MODEL, MODEL + "/versions/1"):
        assert ask(b"", path, "GET") == (200, {"model_version_status": [status]})
        assert ask(b"", path, "HEAD") == (200, None)
    assert ask({"inputs": GOOD}, MODEL + "/versions/1:predict") == ask({"inputs": GOOD})


def test_the_metadata_are_as_tensorflow_servings(ask):
    assert ask(b"", MODEL + "/metadata", "GET") == ask(b"", MODEL + "/versions/1/metadata", "GET")
    status, answer = ask(b"", MODEL + "/metadata", "GET")
    assert status == 200
    assert answer["model_spec"] == {"name": "din", "signature_name": "", "version": "1"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert sorted(signatures) == ["flat", "padded", "serving_default"]
    assert signatures["padded"]["method_name"] == "tensorflow/serving/predict"
    assert signatures["padded"]["inputs"]["lengths"] == {
        "dtype": "DT_INT32", "name": "padded/lengths:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}}
    assert signatures["flat"]["outputs"]["logits"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize("outcome", [RuntimeError("a fault"), float("nan")], ids=["an exception", "no finite score"])
def test_a_fault_of_the_server_is_in_its_log_and_it_goes_on(ask, predictor, monkeypatch, caplog, outcome):
    def call(*_):
        if isinstance(outcome, Exception):
            raise outcome
        return {"logits": np.array([[outcome]]), "probabilities": np.array([[outcome]])}
    with monkeypatch.context() as patch:
        patch.setitem(predictor._signatures, "padded", (predictor._signatures["padded"][0], call))
        assert ask(with_inputs()) == (500, {"error": "the server failed; its log says why"})
    assert "Traceback" in caplog.text
    assert ask(with_inputs())[0] == 200


def values():
    """Whatever JSON can hold."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["items", "lengths", "candidates", "b64"]), inner, max_size=3), max_leaves=12)


def requests():
    """Requests, some with arrays of numbers that may fit, others with anything at all in any place."""
    numbers = st.integers(-2, 51) | st.integers()
    rows = st.lists(numbers, max_size=3)
    columns = st.fixed_dictionaries({"items": st.lists(rows, max_size=3) | rows | values(), "lengths": rows | values(),
                                     "candidates": st.lists(rows, max_size=3) | values()})
    instance = st.fixed_dictionaries({"items": rows | values(), "lengths": numbers, "candidates": rows | values()})
    return values() | st.dictionaries(st.sampled_from(["inputs", "instances", "signature_name", "other"]),
                                      columns | st.lists(instance, max_size=3)
                                      | st.sampled_from(["flat", "padded"]) | values(), max_size=3)


@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", 300)), deadline=None, database=None)
@given(request=requests(), start=st.integers(0, 400), size=st.integers(0, 8), inserted=st.binary(max_size=8))
def test_whatever_is_sent_is_answered_and_the_next_request_too(ask, request, start, size, inserted):
    text = json.dumps(request).encode()
    for body in (text, text[:start] + inserted + text[start + size:]):
        status, answer = ask(body)
        assert status in (200, 400, 413) and len(answer) == 1
        assert status == 200 or list(answer) == ["error"]
    assert ask({"inputs": GOOD})[0] == 200


@pytest.fixture(scope="module")
def port(predictor):
    server = serve.serve(serve.application("din", predictor), host="127.0.0.1", port=0, threads=2)
    threading.Thread(target=server.run, daemon=True).start()
    return server.effective_port


POST = "POST %s:predict HTTP/1.1\r\n" % MODEL
MALFORMED_HTTP = [  # (what is sent, the status)
    ("GET http://[ HTTP/1.1\r\n\r\n", 400), ("get / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nno header\r\n\r\n", 400), (POST + "Content-Length: -1\r\n\r\n", 400),
    (POST + "Content-Length: %s\r\n\r\n" % ("9" * 4000), 413),
    (POST + "Content-Length: %d\r\n\r\n" % serve.MAX_REQUEST, 413),
    (POST + "Transfer-Encoding: chunked\r\n\r\nno number\r\n\r\n", 400),
    (POST + "Transfer-Encoding: br\r\n\r\n", 501), ("GET / HTTP/1.1\r\nLong: ".ljust(serve.MAX_HEADER, "x"), 431),
    ("GET /%ff HTTP/1.1\r\nConnection: close\r\n\r\n", 404), (POST + "Connection: close\r\n\r\n", 400),
]


@pytest.mark.parametrize("text, status", MALFORMED_HTTP, ids=range(len(MALFORMED_HTTP)))
def test_malformed_http_gets_an_error_as_json_and_no_traceback(port, caplog, text, status):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text.encode())
        with connection.makefile("rb") as file:
            head, body = file.read().split(b"\r\n\r\n", 1)
    assert head.split()[1] == str(status).encode() and b"application/json" in head
    assert list(json.loads(body.decode())) == ["error"]
    assert not [record for record in caplog.records if record.exc_info or "Traceback" in record.getMessage()
                or "uncaptured" in record.getMessage()]


def error_of(monkeypatch, *arguments):
    """The line with which the server ends that does not start."""
    monkeypatch.setattr(sys, "argv", ["serve.py"] + [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as ended:
        serve.main()
    assert isinstance(ended.value.code, str) and "\n" not in ended.value.code
    return ended.value.code


def test_what_is_not_served_has_one_line(folder, tmp_path, monkeypatch):
    def line(*arguments):
        return error_of(monkeypatch, *arguments)
    for path in (tmp_path / "missing", __file__):
        assert line(path).startswith("error: %s can't be read (" % path)
    for name in ("assets.extra", "\N{SUPERSCRIPT TWO}", ".1.part", "-1", "9" * 30):
        (tmp_path / name).mkdir()
    assert line(tmp_path) == "error: no SavedModel in %s; write one: python export.py" % tmp_path
    shutil.copytree(os.path.join(folder, "1"), str(tmp_path / "1"))
    shutil.copytree(os.path.join(folder, "1"), str(tmp_path / "007"))
    assert serve.Predictor(str(tmp_path), 1).version == 7
    with open(str(tmp_path / "007" / "saved_model.pb"), "ab") as file:
        file.truncate(1000)
    damaged = line(tmp_path)
    assert damaged.startswith("error: %s can't be loaded (" % (tmp_path / "007"))
    assert damaged.endswith("); remove it, or write another: python export.py")
    shutil.copy(os.path.join(folder, "1", "saved_model.pb"), str(tmp_path / "007"))
    for name in os.listdir(str(tmp_path / "007" / "variables")):
        (tmp_path / "007" / "variables" / name).write_bytes(b"")
    assert line(tmp_path).startswith("error: %s can't be loaded (" % (tmp_path / "007"))


@pytest.mark.parametrize("flags, line", [
    (["--host", "no such host"], "error: can't listen at no such host:8501 ("),
    (["--host", "203.0.113.1"], "error: can't listen at 203.0.113.1:8501 (Cannot assign requested address); choose "
                                "another --host or --port"),
    (["--port", "99999"], "error: argument --port: 99999 is not in 0 .. 65535; see serve.py --help"),
    (["--threads", "0"], "error: argument --threads: 0 is not in 1 .. 1000; see serve.py --help"),
    (["--max_pairs", "x"], "error: argument --max_pairs: invalid whole number value: 'x'; see serve.py --help")])
def test_where_it_can_not_listen_it_says_so(folder, monkeypatch, flags, line):
    assert error_of(monkeypatch, folder, *flags).startswith(line)


def test_where_the_port_is_taken_it_says_so(folder, port, monkeypatch):
    assert error_of(monkeypatch, folder, "--port", port) == (
        "error: can't listen at 127.0.0.1:%s (Address already in use); choose another --host or --port" % port)
