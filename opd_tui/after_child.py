"""Completions that went through a child of a node, and what the student wrote after it: whatever launched them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from store.schema import REST_TOKEN, ForcedKind
from store.tables import Completion, Int, Nodes, Rollout


class After(NamedTuple):
    """A completion, and its tokens from the child on: without the child's own, but with the one drawn for the rest."""

    completion: Completion
    token_ids: Int


def after_child(
    nodes: Nodes, rollouts: Iterable[Rollout], completions: Iterable[Completion], node: int, token_id: int
) -> list[After]:
    """Those of `completions` that came by the child `token_id` of the row `node`: right ones first, the shortest of each first.

    `nodes`, `rollouts` (the paths) and `completions` are those of one question. A completion is told by its tokens: one launched
    here, one launched before that came this way, and one launched further on all say how it ends after this child.
    """
    there = [rollout for rollout in rollouts if len(rollout.node_P)]
    position = int(nodes.position_N[node])
    prefix = _path(nodes, there, node, None)[:position]
    children_K = nodes.token_NK[node]
    found = []
    for one in completions:
        path = _path(nodes, there, one.launch_node, one.exit_token if one.forced_kind is ForcedKind.GAP else None)
        whole = np.concatenate([path[: one.position], one.token_ids])
        if len(whole) <= position or not np.array_equal(whole[:position], prefix):
            continue
        if token_id == REST_TOKEN and whole[position] not in children_K:
            found.append(After(one, whole[position:]))
        elif whole[position] == token_id:
            found.append(After(one, whole[position + 1 :]))
    return sorted(found, key=lambda one: (not one.completion.correct, len(one.token_ids), one.completion.sample))


def _path(nodes: Nodes, rollouts: Sequence[Rollout], node: int, token: int | None) -> Int:
    """Tokens of a path on which `node` lies, of one that goes on with `token` where that is named."""
    for rollout in rollouts:
        if node in rollout.node_P and token in (None, int(rollout.token_id_T[nodes.position_N[node]])):
            return rollout.token_id_T
    return np.empty(0, np.int64)
