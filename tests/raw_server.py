"""A server on this machine with two small files under the names of the raw Amazon files."""
import contextlib
import gzip
import http.server
import os
import threading

REVIEWS, META = "reviews_Electronics_5.json.gz", "meta_Electronics.json.gz"
CONTENT = {"/" + name: gzip.compress(b'{"' + os.urandom(size)) for name, size in ((REVIEWS, 40000), (META, 30000))}


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, path, wanted = self.server, self.path, self.headers.get("Range")
        server.asked.append((path.lstrip("/"), wanted))
        if path not in server.content:
            self.send_error(404)
            return
        body = server.content[path]
        start = 0
        if wanted and server.ranges:
            start = int(wanted[len("bytes="):].rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", "bytes */%d" % len(body))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(body) - 1, len(body)))
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = server.cut.pop(path, len(body))  # the first answer may be cut off, with the length promised
        self.wfile.write(body[start:stop])


@contextlib.contextmanager
def serving(content, ranges=True, cut=(), handler=Handler):
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    server.content, server.ranges, server.cut, server.asked = dict(content), ranges, dict(cut), []
    server.base = "http://127.0.0.1:%d" % server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
