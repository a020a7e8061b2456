"""A sample receiver for docker-compose.yml: prints the path, id and body of each request, and responds with 204."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        print(self.path, self.headers.get("webhook-id"), body.decode(), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        """do_POST prints each request."""


ThreadingHTTPServer(("", int(sys.argv[1])), Receiver).serve_forever()
