"""Pulsar's admin interface: looking at topics and subscriptions, and taking things away."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request

from .server import ServerError


class PulsarAdmin:
    """For the topics of one namespace, which are named without it here."""

    def __init__(self, url: str, tenant: str, namespace: str, token: str = ""):
        self.url, self.tenant, self.namespace = url, tenant, f"{tenant}/{namespace}"
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}

    def raw(self, method: str, path: str, body: object = None, timeout: float = 30) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as r:
                return r.read()
        except urllib.error.HTTPError as e:
            raise ServerError(f"Pulsar {method} {path}: {e.code} {e.read().decode('utf-8', 'replace')[:500]}") from None

    def call(self, method: str, path: str, body: object = None, timeout: float = 30):
        text = self.raw(method, path, body, timeout)
        return json.loads(text) if text else None

    def _path(self, topic: str, *rest: str) -> str:
        return "/".join(["persistent", self.namespace, *(urllib.parse.quote(part, safe="") for part in (topic, *rest))])

    # --- topics
    def topics(self) -> list[str]:
        return sorted(t.rpartition("/")[2] for t in self.call("GET", f"persistent/{self.namespace}"))

    def create_topic(self, topic: str) -> None:
        self.call("PUT", self._path(topic))

    def delete_topic(self, topic: str) -> None:
        """With all that is connected to it."""
        self.call("DELETE", self._path(topic) + "?force=true")

    def internal_stats(self, topic: str) -> dict:
        return self.call("GET", self._path(topic, "internalStats"))

    def ledgers(self, topic: str) -> list[int]:
        """From the oldest to the one that is being written."""
        return [ledger["ledgerId"] for ledger in self.internal_stats(topic)["ledgers"]]

    def unload(self, topic: str) -> None:
        """Its clients are sent away and have to ask again who serves it, as if another broker had taken it over. It goes on in
        a new ledger."""
        self.call("PUT", self._path(topic, "unload"))

    def unload_all(self) -> None:
        self.call("PUT", f"namespaces/{self.namespace}/unload", timeout=60)

    # --- subscriptions
    def subscriptions(self, topic: str) -> list[str]:
        return sorted(self.call("GET", self._path(topic, "subscriptions")))

    def stats(self, topic: str) -> dict:
        return self.call("GET", self._path(topic, "stats"))

    def delete_subscription(self, topic: str, name: str) -> None:
        self.call("DELETE", self._path(topic, "subscription", name) + "?force=true")

    def acknowledge_all(self, topic: str, name: str) -> None:
        self.call("POST", self._path(topic, "subscription", name, "skip_all"))

    # --- what is kept
    def set_retention(self, minutes: int, megabytes: int) -> None:
        """For the namespace: of what all subscriptions have acknowledged. -1 is for ever, 0 not at all."""
        self.call("POST", f"namespaces/{self.namespace}/retention", {"retentionTimeInMinutes": minutes, "retentionSizeInMB": megabytes})

    def trim(self, topic: str, timeout: float = 30) -> list[int]:
        """Takes away all ledgers that are closed (by `unload`), whoever has not read them yet; returns which. This broker cannot
        be asked to do that: it looks every second what it need not keep."""
        closed = self.ledgers(topic)[:-1]
        deadline = time.monotonic() + timeout
        self.set_retention(0, 0)
        try:
            while left := set(closed) & set(self.ledgers(topic)):
                for name, subscription in self.stats(topic)["subscriptions"].items():
                    # At the end of a ledger whose successor is still empty, even an acknowledgement of all holds it back.
                    act = self.acknowledge_all if subscription["consumers"] else self.delete_subscription
                    act(topic, name)
                if time.monotonic() > deadline:
                    raise ServerError(f"of the ledgers {closed} of {topic} these are still there: {sorted(left)}")
                time.sleep(0.2)
        finally:
            self.set_retention(-1, -1)
        return closed

    # --- rights
    def grant(self, role: str, *actions: str) -> None:
        """On all topics of the namespace: produce, consume."""
        self.call("POST", f"namespaces/{self.namespace}/permissions/{role}", list(actions))
