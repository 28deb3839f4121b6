"""`Nodes` tables made by hand, and simulated many times over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from store.schema import ABSENT_TOKEN, NOWHERE, PATH_END_TOKEN, REST_TOKEN, UNKNOWN_OUTCOME, ChildKind, ForcedKind
from store.tables import Nodes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Child:
    token: int
    probability: float
    kind: ChildKind = ChildKind.CANDIDATE
    next: int = NOWHERE
    stay: float = 1.0  #: on-path: probability of staying until `next`, given the child
    outcome: int = UNKNOWN_OUTCOME
    mean: float = float("nan")  #: true success rate of the child's own stratum, for simulations


@dataclass(frozen=True)
class Group:
    launch: int
    forced: ForcedKind
    forced_token: int
    exit_node: int
    exit_token: int
    n: int
    n_success: int
    half: int = 0


def rest(probability: float, mean: float = float("nan")) -> Child:
    return Child(REST_TOKEN, probability, ChildKind.REST, mean=mean)


def on_path(token: int, probability: float, next_row: int, stay: float = 1.0, mean: float = float("nan")) -> Child:
    return Child(token, probability, ChildKind.ON_PATH, next_row, stay, mean=mean)


def to_end(token: int, probability: float, outcome: int, stay: float = 1.0, mean: float = float("nan")) -> Child:
    return Child(token, probability, ChildKind.ON_PATH, NOWHERE, stay, outcome, mean)


def end(token: int, probability: float, outcome: int) -> Child:
    return Child(token, probability, ChildKind.END, outcome=outcome)


def make_nodes(
    children: Sequence[Sequence[Child]],
    groups: Sequence[Group] = (),
    *,
    teachers: tuple[str, ...] = (),
    teacher_MNK: Array | None = None,
    objectives: tuple[str, ...] = (),
    fbar_MNO: Array | None = None,
) -> Nodes:
    """A table of one question; node rows and child columns as given, teachers as probabilities."""
    N, K = len(children), max(map(len, children), default=1)
    absent = Child(ABSENT_TOKEN, 0.0, ChildKind.ABSENT, stay=float("nan"))
    rows = [[*row, *[absent] * (K - len(row))] for row in children]

    def table(name: str, dtype: str) -> NDArray[np.float64]:
        return np.array([[getattr(child, name) for child in row] for row in rows], dtype=dtype).reshape(N, K)

    def column(name: str) -> NDArray[np.int64]:
        return np.array([getattr(group, name) for group in groups], dtype=np.int64)

    kind_NK, next_NK = table("kind", "i8"), table("next", "i8")
    parent_N = np.full(N, NOWHERE)
    for row, column_ in zip(*np.nonzero(next_NK != NOWHERE), strict=True):
        parent_N[next_NK[row, column_]] = row
    with np.errstate(divide="ignore"):
        stay_NK, log_P_NK = np.log(table("stay", "f8")), np.log(table("probability", "f8"))
        teacher_logprob_MNK = np.zeros((0, N, K)) if teacher_MNK is None else np.log(teacher_MNK)
    return Nodes(
        question_N=np.zeros(N, dtype=np.int64),
        position_N=np.arange(N),
        parent_N=parent_N,
        nominated_by_N=np.ones(N, dtype=np.int64),
        token_NK=table("token", "i8").astype(np.int64),
        kind_NK=kind_NK.astype(np.int64),
        logprob_NK=np.where(kind_NK == ChildKind.ABSENT, np.nan, log_P_NK),
        child_nominated_by_NK=np.ones((N, K), dtype=np.int64),
        next_NK=next_NK.astype(np.int64),
        continue_logprob_NK=np.where(kind_NK == ChildKind.ON_PATH, stay_NK, np.nan),
        outcome_NK=table("outcome", "i8").astype(np.int64),
        group_launch_node_G=column("launch"),
        group_forced_kind_G=column("forced"),
        group_forced_token_G=column("forced_token"),
        group_exit_node_G=column("exit_node"),
        group_exit_token_G=column("exit_token"),
        group_half_G=column("half"),
        group_n_G=column("n"),
        group_n_success_G=column("n_success"),
        group_n_truncated_G=np.zeros(len(groups), dtype=np.int64),
        teachers=teachers,
        teacher_logprob_MNK=teacher_logprob_MNK,
        objectives=objectives,
        fbar_MNO=np.zeros((len(teachers), N, len(objectives))) if fbar_MNO is None else fbar_MNO,
    )


def repeat(nodes: Nodes, times: int, n_RG: NDArray[np.int64], n_success_RG: NDArray[np.int64]) -> Nodes:
    """The same nodes `times` over, each copy with completions of its own: copy r owns rows r N to (r + 1) N."""
    N, G = len(nodes), len(nodes.group_n_G)
    copy_N, copy_G = np.repeat(np.arange(times), N) * N, np.repeat(np.arange(times), G) * N

    def rows(a: NDArray[np.int64], copy: NDArray[np.int64]) -> NDArray[np.int64]:
        tiled = np.tile(a, (times, *[1] * (a.ndim - 1)))
        return np.where(tiled == NOWHERE, NOWHERE, tiled + copy.reshape(-1, *[1] * (a.ndim - 1)))

    def tiled(*names: str) -> dict[str, NDArray[np.int64]]:
        return {name: np.tile(a, (times, *[1] * (a.ndim - 1))) for name in names for a in [getattr(nodes, name)]}

    return replace(
        nodes,
        **tiled("position_N", "nominated_by_N", "token_NK", "kind_NK", "logprob_NK", "child_nominated_by_NK"),
        **tiled("continue_logprob_NK", "outcome_NK", "group_forced_kind_G", "group_forced_token_G", "group_exit_token_G"),
        **tiled("group_half_G"),
        question_N=np.repeat(np.arange(times), N),
        parent_N=rows(nodes.parent_N, copy_N),
        next_NK=rows(nodes.next_NK, copy_N),
        group_launch_node_G=rows(nodes.group_launch_node_G, copy_G),
        group_exit_node_G=rows(nodes.group_exit_node_G, copy_G),
        group_n_G=n_RG.ravel(),
        group_n_success_G=n_success_RG.ravel(),
        group_n_truncated_G=np.zeros(times * G, dtype=np.int64),
        teacher_logprob_MNK=np.tile(nodes.teacher_logprob_MNK, (1, times, 1)),
        fbar_MNO=np.tile(nodes.fbar_MNO, (1, times, 1)),
    )


def true_values(children: Sequence[Sequence[Child]]) -> tuple[list[list[float]], list[float]]:
    """p_succ of every child and V of every node, from the means of the strata. Next nodes have higher rows."""
    p: list[list[float]] = [[] for _ in children]
    V = [0.0] * len(children)
    for row in reversed(range(len(children))):
        for child in children[row]:
            ahead = V[child.next] if child.next != NOWHERE else float(child.outcome)
            goes_on = child.kind in (ChildKind.ON_PATH, ChildKind.END)
            own = 0.0 if np.isnan(child.mean) else child.mean
            stay = child.stay if child.kind == ChildKind.ON_PATH else 1.0
            p[row].append(stay * ahead + (1.0 - stay) * own if goes_on else own)
        V[row] = sum(child.probability * p_k for child, p_k in zip(children[row], p[row], strict=True))
    return p, V


def simulate(children: Sequence[Sequence[Child]], n: int, n_initial: int, times: int, seed: int) -> Nodes:
    """`times` independent studies of one tree: `n_initial` rollouts from the root, and `n` forced at every child,
    from the rest, and out of the gap of every on-path child; each then leaves the tree where chance takes it."""
    rng = np.random.default_rng(seed)
    launches = [(NOWHERE, ForcedKind.NONE, ABSENT_TOKEN, n_initial, _exits(children, 0, None))]
    for row, siblings in enumerate(children):
        for k, child in enumerate(siblings):
            if child.kind == ChildKind.REST:
                launches.append((row, ForcedKind.REST, ABSENT_TOKEN, n, [(row, REST_TOKEN, 1.0, child.mean)]))
            elif child.kind in (ChildKind.CANDIDATE, ChildKind.ON_PATH):
                launches.append((row, ForcedKind.TOKEN, child.token, n, _exits(children, row, k)))
            if child.kind == ChildKind.ON_PATH and child.stay < 1.0:
                launches.append((row, ForcedKind.GAP, child.token, n, [(row, child.token, 1.0, child.mean)]))
    groups, n_RG, n_success_RG = [], [], []
    for launch, forced, token, count, exits in launches:
        drawn_RS = rng.multinomial(count, [weight for _, _, weight, _ in exits], size=times)
        for s, (node, exit_token, _, mean) in enumerate(exits):
            groups.append(Group(launch, forced, token, node, exit_token, 0, 0))
            n_RG.append(drawn_RS[:, s])
            n_success_RG.append(rng.binomial(drawn_RS[:, s], mean))
    return repeat(make_nodes(children, groups), times, np.stack(n_RG, axis=1), np.stack(n_success_RG, axis=1))


def _exits(children: Sequence[Sequence[Child]], row: int, only: int | None) -> list[tuple[int, int, float, float]]:
    """Where a continuation of node `row` (of its child `only`) leaves the paths: node, token, probability, mean."""
    exits = []
    for k, child in enumerate(children[row]):
        if only is not None and k != only:
            continue
        weight = 1.0 if only is not None else child.probability
        if child.kind == ChildKind.END:
            exits.append((row, child.token, weight, float(child.outcome)))
        elif child.kind != ChildKind.ON_PATH:
            exits.append((row, child.token, weight, child.mean))
        else:
            if child.stay < 1.0:
                exits.append((row, child.token, weight * (1.0 - child.stay), child.mean))
            if child.next == NOWHERE:
                exits.append((row, PATH_END_TOKEN, weight * child.stay, float(child.outcome)))
            else:
                exits += [(r, t, weight * child.stay * w, m) for r, t, w, m in _exits(children, child.next, None)]
    return exits
