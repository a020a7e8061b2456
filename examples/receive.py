"""A receiver that accepts only requests signed with the secret of its webhook.

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
        # Verify the received bytes before you parse them.
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            # This also refuses a timestamp that differs from now by more than five minutes.
            WEBHOOK.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            self.respond(401)
        else:
            # Every attempt of a delivery has the same webhook-id. A real receiver skips an id that it has processed.
            print(self.headers["webhook-id"], flush=True)
            self.respond(204)

    def respond(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9000").rsplit(":", 1)
server = ThreadingHTTPServer((host, int(port)), Receiver)
print(f"listening on {host}:{server.server_address[1]}", flush=True)
server.serve_forever()
