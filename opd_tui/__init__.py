"""opd-tui: the microscope for on-policy distillation.

``opd_tui.open(path)`` opens a store for reading, as ``store.open`` does, once it is sure whose ``store`` that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from store.reader import Store

__all__ = ["open"]
__version__ = "0.1.0"


def open(path: str | PathLike[str], *, cache_bytes: int = 64 << 20) -> Store:  # noqa: A001  # the word that users type
    """Open the store at `path` for reading; `cache_bytes` bounds the memory of decoded chunks.

    Raises `opd_tui.guard.ForeignModule` where another module named `store` or `compute` is in the way, and
    `store.errors.StoreError` where `path` is no store.
    """
    from opd_tui.guard import check_packages

    check_packages()
    import store

    return store.open(path, cache_bytes=cache_bytes)
