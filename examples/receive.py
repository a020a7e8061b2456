"""A receiver that takes only what is signed with its webhook's secret.

    pip install standardwebhooks
    SECRET=whsec_... python examples/receive.py 127.0.0.1:9000
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(os.environ["SECRET"])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        # The bytes as they came, before they are parsed.
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            # Times too far from now are refused as well.
            WEBHOOK.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            self.answer(401)
        else:
            # The same each time a delivery is sent: whoever has seen it has dealt with it.
            print(self.headers["webhook-id"], flush=True)
            self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9000").rsplit(":", 1)
server = ThreadingHTTPServer((host, int(port)), Receiver)
print(f"listening on {host}:{server.server_address[1]}", flush=True)
server.serve_forever()
