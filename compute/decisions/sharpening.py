"""Whether a teacher is the student at another temperature: it knows nothing, and what it earns is sharpening (method.md 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from store.schema import ChildKind
from store.tables import Nodes

Array = NDArray[np.float64]

#: Share of the variance of log T that log P explains within nodes, from which on a teacher is a temperature.
EXPLAINED = 0.999
#: Children that must be there to say so.
MIN_CHILDREN = 40
SHARPENED = (
    "{teacher} is the student at temperature {temperature:.2g}, so whatever it gains it gains through {what}; "
    "a lower or higher sampling temperature does the same."
)


def temperature_of(nodes: Nodes, teacher: str) -> float | None:
    """The temperature at which the student is this teacher, told from the children of all nodes; None where it is no such.

    T ∝ P^(1/t) makes log T a line in log P within every node, with slope 1/t. A teacher that equals the student is none.
    """
    m = nodes.teachers.index(teacher)
    log_P_NK, log_T_NK = nodes.logprob_NK.astype(np.float64), nodes.teacher_logprob_MNK[m].astype(np.float64)
    token_NK = np.isin(nodes.kind_NK, (ChildKind.CANDIDATE, ChildKind.ON_PATH, ChildKind.END))
    there_NK = token_NK & np.isfinite(log_P_NK) & np.isfinite(log_T_NK)
    there_NK &= there_NK.sum(axis=1, keepdims=True) >= 2
    if there_NK.sum() < MIN_CHILDREN:
        return None
    x_NK, y_NK = _centred(log_P_NK, there_NK), _centred(log_T_NK, there_NK)
    xx, xy, yy = (x_NK**2).sum(), (x_NK * y_NK).sum(), (y_NK**2).sum()
    if not (xx > 0.0 and yy > 0.0 and xy > 0.0) or xy * xy < EXPLAINED * xx * yy:
        return None
    temperature = float(xx / xy)
    return temperature if abs(temperature - 1.0) > 0.01 else None


def sharpening_note(teacher: str, temperature: float) -> str:
    """The sentence that names such a teacher for what it is."""
    what = "sharpening" if temperature < 1.0 else "flattening"
    return SHARPENED.format(teacher=teacher, temperature=temperature, what=what)


def _centred(value_NK: Array, there_NK: NDArray[np.bool_]) -> Array:
    value_NK = np.where(there_NK, value_NK, 0.0)
    mean_N1 = value_NK.sum(axis=1, keepdims=True) / np.maximum(there_NK.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(there_NK, value_NK - mean_N1, 0.0), dtype=np.float64)
