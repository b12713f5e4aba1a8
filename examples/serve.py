"""A minimal server of what export.py writes, over HTTP, in the format of TensorFlow Serving's REST interface.

    pip install -r requirements/serve.txt
    python examples/serve.py din/save_path/saved_model --name din --port 8501
    curl localhost:8501/v1/models/din:predict -d '
        {"inputs": {"items": [[5, 7]], "lengths": [2], "candidates": [[1, 2, 3]]}}'

It shows what serving the model takes, and needs nothing of this project: TensorFlow (1.15 or 2.x), NumPy, waitress. Its
clients can talk to TensorFlow Serving, too:

    POST /v1/models/NAME[/versions/N]:predict   `inputs` (columns) -> `outputs`; `instances` (rows) -> `predictions`
    GET  /v1/models/NAME[/versions/N]           the status
    GET  /v1/models/NAME[/versions/N]/metadata  the signatures

Every error is answered with `error`. The work of a request is bounded before it is done: its (history item, candidate)
pairs, and its bytes.
"""
import argparse
import http
import json
import logging
import os
import re
import signal
import sys
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
signals = []  # that asked this process to end


def stop(number, _frame):
    """Ends this process, as a handler of the signal `number`; threads that work on a request may finish it."""
    signals.append(number)
    sys.exit(128 + number)


if __name__ == "__main__":
    for ending in (signal.SIGINT, signal.SIGTERM):  # before TensorFlow, which takes seconds to load
        signal.signal(ending, stop)

try:
    import numpy as np
    import tensorflow.compat.v1 as tf
    import waitress.channel
    import waitress.parser
    import waitress.utilities
    from tensorflow.core.framework import types_pb2
except ImportError as error:
    sys.exit("error: %s; install TensorFlow, NumPy and what requirements/serve.txt has" % error)

tf.logging.set_verbosity(tf.logging.ERROR)
if hasattr(tf.config.experimental, "enable_tensor_float_32_execution"):  # else an A100's logits are off by 1.5e-4
    tf.config.experimental.enable_tensor_float_32_execution(False)

MAX_REQUEST = 4 << 20  # bytes, unpacked; as JSON's objects they take up to 30 times as many
MAX_HEADER = 16 << 10  # bytes
INPUTS = {"items", "lengths", "candidates"}


class BadRequest(Exception):
    """The request can't be answered: (HTTP's status, the reason)."""


class Predictor:
    """The newest version of the SavedModels in `folder`; it refuses requests of more than `max_pairs`.

    Attributes:
      version: its number.
      metadata: its signatures, as TensorFlow Serving describes them.

    Ends the process where there is no version, or the newest can't be loaded: an older one would be a surprise.
    """

    def __init__(self, folder, max_pairs):
        self._max_pairs = max_pairs
        try:
            versions = {int(name): name for name in os.listdir(folder) if re.fullmatch("[0-9]{1,18}", name)}
        except OSError as error:
            sys.exit("error: %s can't be read (%s); name a folder of versions" % (folder, error.strerror))
        if not versions:
            sys.exit("error: no SavedModel in %s; write one: python export.py" % folder)
        self.version = max(versions)
        path, session = os.path.join(folder, versions[self.version]), tf.Session(graph=tf.Graph())
        try:
            with session.graph.as_default():
                signatures = load(session, folder, versions[self.version])
                self._signatures = {name: self._callable(session, signature) for name, signature in signatures.items()}
                if not all(set(ranks) == INPUTS for ranks, _ in self._signatures.values()):
                    raise ValueError("its inputs are not %s" % ", ".join(sorted(INPUTS)))
        except Exception as error:  # by TensorFlow's version and by what is damaged of many kinds
            sys.exit("error: %s can't be loaded (%s); remove it, or write another: python export.py"
                     % (path, reason_of(error)))
        self.metadata = {name: {
            "inputs": {key: tensor_info(info) for key, info in signature.inputs.items()},
            "outputs": {key: tensor_info(info) for key, info in signature.outputs.items()},
            "method_name": signature.method_name} for name, signature in signatures.items()}

    @staticmethod
    def _callable(session, signature):
        """({input's name: its number of axes}, a function of the inputs in this order that returns outputs by name)."""
        inputs, outputs = ({name: session.graph.get_tensor_by_name(info.name) for name, info in infos.items()}
                           for infos in (signature.inputs, signature.outputs))
        call = session.make_callable(list(outputs.values()), list(inputs.values()))
        return ({name: tensor.shape.ndims for name, tensor in inputs.items()},
                lambda *arrays: dict(zip(outputs, call(*arrays))))

    def predict(self, request):
        """The answer to a request: `inputs` or `instances`, and `signature_name` where it is not the default.

        Raises:
          BadRequest: it has no answer.
        """
        if not isinstance(request, dict) or ("inputs" in request) == ("instances" in request):
            raise BadRequest(400, "the request is not an object with either \"inputs\" or \"instances\"")
        name = request.get("signature_name")
        name = "serving_default" if name in (None, "") else name
        if not isinstance(name, str) or name not in self._signatures:
            raise BadRequest(400, "no signature %.80s; there are %s" % (name, ", ".join(sorted(self._signatures))))
        ranks, call = self._signatures[name]
        columns = request["inputs"] if "inputs" in request else columns_of(request["instances"])
        if not isinstance(columns, dict) or set(columns) != INPUTS:
            raise BadRequest(400, "signature %s has the inputs %s" % (name, ", ".join(sorted(ranks))))
        if "instances" in request and ranks["items"] == 1:
            raise BadRequest(400, "signature %s takes no rows; send \"inputs\"" % name)
        arrays = {name: int32_array(name, columns[name], rank) for name, rank in ranks.items()}
        pairs = (arrays["items"].size + arrays["lengths"].size) * arrays["candidates"].shape[1]
        if pairs > self._max_pairs:
            raise BadRequest(413, "the request has %d (history item, candidate) pairs, padding included; the limit is "
                             "%d, so send fewer users or candidates at a time" % (pairs, self._max_pairs))
        try:
            outputs = call(*arrays.values())
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            raise BadRequest(400, reason_of(error)) from None
        outputs = {name: values.tolist() for name, values in outputs.items()}
        if "inputs" in request:
            return {"outputs": outputs if len(outputs) > 1 else outputs.popitem()[1]}
        rows = [dict(zip(outputs, row)) for row in zip(*outputs.values())]
        return {"predictions": rows if len(outputs) > 1 else [row.popitem()[1] for row in rows]}


def load(session, folder, version):
    """Loads a SavedModel of `folder` into `session`; returns its signatures by name."""
    here = os.getcwd()
    os.chdir(folder)  # TensorFlow takes a path for a pattern: it finds nothing in a folder such as x[1]
    try:
        return tf.saved_model.loader.load(session, [tf.saved_model.tag_constants.SERVING], version).signature_def
    finally:
        os.chdir(here)


def reason_of(error):
    """What an error says, in one line: TensorFlow says it before the node's name, 2.x after other lines."""
    return (str(error).split("\n\t [[")[0].strip().splitlines() or [type(error).__name__])[-1]


def tensor_info(info):
    """A TensorInfo of a signature as TensorFlow Serving's JSON."""
    return {"dtype": types_pb2.DataType.Name(info.dtype), "name": info.name,
            "tensor_shape": {"dim": [{"size": str(dim.size), "name": dim.name} for dim in info.tensor_shape.dim],
                             "unknown_rank": info.tensor_shape.unknown_rank}}


def columns_of(instances):
    """{input's name: values}, given `instances`, a list of objects with a value for each input."""
    if not isinstance(instances, list) or not instances:
        raise BadRequest(400, "\"instances\" is not a list of objects, one or more")
    for row in instances:
        if not isinstance(row, dict) or set(row) != INPUTS:
            raise BadRequest(400, "an instance is not an object with %s" % ", ".join(sorted(INPUTS)))
    return {name: [row[name] for row in instances] for name in INPUTS}


def int32_array(name, values, rank):
    """`values`, nested lists of whole numbers, as an int32 array of `rank` axes."""
    try:
        # As objects: of numbers beside a long text NumPy would make texts that are all as long.
        array = np.zeros([0] * rank, object) if values == [] else np.array(values, object)
    except ValueError:  # rows of different lengths, by NumPy's version
        array = np.array(None)
    if array.ndim != rank or not set(map(type, array.ravel().tolist())) <= {int}:
        raise BadRequest(400, "%s is not an array of whole numbers with %d axes%s"
                         % (name, rank, "; pad its rows to one length" if rank > 1 else ""))
    array = array.astype(np.int64)
    narrow = array.astype(np.int32)
    if (narrow != array).any():
        raise BadRequest(400, "%s has numbers beyond 32 bits" % name)
    return narrow


def posted(environ):
    """The JSON that a request has for a body, which may be gzipped."""
    body, coding = environ["wsgi.input"].read(), environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if coding in ("gzip", "x-gzip"):
        packed = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            body = packed.decompress(body, MAX_REQUEST)
        except zlib.error as error:
            raise BadRequest(400, "the request is not gzipped (%s)" % error) from None
        if packed.unconsumed_tail:
            raise BadRequest(413, "the request unpacks to more than %d bytes" % MAX_REQUEST)
        if not packed.eof:
            raise BadRequest(400, "the gzipped request is cut off")
    elif coding not in ("", "identity"):
        raise BadRequest(415, "the request is encoded as %.80s; send it plain or gzipped" % coding)
    try:
        # Twelve characters of a longer number are beyond 32 bits, too; a million digits would take a minute.
        return json.loads(body.decode("utf-8"), parse_int=lambda digits: int(digits[:12]))
    except (ValueError, RecursionError) as error:
        raise BadRequest(400, "the request is not JSON (%s)" % error) from None


def application(name, predictor):
    """The WSGI application that serves `predictor` as the model `name`."""
    route = re.compile("/v1/models/%s(?:/versions/([0-9]{1,18}))?(:predict|/metadata|)" % re.escape(name))

    def answer(environ):
        match = route.fullmatch(environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"))
        if not match:
            raise BadRequest(404, "not found; post to /v1/models/%s:predict" % name)
        version, action = match.groups()
        if version and int(version) != predictor.version:
            raise BadRequest(404, "no version %s of %s; there is %d" % (version, name, predictor.version))
        if environ["REQUEST_METHOD"] not in (("POST",) if action == ":predict" else ("GET", "HEAD")):
            raise BadRequest(405, "post the request" if action == ":predict" else "get it")
        if action == ":predict":
            return predictor.predict(posted(environ))
        if action == "/metadata":
            return {"model_spec": {"name": name, "signature_name": "", "version": str(predictor.version)},
                    "metadata": {"signature_def": {"signature_def": predictor.metadata}}}
        return {"model_version_status": [{"version": str(predictor.version), "state": "AVAILABLE",
                                          "status": {"error_code": "OK", "error_message": ""}}]}

    def respond(environ, start_response):
        status = 200
        try:
            body = json.dumps(answer(environ), allow_nan=False)  # scores that are not finite are no answer
        except BadRequest as error:
            status, reason = error.args
            body = json.dumps({"error": reason})
        except Exception:
            logging.exception("A request failed")
            status, body = 500, json.dumps({"error": "the server failed; its log says why"})
        body = body.encode()
        start_response("%d %s" % (status, http.HTTPStatus(status).phrase),
                       [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
    return respond


class Parser(waitress.parser.HTTPRequestParser):
    """Waitress's, for which an address or a length that is none is the client's error."""

    def parse_header(self, header_plus):
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise waitress.parser.ParsingError(str(error)) from None


def json_response(error, *_):
    """(status, headers, body) of an error of waitress's, such as for a request that is too large."""
    body = json.dumps({"error": "%s: %s" % (error.reason, error.body)}).encode()
    return "%d %s" % (error.code, error.reason), [("Content-Type", "application/json")], body


def serve(app, **options):
    """A waitress server of the WSGI application `app`, which listens; `options` are waitress's."""
    waitress.channel.HTTPChannel.parser_class = Parser
    waitress.utilities.Error.to_response = json_response
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a request that waits for a thread is no news
    return waitress.create_server(app, max_request_body_size=MAX_REQUEST, max_request_header_size=MAX_HEADER, **options)


def whole_number(low, high):
    """An argument type: a whole number of `low` to `high`."""
    def parse(text):
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError("%s is not in %d .. %d" % (text, low, high))
        return int(text)
    parse.__name__ = "whole number"  # argparse names the type where int() fails
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.error = lambda message: sys.exit("error: %s; see %s --help" % (message, parser.prog))
    parser.add_argument("folder", help="what export.py wrote: a folder of versions")
    parser.add_argument("--name", default="din", help="of the model, in the address (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=whole_number(0, 65535), default=8501,
                        help="0: any that is free (default: %(default)s)")
    parser.add_argument("--threads", type=whole_number(1, 1000), default=4, help="requests worked on at a time; each "
                        "may need the memory of --max_pairs (default: %(default)s)")
    parser.add_argument("--max_pairs", type=whole_number(1, 1 << 40), default=1 << 18, help="(history item, candidate) "
                        "pairs of a request, padding included; the default takes DIN 0.4 GB (default: %(default)s)")
    arguments = parser.parse_args()

    predictor = Predictor(arguments.folder, arguments.max_pairs)
    try:
        server = serve(application(arguments.name, predictor), host=arguments.host, port=arguments.port,
                       threads=arguments.threads, connection_limit=1000, channel_timeout=60)  # seconds without a word
    except (OSError, ValueError) as error:  # taken, not this machine's, or none
        sys.exit("error: can't listen at %s:%d (%s); choose another --host or --port"
                 % (arguments.host, arguments.port, getattr(error, "strerror", None) or error))
    for address in getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]:
        print("serving %s, version %d, at http://%s:%s" % ((arguments.name, predictor.version) + address), flush=True)
    server.run()  # until a signal, whose exception it takes for itself
    sys.exit(128 + signals[0])


if __name__ == "__main__":
    main()
