"""How an array lies in its files: chunk lengths, codecs, and the Zarr v3 metadata that follow from the schema alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from store.schema import ArraySpec

LEVEL = 3  #: of zstd


def grid(shape: tuple[int, ...], chunk: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of chunks, `chunk` rows each, and of the one shard that covers the array."""
    rows, *rest = (max(1, size) for size in shape)
    chunk = min(chunk, rows)
    return (chunk, *rest), (-(-rows // chunk) * chunk, *rest)


def array_metadata(spec: ArraySpec, shape: tuple[int, ...]) -> dict[str, Any]:
    """The ``zarr.json`` that an array of this shape has, as the writer makes it."""
    chunks, shards = grid(shape, spec.chunk)
    dtype = np.dtype(spec.dtype)
    endian = {"endian": "little"} if dtype.itemsize > 1 else {}
    little: dict[str, Any] = {"name": "bytes", "configuration": endian} if endian else {"name": "bytes"}
    blosc = {"typesize": dtype.itemsize, "cname": "zstd", "clevel": LEVEL, "shuffle": spec.packing, "blocksize": 0}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shards)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if dtype.kind == "f" else spec.absent,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(chunks),
                    "codecs": [little, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}],
                    "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                    "index_location": "end",
                },
            }
        ],
        "attributes": {},
        "dimension_names": list(spec.dims),
        "storage_transformers": [],
    }
