"""What the node pane says, in any width."""

from __future__ import annotations

import re
from pathlib import Path

from opd_tui.facts import NodeFacts, TokenFacts
from opd_tui.palette import Depth, Palette
from opd_tui.reading import Library
from opd_tui.text import Safe, cells
from opd_tui.widgets.node_lines import BROAD, NodeLines

#: A name of what is measured, and its number.
NUMBER = r"(\|S\||SR|V|Adv) +(\S+)"


def head(node: NodeFacts, token: TokenFacts, width: int) -> str:
    """What the first lines say of a node, without their blanks at the end."""
    lines = NodeLines(Palette(Depth.TRUECOLOR, dark=True), width, Safe("ext-7b")).node(node, token, 0, None)
    texts = ["".join(segment.text for segment in line).rstrip() for line in lines[: 1 if width >= BROAD else 2]]
    assert all(cells(Safe(text)) <= width for text in texts)
    return "\n".join(texts)


def test_what_was_measured_of_a_node_is_there_whole_or_not_at_all(calm_store: Path) -> None:
    page = Library(str(calm_store)).rollout("q000", 1)
    for position in page.node_positions[:3]:
        node, token = page.node(position, 0, 0), page.token(position, 0)
        assert node is not None
        whole = dict(re.findall(NUMBER, head(node, token, 200)))
        assert set(whole) == {"|S|", "SR", "V", "Adv"}
        for width in range(40, 130):
            found = dict(re.findall(NUMBER, head(node, token, width)))
            assert found.items() <= whole.items()
            assert list(found) == list(whole)[: len(found)]
            assert len(found) == 4 or BROAD <= width < 90
