"""Requests to `migrans serve` out of a seed, from well-formed to noise, and an exchange of them as bytes."""

from __future__ import annotations

import json
import random
import re
import socket


class Fuzz:
    """Requests out of a seed: from well-formed to noise."""

    def __init__(self, seed: int, good: dict):
        self.random, self.good = random.Random(seed), good

    def value(self, depth: int = 0):
        r = self.random
        kinds = [lambda: r.choice([None, True, False, 0, -1, 1 << 63, 1 << 64, 1e308, "", "x", "${HOME}", "${", "$$", "\x00", "é\u202e", "(secret)"]),
                 lambda: "".join(chr(r.choice([r.randrange(32, 127), r.randrange(0x110000 - 0x2001)])) for _ in range(r.randrange(20)))
                 .encode("utf-8", "ignore").decode(),
                 lambda: r.choice(["http://127.0.0.1:1", "default.*", "10s", "64MiB", "rocksmq", "milvus", "null", "../..", "/etc/passwd"])]
        if depth < 4:
            kinds += [lambda: [self.value(depth + 1) for _ in range(r.randrange(4))],
                      lambda: {r.choice(["name", "source", "mq", "type", "path", "", "a.b", "token", "x"]): self.value(depth + 1) for _ in range(r.randrange(4))}]
        return r.choice(kinds)()

    def definition(self):
        """The good one with something wrong in it, or anything at all."""
        r = self.random
        if r.random() < 0.2:
            return self.value()
        made = json.loads(json.dumps(self.good))
        for _ in range(r.randrange(3)):
            node = made
            while r.random() < 0.7 and isinstance(node, dict) and (inner := [v for v in node.values() if isinstance(v, dict)]):
                node = r.choice(inner)
            keys = [*node, "state_dir", "labels", "restart", "unknown"]
            if r.random() < 0.3 and node:
                node.pop(r.choice([*node]))
            else:
                node[r.choice(keys)] = self.value()
        return made

    def request(self) -> bytes:
        r = self.random
        if r.random() < 0.5:  # what the server takes for a request to a pipeline
            method = r.choice(["PUT", "PUT", "PUT", "PUT", "GET", "POST", "DELETE"])
            path = f"/api/v1/pipelines/{r.choice('abc')}" + (f"/{r.choice(['pause', 'resume'])}" if method == "POST" else "")
            kind = "application/json"
        else:
            method = r.choice(["GET", "PUT", "PUT", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "x"])
            name = r.choice(["a", "b", "c", "a%20b", "%ff", "%00", "..", "a" * 200, "%2e%2e%2f", "é".encode().decode("latin-1")])
            path = r.choice([f"/api/v1/pipelines/{name}", f"/api/v1/pipelines/{name}", f"/api/v1/pipelines/{name}/{r.choice(['pause', 'resume', 'report', 'x'])}",
                             "/api/v1/pipelines", "/metrics", "/", "//", "/api/v1/pipelines?label=" + "%41" * r.randrange(9)])
            kind = r.choice(["application/json", "application/json", "application/json", "application/toml", "text/plain", "", "\x7f/json"])
        if r.random() < 0.1:
            path += r.choice(["?state=remove", "?state=keep", "?paused=true", "?paused=x", "?%", "?a&b=&&=", "#x"])
        if method == "PUT" and "paused" not in path and "#" not in path:
            path += "&paused=true" if "?" in path else "?paused=true"  # so that there is nothing to wait for
        body = b""
        if method == "PUT" or method in ("POST", "PATCH") and r.random() < 0.5:
            body = json.dumps(self.definition()).encode()
            if r.random() < 0.15:
                body = bytearray(body)
                for _ in range(r.randrange(1, 6)):
                    if body:
                        body[r.randrange(len(body))] = r.randrange(256)
                body = bytes(body[:r.randrange(len(body) + 1)])
            if r.random() < 0.005:
                body += b" " * r.randrange(1 << 20, 4 << 20)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        if r.random() < 0.05:
            head += r.choice(["Content-Length: 5\r\n", "X: " + "y" * 9000 + "\r\n", "Expect: 100-continue\r\n", "Authorization: Bearer x\r\n",
                              "Transfer-Encoding: chunked\r\n", "\x00: x\r\n", "Connection: upgrade\r\n"])
            if head.endswith("chunked\r\n"):
                body = b"!" + body  # which is no chunk: one without an end would be waited for
        return head.encode("latin-1") + b"\r\n" + body


def exchange(port: int, requests: list[bytes]) -> list[int]:
    """The statuses of the answers; 0 where the server hung up on us instead."""
    statuses, s = [], None
    for request in requests:
        if s is None:
            s = socket.create_connection(("127.0.0.1", port), timeout=20)
            got = s.makefile("rb")
        status, goes_on = 0, False
        try:
            s.sendall(request)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = got.readline(65536)
                if not line:
                    raise ConnectionResetError
                head += line
                if head == b"HTTP/1.1 100 Continue\r\n\r\n":
                    head = b""
            status = int(head.split(b" ")[1])
            length = re.search(rb"content-length: (\d+)", head)
            body = got.read(int(length[1])) if length and not request.startswith(b"HEAD") else b""
            assert status < 500, (status, body, request)
            assert b"hush" not in body and b"panicked" not in body, body
            goes_on = status != 400 and length and b"connection: close" not in head.lower()
        except (ConnectionResetError, BrokenPipeError):
            pass
        except TimeoutError:
            raise AssertionError(f"no answer to {request!r}") from None
        statuses.append(status)
        if not goes_on:
            s.close()
            s = None
    return statuses
