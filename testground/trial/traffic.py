"""The two ends of the trial on a real node: a receiver that remembers, and a sender that signs as GitHub does.

    traffic.py receive ADDRESS PORT FILE              each request's event number and its X-Hookstream-Event-Id, a line each
    traffic.py send URL FIRST COUNT PER_SECOND FILE   each event's number, the tries it took, and the event id of its 200

The sender opens a connection for each request, as most senders do, and repeats one that got no 200 (at most 30 times, 0.5 s
apart): the first column of a line that is not 1 says so.
"""

import hashlib
import hmac
import http.client
import http.server
import json
import sys
import threading
import time
import urllib.parse

SECRET = b"It's a Secret to Everybody"  # examples/quickstart's


def receive(address, port, path):
    lock = threading.Lock()

    class Receiver(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock, open(path, "a") as file:
                print(json.loads(body).get("n"), self.headers["X-Hookstream-Event-Id"], file=file)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer((address, int(port)), Receiver).serve_forever()


def push(url, number):
    """The event id of its 200, or why there is none."""
    target = urllib.parse.urlsplit(url)
    body = json.dumps({"n": number}).encode()
    headers = {
        "content-type": "application/json",
        "x-github-event": "push",
        "x-hub-signature-256": "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest(),
    }
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=10)
    try:
        connection.request("POST", target.path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status == 200:
            return json.loads(answer)["event_id"], None
        return None, f"{response.status} {answer[:200]!r}"
    except OSError as error:
        return None, repr(error)
    except http.client.HTTPException as error:
        return None, repr(error)
    finally:
        connection.close()


def send(url, first, count, per_second, path):
    begin = time.monotonic()
    with open(path, "w") as file:
        for index in range(int(count)):
            time.sleep(max(0.0, begin + index / float(per_second) - time.monotonic()))
            number = int(first) + index
            for attempt in range(1, 31):
                event, why = push(url, number)
                if event:
                    break
                print(f"{time.strftime('%H:%M:%S')} {number}: {why}", file=sys.stderr, flush=True)
                time.sleep(0.5)
            print(attempt, number, event, file=file, flush=True)


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:])
