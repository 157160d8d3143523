"""Records metadata of a real Milvus 2.3.5 for the tests of the catalog.

From the top folder of the project, after testbed/install.sh:

    PYTHONPATH=. ~/.cache/migrans/testbed/venv/bin/python src/sources/catalog/testdata/record.py

It starts a server, makes what the tests look for, and writes milvus-2.3.5.txt beside itself: a line per etcd key, with
the value in hexadecimal. Ids and times differ with every recording; the tests know things by their names.
"""

import time
from pathlib import Path

from pymilvus import Collection, CollectionSchema, DataType, FieldSchema, connections, db

from testbed import Milvus

PARTS = ["root-coord/database/", "root-coord/partitions/", "root-coord/fields/", "field-index/", "querycoord-collection-loadinfo/",
         "querycoord-partition-loadinfo/", "snapshots/root-coord/database/collection-info/", "snapshots/root-coord/partitions/",
         "session/rootcoord"]


def main() -> None:
    with Milvus("recorded") as milvus:
        host, port = milvus.address.split(":")
        connections.connect(host=host, port=port)
        db.create_database("shop")
        db.create_database("empty")
        db.using_database("shop")
        every = Collection("every", CollectionSchema([
            FieldSchema("key", DataType.VARCHAR, is_primary=True, max_length=200, description="the key"),
            FieldSchema("number", DataType.INT16),
            FieldSchema("list", DataType.ARRAY, element_type=DataType.INT32, max_capacity=9),
            FieldSchema("vector", DataType.FLOAT_VECTOR, dim=8),
        ], description="all attributes – ünïcode", enable_dynamic_field=True), num_shards=2, consistency_level="Session",
            properties={"collection.ttl.seconds": 1800})
        for name in ("kept", "released", "dropped"):
            every.create_partition(name)
        every.create_index("vector", {"index_type": "FLAT", "metric_type": "IP", "params": {}}, index_name="former")
        every.drop_index(index_name="former")
        every.create_index("vector", {"index_type": "IVF_FLAT", "metric_type": "L2", "params": {"nlist": 16}}, index_name="by_vector")
        every.create_index("number", index_name="by_number")
        every.load()
        every.partition("released").release()
        every.partition("dropped").release()
        every.drop_partition("dropped")
        db.using_database("default")
        keyed = Collection("keyed", CollectionSchema([
            FieldSchema("id", DataType.INT64, is_primary=True, auto_id=True),
            FieldSchema("tenant", DataType.INT64, is_partition_key=True),
            FieldSchema("bits", DataType.BINARY_VECTOR, dim=16),
        ]), num_partitions=3)
        keyed.create_index("bits", {"index_type": "BIN_FLAT", "metric_type": "HAMMING", "params": {}})
        keyed.load()
        plain = [FieldSchema("id", DataType.INT64, is_primary=True), FieldSchema("vector", DataType.FLOAT_VECTOR, dim=8)]
        auto = Collection("auto", CollectionSchema(plain))
        auto.create_index("vector", {})
        Collection("gone", CollectionSchema(plain)).drop()
        time.sleep(2)  # what was dropped is "Dropping" now; the tombstones come minutes later
        values = {}
        for part in PARTS:
            values.update(milvus.etcd.get(f"by-dev/meta/{part}", prefix=True))
    lines = [f"{key.decode()} {value.hex()}" for key, value in sorted(values.items())]
    head = "# Recorded by record.py from Milvus 2.3.5: etcd key, value in hexadecimal.\n"
    (Path(__file__).parent / "milvus-2.3.5.txt").write_text(head + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
