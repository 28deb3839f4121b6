"""The trie of a question's representative paths, its targeted nodes, and the strata of completions.

A trie node is a prefix shared by one or more paths. The *targeted* ones become nodes of the store; what lies
between two of them is a gap (method.md 3, Counting). Forks, where paths part, are always targeted, so that a
gap is a chain without branches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from store.schema import NOWHERE, PATH_END_TOKEN, REST_TOKEN, UNKNOWN_OUTCOME, path_end


@dataclass(frozen=True, slots=True)
class Path:
    """One representative path: its tokens, their log-probabilities under the student, and its exact outcome."""

    token_ids: tuple[int, ...]
    logprob_T: NDArray[np.float32]
    correct: bool

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(slots=True)
class TrieNode:
    """A prefix of one or more paths."""

    path: int  #: the first path through it
    depth: int  #: response tokens before it
    children: dict[int, int] = field(default_factory=dict)  #: path token -> trie node
    outcome: int = UNKNOWN_OUTCOME  #: of the path that ends here


@dataclass(frozen=True, slots=True)
class Chain:
    """What follows an on-path child: the gap, up to the next targeted node or the path's end.

    `positions` are the depths at which the chain can be left, `logprobs` the log-probabilities of staying there.
    """

    path: int
    positions: tuple[int, ...]
    logprobs: NDArray[np.float64]
    next_node: int  #: trie node of the next target, or -1
    outcome: int  #: of the path's end, where the chain reaches it

    @property
    def continue_logprob(self) -> float:
        """Log-probability of never leaving."""
        return float(self.logprobs.sum())

    @property
    def gap_mass(self) -> float:
        """Probability of leaving somewhere."""
        return float(-np.expm1(self.continue_logprob))

    def reach(self) -> NDArray[np.float64]:
        """Probability of coming to each of `positions`, given the child."""
        reached: NDArray[np.float64] = np.exp(np.concatenate([[0.0], np.cumsum(self.logprobs)])[: len(self.positions)])
        return reached

    def exit_masses(self) -> NDArray[np.float64]:
        """Probability of leaving at each of `positions`."""
        masses: NDArray[np.float64] = self.reach() * -np.expm1(self.logprobs)
        return masses


class Trie:
    """All prefixes of a question's paths."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self.nodes = [TrieNode(path=0, depth=0)]
        for number, path in enumerate(self.paths):
            at = 0
            for depth, token in enumerate(path.token_ids):
                if token not in self.nodes[at].children:
                    self.nodes[at].children[token] = len(self.nodes)
                    self.nodes.append(TrieNode(path=number, depth=depth + 1))
                at = self.nodes[at].children[token]
            self.nodes[at].outcome = int(path.correct)

    def forks(self) -> list[int]:
        """Nodes where paths part."""
        return [at for at, node in enumerate(self.nodes) if len(node.children) > 1]

    def along(self, path: int) -> list[int]:
        """The trie nodes of a path by depth; entry t is the prefix of t tokens."""
        found = [0]
        for token in self.paths[path].token_ids:
            found.append(self.nodes[found[-1]].children[token])
        return found

    def prefix(self, at: int) -> tuple[int, ...]:
        """The response tokens before a trie node."""
        node = self.nodes[at]
        return self.paths[node.path].token_ids[: node.depth]

    def chain(self, at: int, token: int, targets: Collection[int]) -> Chain:
        """What follows the on-path child `token` of trie node `at`, given the targeted nodes."""
        here = self.nodes[at].children[token]
        path = self.nodes[here].path
        positions, logprobs = [], []
        while here not in targets and self.nodes[here].children:
            ((step, following),) = self.nodes[here].children.items()
            depth = self.nodes[here].depth
            positions.append(depth)
            logprobs.append(float(self.paths[path].logprob_T[depth]))
            here = following
            assert step == self.paths[path].token_ids[depth]
        reached = here in targets
        return Chain(
            path=path,
            positions=tuple(positions),
            logprobs=np.minimum(np.array(logprobs, dtype=np.float64), 0.0),
            next_node=here if reached else NOWHERE,
            outcome=UNKNOWN_OUTCOME if reached else self.nodes[here].outcome,
        )

    def exit(
        self, token_ids: Sequence[int], targets: Collection[int], children: Mapping[int, Collection[int]]
    ) -> tuple[int, int]:
        """The stratum of a free completion from the root: (trie node, child token) that names it.

        Where it follows a path to its end, the last targeted node and `path_end` of the token it took there;
        (-1, PATH_END_TOKEN) where it leaves before the first targeted node.
        """
        at, above = 0, (NOWHERE, PATH_END_TOKEN)
        for token in token_ids:
            following = self.nodes[at].children.get(token)
            if at in targets:
                above = (at, token)
                if following is None:
                    return at, token if token in children[at] else REST_TOKEN
            elif following is None:
                return above
            at = following
        return (above[0], path_end(above[1])) if above[0] != NOWHERE else above
