"""Children of `Nodes` tables made by hand; the tables themselves are made and simulated by the benchmarks' code."""

from __future__ import annotations

from benchmarks.made_tables import Child, Group, every_child, make_nodes, repeat, simulate, true_values
from store.schema import NOWHERE, REST_TOKEN, ChildKind

__all__ = ["Child", "Group", "end", "every_child", "make_nodes", "on_path", "repeat", "rest", "simulate", "to_end", "true_values"]


def rest(probability: float, mean: float = float("nan")) -> Child:
    return Child(REST_TOKEN, probability, ChildKind.REST, mean=mean)


def on_path(token: int, probability: float, next_row: int, stay: float = 1.0, mean: float = float("nan")) -> Child:
    return Child(token, probability, ChildKind.ON_PATH, next_row, stay, mean=mean)


def to_end(token: int, probability: float, outcome: int, stay: float = 1.0, mean: float = float("nan")) -> Child:
    return Child(token, probability, ChildKind.ON_PATH, NOWHERE, stay, outcome, mean)


def end(token: int, probability: float, outcome: int) -> Child:
    return Child(token, probability, ChildKind.END, outcome=outcome)
