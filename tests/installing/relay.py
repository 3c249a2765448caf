"""Hands the coordinator's answers on, but those for one path only in half ("cut"), or with another byte ("change")."""

import http.client
import http.server
import sys

PATH, WHAT = sys.argv[1:]


class Relay(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        upstream = http.client.HTTPConnection("hub", 5672)
        upstream.request("GET", self.path, headers=dict(self.headers))
        answer = upstream.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path.startswith(PATH):
            middle = len(body) // 2
            body = body[:middle] if WHAT == "cut" else body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 5001), Relay)
print("ready", flush=True)
server.serve_forever()
