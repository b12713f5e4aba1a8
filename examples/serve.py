"""A minimal server of what export.py writes, over HTTP, in the format of TensorFlow Serving's REST interface.

    pip install -r requirements/serve.txt
    python examples/serve.py din/save_path/saved_model --name din --port 8501
    curl localhost:8501/v1/models/din:predict -d '
        {"inputs": {"items": [[5, 7]], "lengths": [2], "candidates": [[1, 2, 3]]}}'

It shows what serving the model takes, and needs nothing of this project: TensorFlow (1.15 or 2.x), NumPy, waitress. Its
clients can talk to TensorFlow Serving, too: `inputs` (columns) are answered with `outputs`, and errors with `error`.
"""
import argparse
import http
import json
import logging
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow.compat.v1 as tf
import waitress

if hasattr(tf.config.experimental, "enable_tensor_float_32_execution"):  # else an A100's logits are off by 1.5e-4
    tf.config.experimental.enable_tensor_float_32_execution(False)

MAX_REQUEST = 16 << 20  # bytes


class BadRequest(Exception):
    """The request can't be answered: (HTTP's status, the reason)."""


class Predictor:
    """The newest version of the SavedModels in `folder`.

    Attributes:
      version: its number.
    """

    def __init__(self, folder):
        versions = [int(name) for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if name.isdigit()]
        if not versions:
            sys.exit("error: no SavedModel in %s; write one: python export.py" % folder)
        self.version = max(versions)
        session = tf.Session(graph=tf.Graph())
        with session.graph.as_default():
            signatures = tf.saved_model.loader.load(
                session, [tf.saved_model.tag_constants.SERVING], os.path.join(folder, str(self.version))).signature_def
            self._signatures = {name: self._callable(session, signature) for name, signature in signatures.items()}

    @staticmethod
    def _callable(session, signature):
        """({input's name: its number of axes}, a function of the inputs in this order that returns outputs by name)."""
        inputs, outputs = ({name: session.graph.get_tensor_by_name(info.name) for name, info in infos.items()}
                           for infos in (signature.inputs, signature.outputs))
        call = session.make_callable(list(outputs.values()), list(inputs.values()))
        return ({name: tensor.shape.ndims for name, tensor in inputs.items()},
                lambda *arrays: dict(zip(outputs, call(*arrays))))

    def predict(self, request):
        """The answer to a request: a dictionary with `inputs`, and `signature_name` where it is not the default.

        Raises:
          BadRequest: it has no answer.
        """
        if not isinstance(request, dict) or not isinstance(request.get("inputs"), dict):
            raise BadRequest(400, "the request is not an object with \"inputs\", an object")
        name = request.get("signature_name", "serving_default")
        if not isinstance(name, str) or name not in self._signatures:
            raise BadRequest(400, "no signature %s; there are %s" % (name, ", ".join(sorted(self._signatures))))
        ranks, call = self._signatures[name]
        if set(request["inputs"]) != set(ranks):
            raise BadRequest(400, "signature %s has the inputs %s" % (name, ", ".join(sorted(ranks))))
        arrays = [self._array(name, request["inputs"][name], rank) for name, rank in ranks.items()]
        try:
            outputs = call(*arrays)
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            raise BadRequest(400, str(error).split("\n\t [[")[0].strip().splitlines()[-1]) from None
        return {"outputs": {name: values.tolist() for name, values in outputs.items()}}

    @staticmethod
    def _array(name, values, rank):
        """`values`, nested lists of whole numbers, as an int32 array of `rank` axes."""
        try:
            array = np.zeros([0] * rank) if values == [] else np.array(values)
        except (ValueError, OverflowError):  # NumPy 1.24 and newer refuse rows of different lengths, older ones don't
            array = np.array(None)
        if array.ndim != rank or (array.size and array.dtype.kind not in "iu"):
            raise BadRequest(400, "%s is not an array of whole numbers with %d axes" % (name, rank))
        limits = np.iinfo(np.int32)
        if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
            raise BadRequest(400, "%s has numbers beyond 32 bits" % name)
        return array.astype(np.int32)


def application(name, predictor):
    """The WSGI application that serves `predictor` as the model `name`."""
    path = "/v1/models/" + name

    def answer(environ):
        if environ["PATH_INFO"] == path and environ["REQUEST_METHOD"] == "GET":
            return {"model_version_status": [{"version": str(predictor.version), "state": "AVAILABLE"}]}
        if environ["PATH_INFO"] != path + ":predict":
            raise BadRequest(404, "not found; post to %s:predict" % path)
        if environ["REQUEST_METHOD"] != "POST":
            raise BadRequest(405, "post the request")
        try:
            request = json.loads(environ["wsgi.input"].read().decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise BadRequest(400, "the request is not JSON (%s)" % error) from None
        return predictor.predict(request)

    def respond(environ, start_response):
        status = "200 OK"
        try:
            content = answer(environ)
        except BadRequest as error:
            number, reason = error.args
            status, content = "%d %s" % (number, http.HTTPStatus(number).phrase), {"error": reason}
        body = json.dumps(content).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    return respond


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="what export.py wrote: a folder of versions")
    parser.add_argument("--name", default="din", help="of the model, in the address (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8501, help="0: any that is free (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="requests worked on at a time (default: %(default)s)")
    arguments = parser.parse_args()

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a request that waits for a thread is no news
    predictor = Predictor(arguments.folder)
    server = waitress.create_server(application(arguments.name, predictor), host=arguments.host, port=arguments.port,
                                    threads=arguments.threads, max_request_body_size=MAX_REQUEST)
    print("serving %s, version %d, at http://%s:%s" % (arguments.name, predictor.version, arguments.host,
                                                      server.effective_port), flush=True)
    server.run()


if __name__ == "__main__":
    main()
