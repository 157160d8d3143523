"""A seeded random workload at the source, covering every data type of Milvus 2.3 and all that can happen to rows.

`Table` is one collection with its keys remembered, so that what it deletes and upserts exists; `Workload` plays random
steps on several tables, by itself or in the background. The source is always the truth: a call that fails half way
(because a test kills the server under it) only makes the keys it touched unusable for later steps.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any, Sequence

import grpc
import numpy as np

from . import client as m
from .client import Client, Field, Refused

NASTY = [
    "", " ", "'", '"', "\\", "\\\\", "\\n", '\\"', "a'b\"c", "line\nbreak", "cr\rlf\r\n", "tab\t", "\x01\x02\x1f", "nul\x00inside",
    "\x7f", "émigré", "e\u0301", "中文", "😀👩‍👩‍👧", "\u2028\u2029", "\u202eltr", "\ufeffbom", "${HOME}", "%s%n{}", "null", "0", "-1",
    "id in [1]", '"] or id not in ["', "/* */ -- #", "`x`", "a" * 200, "\u0000", "\ud7ff\ue000", "ÿþ", "trailing ", " leading",
]

FLOAT_EDGES = [0.0, -0.0, 1.5, -1e-45, 1.17549435e-38, 3.4028235e38, -3.4028235e38]
DOUBLE_EDGES = [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, -1.7976931348623157e308, 0.1]


def all_types(key: str = "int64", *, auto_id: bool = False, vector: str = "float", dim: int = 16, partition_key: str = "") -> list[Field]:
    """Fields of every type, with the key of the given kind."""
    pk = (Field("id", m.INT64, primary=True, auto_id=auto_id, description="the key") if key == "int64" else
          Field("id", m.VARCHAR, primary=True, auto_id=auto_id, params={"max_length": 1024}, description="the key"))
    arrays = [Field(f"a_{n}", m.ARRAY, element=t, params={"max_capacity": 12, **({"max_length": 300} if t == m.VARCHAR else {})})
              for n, t in (("bool", m.BOOL), ("int8", m.INT8), ("int16", m.INT16), ("int32", m.INT32), ("int64", m.INT64),
                           ("float", m.FLOAT), ("double", m.DOUBLE), ("varchar", m.VARCHAR))]
    vec = (Field("v", m.FLOAT_VECTOR, params={"dim": dim}) if vector == "float" else Field("v", m.BINARY_VECTOR, params={"dim": dim}))
    fields = [pk, Field("b", m.BOOL), Field("i8", m.INT8, description='eight "bits"'), Field("i16", m.INT16), Field("i32", m.INT32),
              Field("i64", m.INT64), Field("f", m.FLOAT), Field("d", m.DOUBLE), Field("s", m.VARCHAR, params={"max_length": 4000}),
              Field("j", m.JSON), *arrays, vec]
    for f in fields:
        f.partition_key = f.name == partition_key
    return fields


def plain(dim: int = 16, key: str = "int64", auto_id: bool = False) -> list[Field]:
    """The small schema: a key, a text, a float vector."""
    pk = (Field("id", m.INT64, primary=True, auto_id=auto_id) if key == "int64" else
          Field("id", m.VARCHAR, primary=True, auto_id=auto_id, params={"max_length": 1024}))
    return [pk, Field("txt", m.VARCHAR, params={"max_length": 200}), Field("v", m.FLOAT_VECTOR, params={"dim": dim})]


class Values:
    """Random columns; every edge value turns up often."""

    def __init__(self, seed: int):
        self.np = np.random.default_rng(seed)
        self.py = random.Random(seed)

    def text(self, limit: int) -> str:
        r = self.py.random()
        if r < 0.3:
            s = self.py.choice(NASTY)
        elif r < 0.97:
            s = "".join(self.py.choices("abcdefghij \"'\\\n,éß中😀", k=self.py.randrange(0, 30)))
        else:
            s = "x" * limit  # max_length counts bytes
        return s if len(s.encode("utf-8", "surrogatepass")) <= limit else s[:limit // 4]

    def json(self, dynamic: bool = False) -> bytes:
        def text(limit: int) -> str:
            return self.text(limit).replace("\x00", "0")

        def value(depth: int):
            match self.py.randrange(9 if depth < 3 else 7):
                case 0: return None
                case 1: return True
                case 2: return self.py.randrange(-2**53, 2**53)
                case 3: return self.py.uniform(-1e9, 1e9)
                case 4: return text(60)
                case 5: return 2**62
                case 6: return 1e-7
                case 7: return [value(depth + 1) for _ in range(self.py.randrange(4))]
                case 8: return {text(20): value(depth + 1) for _ in range(self.py.randrange(4))}
        keys = ["colour", "size", "note", "Größe", "k e y", "x.y"]
        doc = {k: value(0) for k in self.py.sample(keys, self.py.randrange(len(keys)))}
        if not dynamic and self.py.random() < 0.2:
            doc["nested"] = value(0)
        return json.dumps(doc, ensure_ascii=self.py.random() < 0.5, separators=self.py.choice([(",", ":"), (", ", ": ")])).encode("utf-8", "replace")

    def column(self, f: Field, n: int) -> Any:
        bits = {m.INT8: 8, m.INT16: 16, m.INT32: 32, m.INT64: 64}
        if f.type == m.BOOL:
            return self.np.random(n) < 0.5
        if f.type in bits:
            b = bits[f.type]
            lo, hi = -(1 << b - 1), (1 << b - 1) - 1
            out = self.np.integers(lo, hi, n, np.int64, endpoint=True)
            out[self.np.random(n) < 0.1] = self.py.choice([lo, hi, 0, -1])
            return out
        if f.type in (m.FLOAT, m.DOUBLE):
            out = self.np.normal(0, 1e3, n)
            edges = FLOAT_EDGES if f.type == m.FLOAT else DOUBLE_EDGES
            for i in np.flatnonzero(self.np.random(n) < 0.2):
                out[i] = self.py.choice(edges)
            return out.astype(np.float32 if f.type == m.FLOAT else np.float64)
        if f.type == m.VARCHAR:
            return [self.text(f.params["max_length"]) for _ in range(n)]
        if f.type == m.JSON:
            return [self.json(f.name == m.META) for _ in range(n)]
        if f.type == m.ARRAY:
            element = Field("", f.element, params={"max_length": f.params.get("max_length", 0)})
            return [list(np.asarray(self.column(element, k)).tolist()) if f.element != m.VARCHAR else self.column(element, k)
                    for k in self.np.integers(0, f.params["max_capacity"], n, endpoint=True).tolist()]
        if f.type == m.FLOAT_VECTOR:
            return self.np.random((n, f.params["dim"]), np.float32)
        if f.type == m.BINARY_VECTOR:
            return self.np.integers(0, 256, (n, f.params["dim"] // 8), np.uint8)
        raise ValueError(f"no values for type {f.type}")


class Table:
    """One collection at the source."""

    def __init__(self, milvus, name: str, fields: Sequence[Field], *, database: str = "default", seed: int = 0, dynamic: bool = False,
                 shards: int = 1, description: str = "", consistency: int = m.BOUNDED, properties: dict | None = None, partitions: int = 0):
        self.name = name
        self.database = database
        self.fields = list(fields)
        self.dynamic = dynamic
        self.options = dict(shards=shards, description=description, consistency=consistency, properties=properties, partitions=partitions)
        self.client = Client(milvus, database)
        self.values = Values(seed)
        self.rng = random.Random(seed)
        self.key = next(f for f in fields if f.primary)
        self.by_key = any(f.partition_key for f in fields)
        self.vector = next(f for f in fields if f.type in (m.FLOAT_VECTOR, m.BINARY_VECTOR))
        self.next = 1
        self.live: dict[str, list] = {}   # keys by partition
        self.dead: list = []              # deleted keys, free to come back

    @property
    def full_name(self) -> str:
        return f"{self.database}.{self.name}"

    @property
    def rows(self) -> int:
        return sum(map(len, self.live.values()))

    # --- DDL
    def create(self, load: bool = False) -> "Table":
        """With `load`, a FLAT index is made and the collection loaded; a loaded one is also compared much sooner."""
        self.client.create_collection(self.name, self.fields, dynamic=self.dynamic, **self.options)
        self.live, self.dead = {"_default": []}, []
        if load:
            self.load()
        return self

    def drop(self) -> None:
        self.client.drop_collection(self.name)
        self.live, self.dead = {}, []

    def resync(self) -> None:
        """After a call of which nobody knows whether it was carried out: the collection is there, with these partitions."""
        if not self.client.has_collection(self.name):
            self.create()
        partitions = self.client.list_partitions(self.name)
        self.live = {p: self.live.get(p, []) for p in partitions}

    def create_partition(self, name: str) -> None:
        self.client.create_partition(self.name, name)
        self.live[name] = []

    def drop_partition(self, name: str) -> None:
        try:
            self.client.release(self.name, [name])  # a loaded partition cannot be dropped
        except Refused:
            pass
        self.client.drop_partition(self.name, name)
        self.live.pop(name, None)

    def create_index(self, kind: str = "", name: str = "", **params) -> None:
        """An index of the vector; without a kind, one chosen at random."""
        binary = self.vector.type == m.BINARY_VECTOR
        choices = {"BIN_FLAT": {}, "BIN_IVF_FLAT": {"nlist": 16}} if binary else {
            "FLAT": {}, "IVF_FLAT": {"nlist": 64}, "IVF_SQ8": {"nlist": 32}, "HNSW": {"M": 12, "efConstruction": 80}, "AUTOINDEX": {}}
        kind = kind or self.rng.choice(sorted(choices))
        metric = self.rng.choice(["HAMMING", "JACCARD"] if binary else ["L2", "IP", "COSINE"])
        metric = params.pop("metric_type", metric)
        self.client.create_index(self.name, self.vector.name, {
            "index_type": kind, "metric_type": metric, "params": json.dumps(params or choices.get(kind, {}))}, name)

    def begin_load(self, partitions: Sequence[str] = ()) -> None:
        if not self.client.list_indexes(self.name):
            self.create_index("BIN_FLAT" if self.vector.type == m.BINARY_VECTOR else "FLAT")
        self.client.begin_load(self.name, partitions)

    def load(self, partitions: Sequence[str] = ()) -> None:
        self.begin_load(partitions)
        self.client.wait_loaded(self.name, partitions)

    # --- rows
    def new_keys(self, n: int) -> list:
        first, self.next = self.next, self.next + n
        if self.key.type == m.INT64:
            # Far apart and of both signs, so that no two runs of keys look alike.
            return [(-1) ** i * (i * 7919) for i in range(first, first + n)]
        keys = []
        for i in range(first, first + n):
            nasty = NASTY[i % len(NASTY)]
            keys.append(nasty if i <= len(NASTY) else f"{nasty}#{i:x}#{self.rng.choice(NASTY)}")
        return list(dict.fromkeys(keys))

    def columns(self, keys: Sequence, n: int = 0) -> list[tuple[Field, Any]]:
        n = len(keys) or n
        out = []
        for f in self.fields:
            if f.primary:
                if not f.auto_id:
                    out.append((f, np.array(keys, np.int64) if f.type == m.INT64 else list(keys)))
            elif f.partition_key:
                groups = self.rng.choices(range(20), k=n)
                out.append((f, np.array(groups, np.int64) if f.type != m.VARCHAR else [f"group {g}" for g in groups]))
            else:
                out.append((f, self.values.column(f, n)))
        if self.dynamic:
            meta = Field(m.META, m.JSON)
            out.append((meta, self.values.column(meta, n)))
        return out

    def insert(self, n: int, partition: str = "", keys: Sequence | None = None) -> list:
        """Inserts n new rows, or rows with the given keys; returns the keys."""
        keys = [] if self.key.auto_id else list(keys) if keys is not None else self.new_keys(n)
        answer = self.client.insert(self.name, self.columns(keys, n), partition)
        if self.key.auto_id:
            keys = list(answer.IDs.int_id.data or answer.IDs.str_id.data)
        self.live.setdefault(partition or "_default", []).extend(keys)
        return keys

    def take(self, n: int, partition: str = "") -> tuple[str, list]:
        """Some keys that exist, out of one partition, forgotten here."""
        partition = partition or self.rng.choice([p for p in self.live if self.live[p]] or ["_default"])
        keys = self.live.get(partition, [])
        self.rng.shuffle(keys)
        taken, self.live[partition] = keys[:n], keys[n:]
        return partition, taken

    def upsert(self, n: int, partition: str = "", fresh: int = 0) -> list:
        """Writes n existing keys again, and `fresh` new ones, by Upsert."""
        partition, keys = self.take(n, partition)
        keys += self.new_keys(fresh) if fresh else []
        if keys:
            self.client.upsert(self.name, self.columns(keys), "" if self.by_key else partition)
            self.live[partition] += keys
        return keys

    def delete(self, n: int, partition: str = "", everywhere: bool = True) -> list:
        """Deletes n keys, naming their partition or not."""
        partition, keys = self.take(n, partition)
        if keys:
            named = "" if everywhere or self.by_key else partition
            self.client.delete(self.name, f"{self.key.name} in [{','.join(map(m.quote, keys))}]", named)
            self.dead += keys
        return keys

    def reinsert(self, n: int, partition: str = "") -> list:
        """Inserts keys that were deleted before."""
        keys, self.dead = self.dead[:n], self.dead[n:]
        return self.insert(len(keys), partition, keys) if keys and not self.key.auto_id else []

    def bulk(self, rows: int, batch_bytes: int = 4_000_000, partition: str = "") -> int:
        """Many rows of the plain schema as fast as the server takes them; returns the bytes of the vectors."""
        dim = self.vector.params["dim"]
        batch = max(1, batch_bytes // (dim * 4))
        for start in range(0, rows, batch):
            n = min(batch, rows - start)
            keys = [] if self.key.auto_id else self.new_keys(n)
            columns = [] if self.key.auto_id else [(self.key, np.array(keys, np.int64) if self.key.type == m.INT64 else keys)]
            for f in self.fields:
                if f.type == m.VARCHAR and not f.primary:
                    columns.append((f, [f"row {i}" for i in range(start, start + n)]))
                elif not f.primary:
                    columns.append((f, self.values.column(f, n)))
            answer = self.client.insert(self.name, columns, partition)
            self.live.setdefault(partition or "_default", []).extend(keys or answer.IDs.int_id.data or answer.IDs.str_id.data)
        return rows * dim * 4


class Workload:
    """Random steps on several tables; the same seed plays the same steps. Tables in `replaced` are dropped and made again under
    their names, and so are their partitions."""

    def __init__(self, tables: Sequence[Table], seed: int = 0, batch: int = 200, ddl: bool = True, replaced: Sequence[Table] = ()):
        self.tables = [*tables, *replaced]
        self.replaced = list(replaced)
        self.whole = threading.Lock()  # held while an upsert runs: see test_kills.py
        self.rng = random.Random(seed)
        self.batch = batch
        self.steps = 0
        self.failures: list[str] = []
        self._partition = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._choices = [(self._insert, 8), (self._upsert, 4), (self._delete, 4), (self._reinsert, 3), (self._bounce, 2)]
        if ddl:
            self._choices += [(self._create_partition, 1), (self._drop_partition, 0.5), (self._flush, 0.1)]
        if replaced:
            self._choices += [(self._create_partition, 2), (self._drop_partition, 2), (self._replace, 1)]

    def create(self, load: bool = False) -> "Workload":
        for table in self.tables:
            table.create()
            if load:
                table.begin_load()
        for table in self.tables if load else ():
            table.client.wait_loaded(table.name)
        return self

    def step(self) -> str:
        table = self.rng.choice(self.tables)
        action = self.rng.choices([a for a, _ in self._choices], [w for _, w in self._choices])[0]
        action(table)
        self.steps += 1
        return f"{action.__name__.strip('_')} {table.name}"

    def run(self, steps: int) -> "Workload":
        for _ in range(steps):
            self.step()
        return self

    # --- in the background
    def start(self, rate: float = 0.0, tolerant: bool = False) -> "Workload":
        """Plays steps until stop(): `rate` a second, or as fast as they go. `tolerant`: goes on when a call fails."""
        self._stop.clear()

        def play():
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    self.step()
                except (grpc.RpcError, Refused, TimeoutError) as e:
                    if not tolerant:
                        self.failures.append(f"{type(e).__name__}: {e}")
                        return
                    self._resync()
                if rate:
                    self._stop.wait(max(0.0, 1 / rate - (time.monotonic() - began)))

        self._thread = threading.Thread(target=play, name="workload", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> "Workload":
        self._stop.set()
        if self._thread:
            self._thread.join(90)
            assert not self._thread.is_alive(), "the workload does not stop"
            self._thread = None
        assert not self.failures, self.failures
        return self

    def __enter__(self) -> "Workload":
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(90)

    def _resync(self) -> None:
        """Until the server answers again."""
        while not self._stop.wait(0.2):
            try:
                for table in self.tables:
                    table.resync()
                return
            except (grpc.RpcError, Refused, TimeoutError):
                pass

    # --- the steps
    def _some(self) -> int:
        return self.rng.choice([1, 2, 7, self.batch // 4 + 1, self.batch])

    def _where(self, table: Table) -> str:
        return "" if table.by_key else self.rng.choice(sorted(table.live) or [""])

    def _insert(self, table: Table) -> None:
        table.insert(self._some(), self._where(table))

    def _upsert(self, table: Table) -> None:
        if table.key.auto_id:
            return self._insert(table)  # Milvus refuses to upsert into an autoID collection
        with self.whole:
            table.upsert(self._some(), fresh=self.rng.choice([0, 0, 3]))

    def _delete(self, table: Table) -> None:
        table.delete(min(self._some(), table.rows // 4 + 1), everywhere=self.rng.random() < 0.5)

    def _reinsert(self, table: Table) -> None:
        table.reinsert(self._some(), self._where(table))

    def _bounce(self, table: Table) -> None:
        """Insert, delete and insert again, close together."""
        where = self._where(table)
        keys = table.insert(5, where)
        table.live[where or "_default"] = [k for k in table.live[where or "_default"] if k not in set(keys)]
        table.client.delete(table.name, f"{table.key.name} in [{','.join(map(m.quote, keys))}]")
        if not table.key.auto_id:
            table.insert(len(keys), where, keys)

    def _create_partition(self, table: Table) -> None:
        if table.by_key or len(table.live) >= 8:
            return
        if table in self.replaced:
            names = sorted({f"p{i}" for i in range(8)} - set(table.live))
            return table.create_partition(self.rng.choice(names))
        self._partition += 1
        table.create_partition(f"p{self._partition}")

    def _drop_partition(self, table: Table) -> None:
        droppable = [p for p in table.live if p != "_default"]
        if droppable:
            table.drop_partition(self.rng.choice(sorted(droppable)))

    def _replace(self, _table: Table) -> None:
        table = self.rng.choice(self.replaced)
        table.drop()
        table.create()
        if self.rng.random() < 0.5:
            table.create_index()
        table.insert(self._some())

    def _flush(self, table: Table) -> None:
        try:
            table.client.flush(table.name)
        except Refused:
            pass  # rate limited
