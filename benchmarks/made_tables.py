"""`Nodes` tables made from a tree whose truth is known, and completions drawn for them many times over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from compute.allocation import Allotment, Tree, tree
from store.schema import ABSENT_TOKEN, NOWHERE, PATH_END_TOKEN, REST_TOKEN, UNKNOWN_OUTCOME, ChildKind, ForcedKind, path_end
from store.tables import Nodes

Array = NDArray[np.float64]
Int = NDArray[np.int64]


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


@dataclass(frozen=True)
class Launch:
    """`n` completions launched at one place of a tree."""

    row: int
    forced: ForcedKind
    n: int
    column: int = NOWHERE  #: of the child that is forced, or whose gap is left
    reach: float = 1.0  #: of unforced ones, launched above: the share that passes `row`


def make_nodes(
    children: Sequence[Sequence[Child]],
    groups: Sequence[Group] = (),
    *,
    teachers: tuple[str, ...] = (),
    teacher_MNK: Array | None = None,
    objectives: tuple[str, ...] = (),
    fbar_MNO: Array | None = None,
    question_N: Int | None = None,
) -> Nodes:
    """Node rows and child columns as given, teachers as probabilities; of one question unless `question_N` says more."""
    N, K = len(children), max(map(len, children), default=1)
    absent = Child(ABSENT_TOKEN, 0.0, ChildKind.ABSENT, stay=float("nan"))
    rows = [[*row, *[absent] * (K - len(row))] for row in children]

    def table(name: str, dtype: str) -> NDArray[np.float64]:
        return np.array([[getattr(child, name) for child in row] for row in rows], dtype=dtype).reshape(N, K)

    def column(name: str) -> Int:
        return np.array([getattr(group, name) for group in groups], dtype=np.int64)

    kind_NK, next_NK = table("kind", "i8"), table("next", "i8")
    parent_N = np.full(N, NOWHERE)
    for row, column_ in zip(*np.nonzero(next_NK != NOWHERE), strict=True):
        parent_N[next_NK[row, column_]] = row
    with np.errstate(divide="ignore"):
        stay_NK, log_P_NK = np.log(table("stay", "f8")), np.log(table("probability", "f8"))
        teacher_logprob_MNK = np.zeros((0, N, K)) if teacher_MNK is None else np.log(teacher_MNK)
    return Nodes(
        question_N=np.zeros(N, dtype=np.int64) if question_N is None else question_N,
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


def repeat(nodes: Nodes, times: int, n_RG: Int, n_success_RG: Int) -> Nodes:
    """The same nodes `times` over, each copy with completions of its own: copy r owns rows r N to (r + 1) N.

    Questions are copied too: those of copy r follow those of copy r - 1.
    """
    N, G = len(nodes), len(nodes.group_n_G)
    n_questions = int(nodes.question_N.max(initial=0)) + 1
    copy_N, copy_G = np.repeat(np.arange(times), N) * N, np.repeat(np.arange(times), G) * N

    def rows(a: NDArray[np.integer[Any]], copy: Int) -> Int:
        tiled = np.tile(a, (times, *[1] * (a.ndim - 1)))
        return np.where(tiled == NOWHERE, NOWHERE, tiled + copy.reshape(-1, *[1] * (a.ndim - 1)))

    def tiled(*names: str) -> dict[str, Int]:
        return {name: np.tile(a, (times, *[1] * (a.ndim - 1))) for name in names for a in [getattr(nodes, name)]}

    return replace(
        nodes,
        **tiled("position_N", "nominated_by_N", "token_NK", "kind_NK", "logprob_NK", "child_nominated_by_NK"),
        **tiled("continue_logprob_NK", "outcome_NK", "group_forced_kind_G", "group_forced_token_G", "group_exit_token_G"),
        **tiled("group_half_G"),
        question_N=np.tile(nodes.question_N, times) + np.repeat(np.arange(times), N) * n_questions,
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


def every_child(children: Sequence[Sequence[Child]], n: int, n_initial: int = 0) -> list[Launch]:
    """As the paper does and more: `n` forced at every child, `n` from the rest, `n` out of the gap of every on-path
    child; and `n_initial` rollouts from row 0."""
    launches = [Launch(0, ForcedKind.NONE, n_initial)]
    for row, siblings in enumerate(children):
        for k, child in enumerate(siblings):
            if child.kind == ChildKind.REST:
                launches.append(Launch(row, ForcedKind.REST, n, k))
            elif child.kind in (ChildKind.CANDIDATE, ChildKind.ON_PATH):
                launches.append(Launch(row, ForcedKind.TOKEN, n, k))
            if child.kind == ChildKind.ON_PATH and child.stay < 1.0:
                launches.append(Launch(row, ForcedKind.GAP, n, k))
    return launches


def shares(children: Sequence[Sequence[Child]], n_min: int) -> list[Launch]:
    """As `compute.allocation.shares`: N_min a candidate, a quarter for the rest, its share of N_min for a gap, none
    forced on a path."""
    launches = []
    for row, siblings in enumerate(children):
        for k, child in enumerate(siblings):
            if child.kind == ChildKind.CANDIDATE:
                launches.append(Launch(row, ForcedKind.TOKEN, n_min, k))
            elif child.kind == ChildKind.REST:
                launches.append(Launch(row, ForcedKind.REST, max(3, -(-n_min // 4)), k))
            elif child.kind == ChildKind.ON_PATH and child.stay < 1.0:
                launches.append(Launch(row, ForcedKind.GAP, max(3, int(np.ceil(n_min * (1.0 - child.stay)))), k))
    return launches


def trees(nodes: Nodes) -> list[tuple[Int, Tree]]:
    """The rows and the tree of every question: each has a budget of its own."""
    found = []
    for number in np.unique(nodes.question_N):
        rows = np.flatnonzero(nodes.question_N == number)
        next_NK = nodes.next_NK[rows]
        inside_NK = np.where(next_NK == NOWHERE, NOWHERE, next_NK - rows[0])
        columns = (nodes.kind_NK[rows], nodes.logprob_NK[rows], inside_NK, nodes.continue_logprob_NK[rows])
        found.append((rows, tree(*columns)))
    return found


def allotted(nodes: Nodes, allotments: Sequence[Allotment]) -> list[Launch]:
    """The launches of allotments to the questions of a table, in the order of `trees`."""
    own_kind = {ChildKind.CANDIDATE: ForcedKind.TOKEN, ChildKind.REST: ForcedKind.REST, ChildKind.ON_PATH: ForcedKind.GAP}
    found = []
    for (rows, _), given in zip(trees(nodes), allotments, strict=True):
        for row, child in np.argwhere(given.own_NK > 0).tolist():
            at = int(rows[row])
            found.append(Launch(at, own_kind[ChildKind(int(nodes.kind_NK[at, child]))], int(given.own_NK[row, child]), child))
        for row, child in np.argwhere(given.through_NK > 0).tolist():
            found.append(Launch(int(rows[row]), ForcedKind.TOKEN, int(given.through_NK[row, child]), child))
    return found


def simulate(
    children: Sequence[Sequence[Child]], launches: Sequence[Launch], *, times: int, seed: int, table: Nodes | None = None
) -> Nodes:
    """`times` independent studies of one tree (or of several, end to end): every launch leaves the tree where chance
    takes it. Halves go by the parity of a completion's number within its launch. `table` has the teachers."""
    rng = np.random.default_rng(seed)
    groups, n_RG, n_success_RG = [], [], []
    for launch in launches:
        exits = _launched(children, launch)
        weights = np.array([weight for _, _, weight, _ in exits])
        column = children[launch.row][launch.column] if launch.column != NOWHERE else None
        forced_token = ABSENT_TOKEN if column is None or launch.forced == ForcedKind.REST else column.token
        at = NOWHERE if launch.forced == ForcedKind.NONE else launch.row
        for half, n in enumerate(((launch.n + 1) // 2, launch.n // 2)):
            drawn_RS = rng.multinomial(n, weights / weights.sum(), size=times) if n else np.zeros((times, 0), np.int64)
            for drawn_R, (node, exit_token, _, mean) in zip(drawn_RS.T, exits, strict=False):
                groups.append(Group(at, launch.forced, forced_token, node, exit_token, 0, 0, half))
                n_RG.append(drawn_R)
                n_success_RG.append(rng.binomial(drawn_R, mean))
    made = make_nodes(children, groups)
    if table is not None:
        made = replace(table, **{name: getattr(made, name) for name in made.__struct_fields__ if name.startswith("group_")})
    shape = (len(groups), times)
    return repeat(made, times, np.reshape(n_RG, shape).T, np.reshape(n_success_RG, shape).T)


Exit = tuple[int, int, float, float]  #: node, token, probability, mean


def _launched(children: Sequence[Sequence[Child]], launch: Launch) -> list[Exit]:
    if launch.forced == ForcedKind.NONE:
        passing = [(node, token, launch.reach * weight, mean) for node, token, weight, mean in _exits(children, launch.row, None)]
        left_before = [(NOWHERE, PATH_END_TOKEN, 1.0 - launch.reach, 0.0)] if launch.reach < 1.0 else []
        return passing + left_before
    child = children[launch.row][launch.column]
    if launch.forced == ForcedKind.TOKEN:
        return _exits(children, launch.row, launch.column)
    return [(launch.row, REST_TOKEN if launch.forced == ForcedKind.REST else child.token, 1.0, child.mean)]


def _exits(children: Sequence[Sequence[Child]], row: int, only: int | None) -> list[Exit]:
    """Where a continuation of node `row` (of its child `only`) leaves the paths."""
    exits: list[Exit] = []
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
                exits.append((row, path_end(child.token), weight * child.stay, float(child.outcome)))
            else:
                exits += [(r, t, weight * child.stay * w, m) for r, t, w, m in _exits(children, child.next, None)]
    return exits
