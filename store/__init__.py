"""The store: what a study found, kept as chunked Zarr arrays that any Zarr reader opens.

``store.open(path)`` gives a reader; ``store.schema`` says what is kept. The package knows
numpy, zarr and tensorstore, nothing of models and nothing of screens, and importing it is cheap:
zarr and tensorstore are imported when a store is written or read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from store.reader import Store

__all__ = ["open"]


def open(path: str | PathLike[str], *, cache_bytes: int = 64 << 20) -> Store:  # noqa: A001  # the word that users type
    """Open the store at `path` for reading.

    `cache_bytes` bounds the memory that decoded chunks may take. Raises `store.errors.StoreError`
    where `path` is not a store, or one of a newer schema.
    """
    from store.reader import Store

    return Store(path, cache_bytes=cache_bytes)
