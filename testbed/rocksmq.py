"""The RocksMQ store of a stopped Milvus, through the C interface of the RocksDB library that the server brings along.

Only for making damage on purpose: what Milvus' own retention does after days, `trim` does at once.
"""

from __future__ import annotations

import ctypes as c
from contextlib import contextmanager
from pathlib import Path

from .server import home

FAMILIES = (b"default", b"properties")


def _library():
    lib = c.CDLL(str(home() / "bin" / "librocksdb.so.6"))
    for name in ("options_create", "readoptions_create", "writeoptions_create", "open_column_families", "create_iterator_cf",
                 "iter_key", "iter_value", "flushoptions_create"):
        getattr(lib, "rocksdb_" + name).restype = c.c_void_p
    lib.rocksdb_iter_valid.restype = c.c_ubyte
    return lib


def _check(error: c.c_char_p) -> None:
    if error.value:
        raise RuntimeError(error.value.decode("utf-8", "replace"))


class Store:
    def __init__(self, lib, db, family):
        self._lib, self._db, self._family = lib, c.c_void_p(db), c.c_void_p(family)

    def keys(self, prefix: str = "") -> list[str]:
        """All keys, "<topic>/<message id>", in order."""
        lib, out, size = self._lib, [], c.c_size_t()
        it = c.c_void_p(lib.rocksdb_create_iterator_cf(self._db, c.c_void_p(lib.rocksdb_readoptions_create()), self._family))
        raw = prefix.encode()
        lib.rocksdb_iter_seek(it, raw, c.c_size_t(len(raw)))
        while lib.rocksdb_iter_valid(it):
            key = c.string_at(lib.rocksdb_iter_key(it, c.byref(size)), size.value).decode()
            if not key.startswith(prefix):
                break
            out.append(key)
            lib.rocksdb_iter_next(it)
        lib.rocksdb_iter_destroy(it)
        return out

    def delete_range(self, first: str, end: str) -> None:
        """Deletes first <= key < end, the way Milvus does."""
        error, a, b = c.c_char_p(), first.encode(), end.encode()
        self._lib.rocksdb_delete_range_cf(self._db, c.c_void_p(self._lib.rocksdb_writeoptions_create()), self._family,
                                          a, c.c_size_t(len(a)), b, c.c_size_t(len(b)), c.byref(error))
        _check(error)


@contextmanager
def open_store(path: Path):
    """The store in `path`, whose Milvus must not be running."""
    lib, error = _library(), c.c_char_p()
    options = c.c_void_p(lib.rocksdb_options_create())
    names = (c.c_char_p * len(FAMILIES))(*FAMILIES)
    each = (c.c_void_p * len(FAMILIES))(*[options] * len(FAMILIES))
    handles = (c.c_void_p * len(FAMILIES))()
    db = lib.rocksdb_open_column_families(options, str(path).encode(), len(FAMILIES), names, each, handles, c.byref(error))
    _check(error)
    try:
        yield Store(lib, db, handles[0])
    finally:
        for handle in handles:
            lib.rocksdb_column_family_handle_destroy(c.c_void_p(handle))
        lib.rocksdb_close(c.c_void_p(db))


def trim(path: Path, topics: str, keep: int) -> dict[str, tuple[str, str]]:
    """Removes all but the newest `keep` messages of each topic whose name starts with `topics`; says which ranges went."""
    gone = {}
    with open_store(path) as store:
        by_topic: dict[str, list[str]] = {}
        for key in store.keys(topics):
            by_topic.setdefault(key.rpartition("/")[0], []).append(key)
        for topic, keys in by_topic.items():
            if len(keys) > keep:
                store.delete_range(keys[0], keys[-keep])
                gone[topic] = keys[0].rpartition("/")[2], keys[-keep - 1].rpartition("/")[2]
    return gone
