"""Bare gRPC stubs: what pymilvus' own classes convert, round or hide is seen here as the server sent it."""

from __future__ import annotations

import base64
import contextlib
from types import SimpleNamespace

import grpc
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

pb = SimpleNamespace(milvus=milvus_pb2, common=common_pb2, schema=schema_pb2)

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500)]


class _Headers(grpc.UnaryUnaryClientInterceptor):
    """Adds the token and the database, as headers, to every call."""

    def __init__(self, headers):
        self.headers = headers

    def intercept_unary_unary(self, continuation, details, request):
        details = details._replace(metadata=[*(details.metadata or []), *self.headers])
        return continuation(details, request)


@contextlib.contextmanager
def connect(milvus, database: str = "default"):
    """Yields (stub, pb)."""
    headers = [("dbname", database)]
    if milvus.token:
        headers.append(("authorization", base64.b64encode(milvus.token.encode()).decode()))
    with grpc.insecure_channel(milvus.address, options=_OPTIONS) as channel:
        yield milvus_pb2_grpc.MilvusServiceStub(grpc.intercept_channel(channel, _Headers(headers))), pb
