"""What a store is scored under: the study's own objectives and any others, and how tokens that are no kept children take part."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Support = Literal["sliced", "renormalised", "lumped"]  #: as `compute.alignment` has them, which needs numpy
SUPPORTS: tuple[Support, ...] = ("sliced", "renormalised", "lumped")


class View(Struct, frozen=True):
    """A way to score: everything that is derived from scores follows it."""

    objectives: tuple[str, ...] = ()  #: beside the study's, and after them
    support: Support = "sliced"


OWN = View()
