"""Is the target what the source is? A full comparison: attributes first, then every row with every column.

Order matters. Rows can only be queried in a loaded collection, and loading needs an index, so for each collection

1. the attributes are compared: schema, shards, consistency level, properties, partitions, indexes, load state, replicas;
2. only then, on a side where it is not loaded, a temporary index is made and the collection loaded;
3. for every partition, count(*) is compared and all rows are listed, with all columns, and compared;
4. what step 2 did is undone.

A key that is there twice is listed once by Milvus, but counted twice: that is why count(*) and the list are both needed.
Do not compare while migrans runs: it would copy the temporary index.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Sequence

import numpy as np
from pymilvus.grpc_gen import common_pb2, schema_pb2

from .client import BINARY_VECTOR, EVENTUALLY, FLOAT_VECTOR, MAX_LIMIT, VARCHAR, Client, quote

EXAMPLES = 5
READINGS = 5  # of a side that contradicts itself
PAGE_BYTES = 24 << 20  # the proxy sends at most 64 MiB
TEMPORARY_INDEX = "testbed_compare"


@dataclass
class CollectionResult:
    name: str
    source_rows: int = 0
    target_rows: int = 0
    differing: int = 0
    copies: int = 0   # rows at the source beyond one for each key
    bytes: int = 0
    problems: list[str] = field(default_factory=list)   # what is wrong beside rows
    examples: list[str] = field(default_factory=list)   # the first differing rows
    missing: list = field(default_factory=list)         # all keys that are on the source only, and
    surplus: list = field(default_factory=list)         # those that are on the target only

    @property
    def equal(self) -> bool:
        return not self.problems and self.differing == 0 and self.source_rows == self.target_rows


@dataclass
class Report:
    collections: list[CollectionResult]
    seconds: float

    @property
    def equal(self) -> bool:
        return all(c.equal for c in self.collections)

    @property
    def rows(self) -> int:
        return sum(c.source_rows for c in self.collections)

    def __getitem__(self, name: str) -> CollectionResult:
        return next(c for c in self.collections if c.name == name)

    def text(self) -> str:
        rows = [(c.name, f"{c.source_rows:,}", f"{c.target_rows:,}", f"{c.differing:,}", "equal" if c.equal else "DIFFERENT")
                for c in self.collections]
        out = [table(("collection", "source rows", "target rows", "differing", ""), rows, "<>>><")]
        for c in self.collections:
            out += [f"{c.name}: {line}" for line in c.problems + c.examples]
        return "\n".join(out)

    def assert_equal(self) -> "Report":
        assert self.collections, "nothing was compared: no collection matches"
        assert self.equal, "source and target differ\n" + self.text()
        return self


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]

    def line(cells):
        return "  ".join(f"{str(c):{a}{w}}" for c, a, w in zip(cells, align, widths)).rstrip()
    return "\n".join([line(head), "  ".join("─" * w for w in widths), *map(line, rows)])


def selected(client_of, names: Sequence[str], exclude: Sequence[str] = ()) -> set[tuple[str, str]]:
    """The (database, collection) pairs that match the patterns."""
    found = set()
    with client_of() as client:
        databases = client.list_databases()
    for database in databases:
        with client_of(database) as client:
            for collection in client.list_collections():
                full = f"{database}.{collection}"
                if any(fnmatchcase(full, n) for n in names) and not any(fnmatchcase(full, n) for n in exclude):
                    found.add((database, collection))
    return found


def compare(source, target, names: Sequence[str], exclude: Sequence[str] = (), *, rows: bool = True,
            duplicates: str = "", standby: bool = False, renamed: dict[str, str] | None = None) -> Report:
    """Compares all collections that match `names` ("database.collection", with * and ?), on either side.

    Keys that occur more than once in a partition are an error, unless `duplicates` says that they are expected: "equal", and
    the target has as many copies, or "fewer", and it has no more than the source. A query shows one copy, and not always the
    same, so that so many rows may differ. A `standby` has keys with autoID where the source has, and shows nothing unless its
    pipeline runs.

    `renamed` tells which collections have other names on the target: {"database.collection": "database.collection"}."""
    started = time.monotonic()
    pairs = {tuple(k.split(".")): tuple(v.split(".")) for k, v in (renamed or {}).items()}
    back = {v: k for k, v in pairs.items()}
    on_source = selected(source.client, names, exclude)
    on_target = {back.get(n, n) for n in selected(target.client, [*names, *(renamed or {}).values()], exclude)}

    def one(which: tuple[str, str]) -> CollectionResult:
        database, name = which
        result = CollectionResult(f"{database}.{name}")
        with contextlib.ExitStack() as stack:
            s = stack.enter_context(source.client(database)) if which in on_source else None
            there_database, there = pairs.get(which, which)
            t = stack.enter_context(target.client(there_database)) if which in on_target else None
            if not s or not t:
                result.problems.append(f"is on the {'source' if s else 'target'} only")
                result.differing = _count(s, name) if s else _count(t, there)
                if s:
                    result.source_rows = result.differing
                else:
                    result.target_rows = result.differing
                return result
            result.problems += _attribute_differences(attributes(s, name, expected_at_target=not standby), attributes(t, there))
            if rows:
                _compare_rows((s, name), (t, there), result, duplicates)
        return result

    # Loading is mostly waiting, so several collections are worked on together.
    with ThreadPoolExecutor(4) as pool:
        return Report(list(pool.map(one, sorted(on_source | on_target))), time.monotonic() - started)


# --- attributes ---------------------------------------------------------------------------------------------------------
def attributes(client: Client, name: str, expected_at_target: bool = False) -> dict[str, Any]:
    """Everything there is to know about a collection but its rows, as nested dicts without server-made ids.

    With `expected_at_target` an autoID key is shown as the plain key it has to become: the target takes the source's."""
    d = client.describe(name)
    data_type = schema_pb2.DataType.Name
    fields = {}
    for i, f in enumerate(d.schema.fields):
        fields[f.name] = {
            "position": i, "type": data_type(f.data_type), "element": data_type(f.element_type), "description": f.description,
            "primary": f.is_primary_key, "auto_id": f.autoID and not expected_at_target, "partition_key": f.is_partition_key,
            "dynamic": f.is_dynamic, "params": _dict(f.type_params), "default": f.default_value.SerializeToString().hex()}
    partitions = client.list_partitions(name)
    deadline = time.monotonic() + 60
    while (state := client.load_state(name)) == "Loading" and time.monotonic() < deadline:
        time.sleep(0.1)
    out = {
        "description": d.schema.description,
        "auto_id": d.schema.autoID and not expected_at_target,
        "dynamic": d.schema.enable_dynamic_field,
        "shards": d.shards_num,
        "consistency": common_pb2.ConsistencyLevel.Name(d.consistency_level),
        "properties": _dict(d.properties),
        "partition_count": d.num_partitions,
        "fields": fields,
        "partitions": partitions,
        "indexes": {i.index_name: {"field": i.field_name, "params": _dict(i.params)} for i in client.list_indexes(name)},
        "load": state,
        "replicas": client.replicas(name) if state == "Loaded" else 0,
        "loaded_partitions": [p for p in partitions if state != "NotLoad" and client.load_state(name, [p]) == "Loaded"],
    }
    return out


def _dict(pairs) -> dict[str, str]:
    return {p.key: p.value for p in pairs}


def _attribute_differences(a: Any, b: Any, path: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        out = []
        for key in [*a, *(k for k in b if k not in a)]:
            where = f"{path}.{key}" if path else str(key)
            if key not in a:
                out.append(f"{where}: only on the target: {b[key]!r}")
            elif key not in b:
                out.append(f"{where}: only on the source: {a[key]!r}")
            else:
                out += _attribute_differences(a[key], b[key], where)
        return out
    return [] if a == b else [f"{path}: {a!r} on the source, {b!r} on the target"]


# --- rows ---------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _queryable(client: Client, name: str):
    """Loads all of the collection, and afterwards puts index and load state back to what they were."""
    partitions = client.list_partitions(name)
    state = client.load_state(name)
    loaded = [p for p in partitions if state != "NotLoad" and client.load_state(name, [p]) == "Loaded"]
    if len(loaded) == len(partitions):
        yield
        return
    made = None
    if state == "NotLoad":
        indexed = {i.field_name for i in client.list_indexes(name)}
        for f in client.describe(name).schema.fields:
            if f.data_type in (BINARY_VECTOR, FLOAT_VECTOR) and f.name not in indexed:
                made = f.name
                flat = ("BIN_FLAT", "HAMMING") if f.data_type == BINARY_VECTOR else ("FLAT", "L2")
                client.create_index(name, f.name, {"index_type": flat[0], "metric_type": flat[1], "params": "{}"}, TEMPORARY_INDEX)
        client.load(name)
    else:
        client.load(name, [p for p in partitions if p not in loaded])
    try:
        yield
    finally:
        if state == "NotLoad":
            client.release(name)
            if made:
                client.drop_index(name, made, TEMPORARY_INDEX)
        else:
            client.release(name, [p for p in partitions if p not in loaded])


def read_rows(client: Client, name: str, partition: str) -> tuple[str, dict[str, np.ndarray], int]:
    """For a loaded collection: the key's name, all rows of the partition ("": of all) with all columns in key order, and count(*)."""
    schema = client.describe(name).schema
    key = next(f for f in schema.fields if f.is_primary_key)
    # For a collection with a dynamic field, describe does not list $meta, but a query gives it.
    output = [f.name for f in schema.fields] + (["$meta"] if schema.enable_dynamic_field else [])
    only = [partition] if partition else []
    count = client.count(name, partitions=only, consistency=EVENTUALLY)
    pages: list[dict[str, Any]] = []
    seen, limit, expr = 0, 1000, ""
    while seen < count:
        page = client.query(name, expr, output, partitions=only, limit=limit, consistency=EVENTUALLY)
        keys = page.get(key.name)
        if keys is None or len(keys) == 0:
            break  # count(*) was more than the list: some key is there several times
        # Milvus answers a limited query with the smallest keys, in the order of their bytes.
        order = np.argsort(_sortable(keys), kind="stable")
        pages.append({c: v[order] for c, v in page.items()})
        seen += len(keys)
        expr = f"{key.name} > {quote(pages[-1][key.name][-1])}"
        limit = int(min(MAX_LIMIT, max(1, PAGE_BYTES // max(1, _bytes(page) // len(keys)))))
    if not pages:
        return key.name, {key.name: np.empty(0, object if key.data_type == VARCHAR else np.int64)}, count
    return key.name, {c: np.concatenate([p[c] for p in pages]) for c in pages[0]}, count


def _sortable(keys: np.ndarray) -> np.ndarray:
    if keys.dtype != object:
        return keys
    out = np.empty(len(keys), object)
    out[:] = [k.encode("utf-8", "surrogatepass") for k in keys]
    return out


def _bytes(columns: dict[str, np.ndarray]) -> int:
    return sum(v.nbytes if v.dtype != object else sum(len(x) for x in v) for v in columns.values())


def _count(client: Client, name: str) -> int:
    with _queryable(client, name):
        return client.count(name)


def _read_all(client: Client, name: str, duplicates: str) -> tuple[int, dict[str, tuple[str, dict[str, np.ndarray], int]]]:
    """count(*) and every partition's rows.

    While a server moves segments about, an answer can show rows that are deleted already: 2.3.5 on an overloaded machine listed
    more keys than it counted, and counted more in the partitions than in all. Such a reading contradicts itself and is taken
    again; a server that goes on contradicting itself is compared as it is."""
    with _queryable(client, name):
        readings = 0
        while True:
            readings += 1
            # The one strong query: it waits until every shard has seen everything up to now. Nobody writes meanwhile, so
            # the queries after it need not wait for another tick each.
            total = client.count(name)
            partitions = client.list_partitions(name)
            if any(f.is_partition_key for f in client.describe(name).schema.fields):
                # Milvus places these rows by the partition key's value, and lets nobody name a partition.
                partitions = [""]
            rows = {p: read_rows(client, name, p) for p in partitions}
            counts = [(len(columns[key]), count) for key, columns, count in rows.values()]
            listed = all(keys <= count if duplicates else keys == count for keys, count in counts)
            if readings == READINGS or listed and sum(count for _, count in counts) == total:
                return total, rows
            time.sleep(2)


def _compare_rows(s: tuple[Client, str], t: tuple[Client, str], result: CollectionResult, duplicates: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        (result.source_rows, a), (result.target_rows, b) = pool.map(lambda side: _read_all(*side, duplicates), (s, t))
    for partition in sorted({*a, *b}):
        if partition in a and partition in b:
            (key, rows_a, count_a), (_, rows_b, count_b) = a[partition], b[partition]
            result.bytes += _bytes(rows_a)
            _compare_partition(partition, key, rows_a, rows_b, count_a, count_b, result, duplicates)
        else:  # that it is on one side only is noted with the attributes; its rows are differing rows
            result.differing += (a.get(partition) or b[partition])[2]


def _compare_partition(partition, key, a, b, count_a, count_b, result, duplicates) -> None:
    def example(k, text):
        if len(result.examples) < EXAMPLES:
            result.examples.append(f"{_in(partition)}key {_short(k)}: {text}")

    keys_a, keys_b = a[key], b[key]
    copies_a, copies_b = count_a - len(keys_a), count_b - len(keys_b)
    result.copies += copies_a
    if copies_a or copies_b:
        text = (f"{_in(partition)}count(*) exceeds the keys by {copies_a:,} on the source, {copies_b:,} on the target")
        if duplicates == "fewer" and copies_b < copies_a:
            result.source_rows -= copies_a - copies_b
        elif not duplicates or copies_a != copies_b:
            result.problems.append(text + ": keys are there several times")
            result.differing += max(1, abs(copies_a - copies_b))
    if len(keys_a) == len(keys_b) and bool(np.all(keys_a == keys_b)):
        at_a = at_b = np.arange(len(keys_a))
    else:
        place = {k: i for i, k in enumerate(keys_b.tolist())}
        found = [(i, place.pop(k)) for i, k in enumerate(keys_a.tolist()) if k in place]
        at_a = np.array([i for i, _ in found], np.int64)
        at_b = np.array([j for _, j in found], np.int64)
        lost = np.setdiff1d(np.arange(len(keys_a)), at_a, assume_unique=True)
        for i in lost[:EXAMPLES]:
            example(keys_a[i], "on the source only")
        for k in list(place)[:EXAMPLES]:
            example(k, "on the target only")
        result.missing += keys_a[lost].tolist()
        result.surplus += list(place)
        result.differing += len(lost) + len(place)
    if not len(at_a):
        return
    if a.keys() != b.keys():
        result.problems.append(f"{_in(partition)}columns {sorted(a)} on the source, {sorted(b)} on the target")
        result.differing += len(at_a)
        return
    differ, examples = np.zeros(len(at_a), bool), len(result.examples)
    for column in a:
        x, y = a[column][at_a], b[column][at_b]
        if x.shape != y.shape or x.dtype != y.dtype:
            result.problems.append(f"{_in(partition)}column {column}: {x.dtype}{x.shape} on the source, {y.dtype}{y.shape} on the target")
            result.differing += len(at_a)
            return
        unequal = _bits(x) != _bits(y)
        unequal = unequal.any(axis=1) if unequal.ndim == 2 else unequal.astype(bool)
        for i in np.flatnonzero(unequal)[:EXAMPLES]:
            example(x[i] if column == key else a[key][at_a[i]], f"{column} is {_short(x[i])} on the source, {_short(y[i])} on the target")
        differ |= unequal
    if duplicates and differ.sum() <= copies_a:
        del result.examples[examples:]
        return
    result.differing += int(differ.sum())


def _in(partition: str) -> str:
    return f"partition {partition}, " if partition else ""


def _bits(x: np.ndarray) -> np.ndarray:
    """Floats are compared as bits: -0.0 is not 0.0, and NaN is itself."""
    return x.view({4: np.uint32, 8: np.uint64}[x.dtype.itemsize]) if x.dtype.kind == "f" else x


def _short(value) -> str:
    text = repr(value.tolist() if isinstance(value, np.generic | np.ndarray) else value)
    return text if len(text) <= 120 else text[:117] + "..."
