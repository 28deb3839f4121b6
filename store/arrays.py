"""Reads slices of a store's arrays through TensorStore: many at once, checked, within a bound of memory.

TensorStore is imported when the first array is read. It must not be used across a fork.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from store.encoding import array_metadata
from store.errors import StoreError
from store.parts import Array
from store.place import METADATA, Folder, PathLike, Place, parse, unreachable
from store.schema import ArraySpec

if TYPE_CHECKING:
    import tensorstore

#: A read for the screen above this is no real page: the store is damaged, or lies.
PAGE_BYTES = 1 << 30
#: A decoded chunk of a real store is below 1 MB.
MAX_CHUNK_BYTES = 64 << 20
#: Open arrays kept at hand; each costs some 10 KB, and a page with four teachers has 140. Fewer beside a small cache.
MAX_OPEN, LEAST_OPEN, CACHE_PER_OPEN = 1024, 192, 64 << 10
#: A process grows by about three times what TensorStore's pool of chunks may take: what its threads free, they keep.
POOL_SHARE = 3


class Slice(Struct, frozen=True):
    """Rows `start` to `stop` of one array. `shape` is what the array must have; None: whatever it has, and all of it."""

    folder: str  #: inside the store, such as "student/p-1"
    name: str
    spec: ArraySpec
    shape: tuple[int, ...] | None = None
    start: int = 0
    stop: int = 0

    @property
    def key(self) -> str:
        """Path of the array inside the store."""
        return f"{self.folder}/{self.name}"

    @property
    def read_shape(self) -> tuple[int, ...] | None:
        """Shape of what is read, where it is known beforehand."""
        return None if self.shape is None else (self.stop - self.start, *self.shape[1:])


def shape_of(spec: ArraySpec, counts: Mapping[str, int], where: str) -> tuple[int, ...]:
    """Shape of an array of a part whose axes have `counts`. Raises StoreError where a count is missing."""
    try:
        return tuple(counts[dim.removesuffix("_bound")] + 1 if dim.endswith("_bound") else counts[dim] for dim in spec.dims)
    except KeyError as error:
        raise StoreError(f"{where}/{METADATA} is damaged: it has no count of {error.args[0]} rows") from error


class ArrayReader:
    """Open arrays of one store, and one cache of decoded chunks for all of them. Safe to share between threads."""

    def __init__(self, root: Place | PathLike, cache_bytes: int, *, once: bool = False) -> None:
        """`cache_bytes`: what the cache may have the process grow by. `once`: no array is kept open, for each is read once."""
        self._root = parse(root)
        self._kvstore = self._root.kvstore()
        self._cache_bytes = cache_bytes
        self._max_open = 0 if once else min(MAX_OPEN, max(LEAST_OPEN, cache_bytes // CACHE_PER_OPEN))
        self._context: tensorstore.Context | None = None
        self._open: dict[str, tensorstore.TensorStore] = {}
        self._told: set[str] = set()  # of these the metadata were read from their file, not taken from the schema

    def read(self, slices: Sequence[Slice], limit: int = PAGE_BYTES) -> list[Array]:
        """Read all `slices` at once: every read is under way before the first is waited for.

        Raises StoreError, naming the file, where one is missing, damaged or not of the schema, and
        where all together would take more than `limit` bytes.
        """
        wanted = [piece for piece in slices if piece.read_shape is None or 0 not in piece.read_shape]
        total = sum(_bytes_of(piece) for piece in wanted)
        if total > limit:
            raise StoreError(f"{self._root} asks for {total >> 20} MB at once, beginning with {wanted[0].key}; it is damaged")
        handles = self._handles(wanted)
        futures = []
        for piece in wanted:
            handle = handles[piece.key]
            futures.append((handle[piece.start : piece.stop] if piece.shape is not None else handle).read())
        results: dict[int, Array] = {}
        for piece, future in zip(wanted, futures, strict=True):
            try:
                results[id(piece)] = np.asarray(future.result())
            except Exception as error:  # TensorStore has a built-in class of exception for each kind of failure
                results[id(piece)] = self._read_by_itself(piece, error)
        return [results[id(piece)] if id(piece) in results else _empty(piece) for piece in slices]

    def _read_by_itself(self, piece: Slice, failed: Exception) -> Array:
        """Read once more, by what the array says of itself: it may be packed in another way than this version packs."""
        error = failed
        if piece.key not in self._told:
            self._open.pop(piece.key, None)
            handle = self._handles([piece], assume=False)[piece.key]
            try:
                return np.asarray(handle[piece.start : piece.stop].read().result())
            except Exception as again:  # as above
                error = again
        raise self._failed(piece, "/".join(["c", *"0" * len(piece.spec.dims)]), error) from error

    def _handles(self, slices: Sequence[Slice], *, assume: bool = True) -> dict[str, tensorstore.TensorStore]:
        """Open arrays. Where the shape is known, so is all of an array's metadata: with `assume` its file is not read."""
        handles = {piece.key: self._open[piece.key] for piece in slices if piece.key in self._open}
        missing = {piece.key: piece for piece in slices if piece.key not in handles}
        if not missing:
            return handles
        import tensorstore

        context = self._context or tensorstore.Context({"cache_pool": {"total_bytes_limit": self._cache_bytes // POOL_SHARE}})
        self._context = context
        futures = {}
        for key, piece in missing.items():
            known = assume and piece.shape is not None
            spec = self._spec(key) | ({"metadata": array_metadata(piece.spec, piece.shape or ())} if known else {})
            futures[key] = tensorstore.open(spec, open=True, read=True, assume_metadata=known, context=context)
            (self._told.discard if known else self._told.add)(key)
        for key, future in futures.items():
            piece = missing[key]
            try:
                handle = future.result()
            except Exception as error:  # as above
                raise self._failed(piece, METADATA, error) from error
            self._check(piece, handle)
            handles[key] = handle
        if self._max_open:
            self._keep({key: handles[key] for key in missing})
        return handles

    def _keep(self, handles: dict[str, tensorstore.TensorStore]) -> None:
        """Have these arrays at hand, and of others the newest that there is room for."""
        if len(self._open) + len(handles) > self._max_open:
            self._open = dict(list(self._open.items())[-self._max_open // 2 :])
        self._open.update(handles)

    def _spec(self, key: str) -> dict[str, Any]:
        """How an array is opened."""
        return {
            "driver": "zarr3",
            "kvstore": {**self._kvstore, "path": f"{self._kvstore['path']}{key}/"},
            # Chunks of fill values are written too, so what is missing is damage, and never a number.
            "fill_missing_data_reads": False,
            # Parts never change: no look at the file's date on each read.
            "recheck_cached_metadata": False,
            "recheck_cached_data": False,
        }

    def _check(self, piece: Slice, handle: tensorstore.TensorStore) -> None:
        """Raise StoreError unless the array is what the schema and the commit record say."""
        dtype, found = np.dtype(piece.spec.dtype), handle.dtype.name
        if found != dtype.name:
            raise self._wrong(piece, f"the array is {found} instead of {dtype.name}")
        if handle.rank != len(piece.spec.dims) or (piece.shape is not None and handle.shape != piece.shape):
            raise self._wrong(piece, f"the array has shape {handle.shape} instead of {piece.shape}")
        chunk_bytes = dtype.itemsize
        for size in handle.chunk_layout.read_chunk.shape or ():
            chunk_bytes *= size or 1
        whole = handle.size * dtype.itemsize if piece.shape is None else 0
        if chunk_bytes > MAX_CHUNK_BYTES or whole > PAGE_BYTES:
            raise self._wrong(piece, f"it announces {max(chunk_bytes, whole) >> 20} MB in one piece")

    def _wrong(self, piece: Slice, reason: str) -> StoreError:
        return StoreError(f"{self._root / piece.key / METADATA} is damaged: {reason}")

    def _failed(self, piece: Slice, file_name: str, error: Exception) -> StoreError:
        # TensorStore remembers what was missing as well as what was there: the next try begins with nothing.
        self._context, self._open = None, {}
        file = self._root / piece.key / file_name
        reason = " ".join(str(error).split())[:160]
        if "ignored by server" in str(error) or "HTTP code 416" in str(error):
            return StoreError(f"{file} cannot be read: its server does not send the last bytes of a file; use one that does")
        if isinstance(file, Folder):
            what = "is damaged" if file.exists() else "is missing"
        elif "NOT_FOUND" in reason or "DATA_LOSS" in reason or "zarr" in reason.lower():
            what = "is missing" if "NOT_FOUND" in reason else "is damaged"
        else:
            return unreachable(file, error)
        return StoreError(f"{file} {what}; copy the store again, or compute it anew ({reason})")


def _bytes_of(piece: Slice) -> int:
    size = np.dtype(piece.spec.dtype).itemsize
    for length in piece.read_shape or (0,):
        size *= length
    return size


def _empty(piece: Slice) -> Array:
    return np.empty(piece.read_shape or (0,), piece.spec.dtype)
