"""Are `store` and `compute` ours? Both are generic names, which a file beside a notebook can take."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


class ForeignModule(ImportError):
    """Another module is in the place of one of ours."""


def check_packages() -> None:
    """Raise `ForeignModule`, naming the other file, unless `store` and `compute` lie beside this package."""
    home = Path(__file__).resolve().parent.parent
    for name in ("store", "compute"):
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):  # a module of that name is loaded already and is none of ours
            spec = None
        if spec is None:
            raise ForeignModule(f"The package `{name}` of opd-tui is missing from {home}; install opd-tui again.")
        found = Path(spec.origin).resolve() if spec.origin and spec.has_location else None
        if found != home / name / "__init__.py":
            where = found or next(iter(spec.submodule_search_locations or ()), "somewhere else")
            raise ForeignModule(
                f"The module `{name}` is {where}, not the one of opd-tui in {home / name}; rename it or leave its folder."
            )
