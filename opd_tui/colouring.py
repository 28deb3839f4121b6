"""How the tokens of a rollout are coloured: values on a scale."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from opd_tui.palette import Scale


class Colouring(Struct, frozen=True):
    """A value for every token (NaN: none here), the scale it is read on, and where its sign is uncertain."""

    values: Sequence[float]
    scale: Scale
    uncertain: frozenset[int] = frozenset()


NO_COLOURING = Colouring((), Scale(0.0, 1.0, diverging=False))
