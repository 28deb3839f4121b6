"""Scanning a store for an expression against reading and scoring all of it: `python -m benchmarks.filtering [--json]`.

Sides that look at tokens or nodes find the same; the slow one reads whole pages, as a loop over a reader does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import store
from benchmarks.big_store import TEACHERS, write
from benchmarks.measure import medians, report
from compute.scores import score
from opd_tui.search.columns import Chosen
from opd_tui.search.expression import parse
from opd_tui.search.scanner import Scanner
from opd_tui.search.scanning import scan
from opd_tui.search.texts import TextSearch
from store.schema import DIVERGENCES

JS = DIVERGENCES.index("js")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        opened = store.open(write(Path(folder) / "s.zarr", n_questions=64))
        lines = [(row.id, line.index) for row in opened.questions() for line in row.rollouts]
        chosen = Chosen(TEACHERS[0], opened.attributes.objectives[0])

        def find(text: str) -> int:
            return sum(block.n for block in scan(Scanner(opened, parse(text), chosen), most=0))

        def whole_tokens() -> int:
            return sum(int((opened.rollout(*line).divergence_TMD[:, 0, JS] > 0.1).sum()) for line in lines)

        def whole_nodes() -> int:
            n = 0
            for row in opened.questions():
                nodes = opened.nodes(row.id)
                align_N = score(nodes, n_sig=opened.attributes.n_sig).alignment_MON[0, 0]
                n += sum(int((align_N[opened.rollout(row.id, line.index).node_P] < -0.5).sum()) for line in row.rollouts)
            return n

        assert find("js > 0.1") == whole_tokens() and find("align < -0.5") == whole_nodes()
        seconds = medians(
            {
                "rollouts by what lists know": lambda: find("incorrect & length > 100"),
                "tokens by one number": lambda: find("js > 0.1"),
                "tokens, reading all of them": whole_tokens,
                "nodes by alignment": lambda: find("align < -0.5"),
                "nodes, reading and scoring all": whole_nodes,
                "a text": lambda: sum(block.n for block in scan(TextSearch(opened, "<4095>"), most=0)),
                "token ids alone, read": lambda: np.sum([len(opened.rollout(*line, ()).token_id_T) for line in lines]),
            },
            5,
        )
        report(
            "filtering",
            seconds,
            {
                "all tokens / tokens by one number": seconds["tokens, reading all of them"] / seconds["tokens by one number"],
                "all nodes / nodes by alignment": seconds["nodes, reading and scoring all"] / seconds["nodes by alignment"],
                "tokens / lists": seconds["tokens by one number"] / seconds["rollouts by what lists know"],
            },
        )


if __name__ == "__main__":
    main()
