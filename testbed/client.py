"""A Milvus client on the bare gRPC stubs: what pymilvus' own classes convert, round or hide is sent and seen here as it is.

Columns are numpy arrays where the type has a fixed width (a vector column is two-dimensional), lists of str or bytes
where not: VarChar is str, JSON and `$meta` are bytes, an Array is a list of values, a binary vector is uint8.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import Any, Iterable, Sequence

import grpc
import numpy as np
from pymilvus.grpc_gen import common_pb2, milvus_pb2 as pb, milvus_pb2_grpc, schema_pb2

BOOL, INT8, INT16, INT32, INT64, FLOAT, DOUBLE, VARCHAR, ARRAY, JSON = 1, 2, 3, 4, 5, 10, 11, 21, 22, 23
BINARY_VECTOR, FLOAT_VECTOR = 100, 101
META = "$meta"

STRONG, SESSION, BOUNDED, EVENTUALLY = 0, 1, 2, 3
MAX_LIMIT = 16384  # of offset+limit in one query

_SCALAR = {BOOL: "bool_data", INT8: "int_data", INT16: "int_data", INT32: "int_data", INT64: "long_data", FLOAT: "float_data",
           DOUBLE: "double_data", VARCHAR: "string_data", JSON: "json_data", ARRAY: "array_data"}
_NUMPY = {BOOL: np.bool_, INT8: np.int32, INT16: np.int32, INT32: np.int32, INT64: np.int64, FLOAT: np.float32, DOUBLE: np.float64}
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            # In spite of its name, what one attempt may take: on a busy machine a handshake needs more than a moment.
            ("grpc.min_reconnect_backoff_ms", 5000)]


class Refused(Exception):
    """Milvus answered with an error."""

    def __init__(self, call: str, code: int, reason: str):
        super().__init__(f"{call}: {reason} (code {code})")
        self.code = code
        self.reason = reason


@dataclass
class Field:
    name: str
    type: int
    primary: bool = False
    auto_id: bool = False
    partition_key: bool = False
    element: int = 0
    description: str = ""
    params: dict[str, Any] = field(default_factory=dict)  # dim, max_length, max_capacity

    def proto(self):
        return schema_pb2.FieldSchema(
            name=self.name, data_type=self.type, is_primary_key=self.primary, autoID=self.auto_id, element_type=self.element,
            is_partition_key=self.partition_key, description=self.description, type_params=_pairs(self.params))


def _pairs(items: dict) -> list:
    return [common_pb2.KeyValuePair(key=str(k), value=str(v)) for k, v in items.items()]


# --- one column to wire bytes -------------------------------------------------------------------------------------------
def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _chunk(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def scalars(type_: int, values: Iterable, element: int = 0):
    out = schema_pb2.ScalarField()
    data = getattr(out, _SCALAR[type_]).data
    if type_ == ARRAY:
        out.array_data.element_type = element
        data.extend(scalars(element, v) for v in values)
        if not len(data):
            out.array_data.SetInParent()
    else:
        getattr(out, _SCALAR[type_]).SetInParent()
        data.extend(values.tolist() if isinstance(values, np.ndarray) else values)
    return out


def encode_column(f: Field, values) -> bytes:
    """A serialized FieldData. Vectors are copied as they lie in memory."""
    head = schema_pb2.FieldData(type=f.type, field_name=f.name, is_dynamic=f.name == META)
    if f.type == FLOAT_VECTOR:
        values = np.ascontiguousarray(values, "<f4")
        floats = _chunk(1, values.tobytes())
        return head.SerializeToString() + _chunk(4, b"\x08" + _varint(values.shape[1]) + _chunk(2, floats))
    if f.type == BINARY_VECTOR:
        values = np.ascontiguousarray(values, np.uint8)
        return head.SerializeToString() + _chunk(4, b"\x08" + _varint(values.shape[1] * 8) + _chunk(3, values.tobytes()))
    head.scalars.CopyFrom(scalars(f.type, values, f.element))
    return head.SerializeToString()


def encode_rows(database: str, collection: str, partition: str, columns: Sequence[tuple[Field, Any]], rows: int) -> bytes:
    """A serialized InsertRequest (an UpsertRequest has the same fields)."""
    head = pb.InsertRequest(db_name=database, collection_name=collection, partition_name=partition, num_rows=rows)
    return head.SerializeToString() + b"".join(_chunk(5, encode_column(f, v)) for f, v in columns)


# --- wire bytes to columns ----------------------------------------------------------------------------------------------
def _fields(buf: memoryview):
    """The top-level fields of a message: (number, value), a memoryview for everything with a length."""
    at, end = 0, len(buf)

    def varint():
        nonlocal at
        shift = value = 0
        while True:
            b = buf[at]
            at += 1
            value |= (b & 0x7F) << shift
            if b < 0x80:
                return value
            shift += 7

    while at < end:
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
        elif kind == 2:
            size = varint()
            yield tag >> 3, buf[at:at + size]
            at += size
        else:
            size = 8 if kind == 1 else 4
            yield tag >> 3, buf[at:at + size]
            at += size


def decode_column(buf: memoryview) -> tuple[str, Any]:
    name, type_, scalar_parts, dim, vector = "", 0, [], 0, []
    for number, value in _fields(buf):
        if number == 1:
            type_ = value
        elif number == 2:
            name = bytes(value).decode()
        elif number == 3:
            scalar_parts.append(bytes(value))
        elif number == 4:
            for n, v in _fields(value):
                if n == 1:
                    dim = v
                elif n == 2:
                    vector += [part for k, part in _fields(v) if k == 1]
                else:
                    vector.append(v)
    if type_ in (FLOAT_VECTOR, BINARY_VECTOR):
        raw = b"".join(vector)
        flat = np.frombuffer(raw, "<f4" if type_ == FLOAT_VECTOR else np.uint8)
        return name, flat.reshape(-1, dim if type_ == FLOAT_VECTOR else dim // 8)
    data = getattr(schema_pb2.ScalarField.FromString(b"".join(scalar_parts)), _SCALAR.get(type_, "long_data")).data
    if type_ in _NUMPY:
        return name, np.fromiter(data, _NUMPY[type_], len(data))
    if type_ == ARRAY:
        # The element's type is in the oneof, so equal bytes are equal arrays of equal types.
        return name, _objects([d.SerializeToString(deterministic=True) for d in data])
    return name, _objects(list(data))


def _objects(values: list) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def quote(key) -> str:
    """A key as it stands in an expression."""
    if isinstance(key, (int, np.integer)):
        return str(int(key))
    text = key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return f'"{text}"'


class Client:
    """One channel to one Milvus, used for one database. Safe to share between threads."""

    def __init__(self, milvus, database: str = "default", timeout: float = 60):
        """`milvus` has `.address` and `.token`."""
        self.database = database
        self.timeout = timeout
        self._headers = [("dbname", database)]
        if milvus.token:
            self._headers.append(("authorization", base64.b64encode(milvus.token.encode()).decode()))
        self._channel = grpc.insecure_channel(milvus.address, options=_OPTIONS)
        self._stub = milvus_pb2_grpc.MilvusServiceStub(self._channel)
        path = "/milvus.proto.milvus.MilvusService/"
        self._raw = {
            "Insert": self._channel.unary_unary(path + "Insert", response_deserializer=pb.MutationResult.FromString),
            "Upsert": self._channel.unary_unary(path + "Upsert", response_deserializer=pb.MutationResult.FromString),
            "Query": self._channel.unary_unary(path + "Query", request_serializer=pb.QueryRequest.SerializeToString),
        }

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def call(self, name: str, request, timeout: float | None = None):
        """Any call; a status that is not success becomes Refused."""
        method = self._raw.get(name) or getattr(self._stub, name)
        answer = method(request, timeout=timeout or self.timeout, metadata=self._headers)
        status = answer if isinstance(answer, common_pb2.Status) else getattr(answer, "status", None)
        if status is not None and (status.code or status.error_code):
            raise Refused(name, status.code or status.error_code, status.reason)
        return answer

    # --- databases and collections
    def list_databases(self) -> list[str]:
        return list(self.call("ListDatabases", pb.ListDatabasesRequest()).db_names)

    def create_database(self, name: str) -> None:
        self.call("CreateDatabase", pb.CreateDatabaseRequest(db_name=name))

    def drop_database(self, name: str) -> None:
        self.call("DropDatabase", pb.DropDatabaseRequest(db_name=name))

    def list_collections(self) -> list[str]:
        return sorted(self.call("ShowCollections", pb.ShowCollectionsRequest(db_name=self.database)).collection_names)

    def has_collection(self, name: str) -> bool:
        return name in self.list_collections()

    def create_collection(self, name: str, fields: Sequence[Field], *, shards: int = 1, dynamic: bool = False,
                          description: str = "", consistency: int = BOUNDED, properties: dict | None = None,
                          partitions: int = 0) -> None:
        schema = schema_pb2.CollectionSchema(name=name, description=description, fields=[f.proto() for f in fields],
                                             autoID=any(f.auto_id for f in fields), enable_dynamic_field=dynamic)
        self.call("CreateCollection", pb.CreateCollectionRequest(
            db_name=self.database, collection_name=name, schema=schema.SerializeToString(), shards_num=shards,
            consistency_level=consistency, properties=_pairs(properties or {}), num_partitions=partitions))

    def drop_collection(self, name: str) -> None:
        self.call("DropCollection", pb.DropCollectionRequest(db_name=self.database, collection_name=name))

    def alter_collection(self, name: str, properties: dict) -> None:
        self.call("AlterCollection", pb.AlterCollectionRequest(
            db_name=self.database, collection_name=name, properties=_pairs(properties)))

    def rename(self, name: str, to: str, database: str = "") -> None:
        self.call("RenameCollection", pb.RenameCollectionRequest(db_name=self.database, oldName=name, newName=to, newDBName=database))

    def create_alias(self, alias: str, name: str) -> None:
        self.call("CreateAlias", pb.CreateAliasRequest(db_name=self.database, collection_name=name, alias=alias))

    def alter_alias(self, alias: str, name: str) -> None:
        self.call("AlterAlias", pb.AlterAliasRequest(db_name=self.database, collection_name=name, alias=alias))

    def drop_alias(self, alias: str) -> None:
        self.call("DropAlias", pb.DropAliasRequest(db_name=self.database, alias=alias))

    def meant_by(self, name: str) -> str:
        """The collection's own name, for an alias; empty if there is neither."""
        try:
            return self.describe(name).schema.name
        except Refused:
            return ""

    # --- who may do what
    def create_user(self, user: str, password: str) -> None:
        self.call("CreateCredential", pb.CreateCredentialRequest(username=user, password=base64.b64encode(password.encode()).decode()))

    def create_role(self, role: str) -> None:
        self.call("CreateRole", pb.CreateRoleRequest(entity=pb.RoleEntity(name=role)))

    def drop_role(self, role: str) -> None:
        self.call("DropRole", pb.DropRoleRequest(role_name=role))

    def bind(self, user: str, role: str, remove: bool = False) -> None:
        self.call("OperateUserRole", pb.OperateUserRoleRequest(username=user, role_name=role, type=int(remove)))

    def grant(self, role: str, object_: str, name: str, privilege: str, revoke: bool = False) -> None:
        self.call("OperatePrivilege", pb.OperatePrivilegeRequest(type=int(revoke), entity=self._grant(role, object_, name, privilege)))

    def _grant(self, role: str, object_: str = "", name: str = "", privilege: str = ""):
        grant = pb.GrantEntity(role=pb.RoleEntity(name=role), db_name=self.database)
        if object_:
            grant.object.name, grant.object_name, grant.grantor.privilege.name = object_, name, privilege
        return grant

    def grants(self, role: str) -> set[tuple[str, str, str]]:
        """Object type, object and privilege of each grant of the role in this database."""
        found = self.call("SelectGrant", pb.SelectGrantRequest(entity=self._grant(role)))
        return {(g.object.name, g.object_name, g.grantor.privilege.name) for g in found.entities}

    def roles(self) -> dict[str, set[str]]:
        """The roles, each with its users."""
        found = self.call("SelectRole", pb.SelectRoleRequest(include_user_info=True))
        return {r.role.name: {u.name for u in r.users} for r in found.results}

    def users(self) -> set[str]:
        return set(self.call("ListCredUsers", pb.ListCredUsersRequest()).usernames)

    def describe(self, name: str):
        return self.call("DescribeCollection", pb.DescribeCollectionRequest(db_name=self.database, collection_name=name))

    # --- partitions
    def list_partitions(self, name: str) -> list[str]:
        return sorted(self.call("ShowPartitions", pb.ShowPartitionsRequest(
            db_name=self.database, collection_name=name)).partition_names)

    def create_partition(self, name: str, partition: str) -> None:
        self.call("CreatePartition", pb.CreatePartitionRequest(
            db_name=self.database, collection_name=name, partition_name=partition))

    def drop_partition(self, name: str, partition: str) -> None:
        self.call("DropPartition", pb.DropPartitionRequest(
            db_name=self.database, collection_name=name, partition_name=partition))

    # --- indexes and load
    def create_index(self, name: str, field_name: str, params: dict, index_name: str = "") -> None:
        self.call("CreateIndex", pb.CreateIndexRequest(
            db_name=self.database, collection_name=name, field_name=field_name, index_name=index_name, extra_params=_pairs(params)))

    def drop_index(self, name: str, field_name: str, index_name: str = "") -> None:
        self.call("DropIndex", pb.DropIndexRequest(
            db_name=self.database, collection_name=name, field_name=field_name, index_name=index_name))

    def list_indexes(self, name: str) -> list:
        try:
            return list(self.call("DescribeIndex", pb.DescribeIndexRequest(
                db_name=self.database, collection_name=name)).index_descriptions)
        except Refused as e:
            if e.code == 700 or e.code == 25 or "index not found" in e.reason or "not exist" in e.reason:
                return []
            raise

    def load(self, name: str, partitions: Sequence[str] = (), replicas: int = 1, timeout: float = 120) -> None:
        self.begin_load(name, partitions, replicas)
        self.wait_loaded(name, partitions, timeout)

    def begin_load(self, name: str, partitions: Sequence[str] = (), replicas: int = 1) -> None:
        """Loading takes two seconds of waiting for the coordinator: several collections may well do that together."""
        if partitions:
            self.call("LoadPartitions", pb.LoadPartitionsRequest(
                db_name=self.database, collection_name=name, partition_names=partitions, replica_number=replicas))
        else:
            self.call("LoadCollection", pb.LoadCollectionRequest(
                db_name=self.database, collection_name=name, replica_number=replicas))

    def wait_loaded(self, name: str, partitions: Sequence[str] = (), timeout: float = 120) -> None:
        deadline = time.monotonic() + timeout
        while self.load_state(name, partitions) != "Loaded":
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is not loaded after {timeout:.0f} s")
            time.sleep(0.05)

    def release(self, name: str, partitions: Sequence[str] = ()) -> None:
        if partitions:
            self.call("ReleasePartitions", pb.ReleasePartitionsRequest(
                db_name=self.database, collection_name=name, partition_names=partitions))
        else:
            self.call("ReleaseCollection", pb.ReleaseCollectionRequest(db_name=self.database, collection_name=name))

    def load_state(self, name: str, partitions: Sequence[str] = ()) -> str:
        """NotExist, NotLoad, Loading or Loaded."""
        state = self.call("GetLoadState", pb.GetLoadStateRequest(
            db_name=self.database, collection_name=name, partition_names=partitions)).state
        return common_pb2.LoadState.Name(state).removeprefix("LoadState")

    def replicas(self, name: str) -> int:
        return len(self.call("GetReplicas", pb.GetReplicasRequest(db_name=self.database, collection_name=name)).replicas)

    def flush(self, *names: str) -> None:
        self.call("Flush", pb.FlushRequest(db_name=self.database, collection_names=names))

    # --- rows
    def insert(self, name: str, columns: Sequence[tuple[Field, Any]], partition: str = "", timeout: float | None = None):
        rows = len(columns[0][1])
        return self.call("Insert", encode_rows(self.database, name, partition, columns, rows), timeout)

    def upsert(self, name: str, columns: Sequence[tuple[Field, Any]], partition: str = "", timeout: float | None = None):
        rows = len(columns[0][1])
        return self.call("Upsert", encode_rows(self.database, name, partition, columns, rows), timeout)

    def delete(self, name: str, expr: str, partition: str = "", timeout: float | None = None):
        return self.call("Delete", pb.DeleteRequest(
            db_name=self.database, collection_name=name, partition_name=partition, expr=expr), timeout)

    def query(self, name: str, expr: str, output: Sequence[str], *, partitions: Sequence[str] = (), limit: int | None = None,
              consistency: int = STRONG, timeout: float | None = None) -> dict[str, Any]:
        request = pb.QueryRequest(
            db_name=self.database, collection_name=name, expr=expr, output_fields=output, partition_names=partitions,
            consistency_level=consistency, query_params=_pairs({} if limit is None else {"limit": limit}))
        if consistency == EVENTUALLY:
            request.guarantee_timestamp = 1
        raw = memoryview(self._raw["Query"](request, timeout=timeout or self.timeout, metadata=self._headers))
        columns = {}
        for number, value in _fields(raw):
            if number == 1:
                status = common_pb2.Status.FromString(bytes(value))
                if status.code or status.error_code:
                    raise Refused("Query", status.code or status.error_code, status.reason)
            elif number == 2:
                column, data = decode_column(value)
                columns[column] = data
        return columns

    def count(self, name: str, expr: str = "", partitions: Sequence[str] = (), consistency: int = STRONG) -> int:
        """count(*): counts every copy of a key."""
        return int(self.query(name, expr, ["count(*)"], partitions=partitions, consistency=consistency)["count(*)"][0])
