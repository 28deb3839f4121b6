"""The node pane: what was measured before the token under the cursor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from opd_tui.palette import Palette
from opd_tui.text import Safe
from opd_tui.widgets.lines import Panel
from opd_tui.widgets.node_lines import NodeLines, tallest

if TYPE_CHECKING:
    from opd_tui.facts import NodeFacts, TokenFacts


class NodePane(Panel, can_focus=True):
    """A token and its node. With the focus, arrows choose a child and enter reads its completions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", "child up", show=False),
        Binding("down,j", "step(1)", "child down", show=False),
        Binding("enter", "read", "read completions", show=False),
    ]

    @dataclass
    class Chosen(Message):
        """A child's completions are to be read."""

        node: int
        token_id: int

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._token: TokenFacts | None = None
        self._node: NodeFacts | None = None
        self._teacher = Safe("")
        self._objective = 0
        self._child = self._top_child = 0
        self._most = (0, 0, 0)

    def expect(self, n_objectives: int, n_children: int, n_candidates: int) -> None:
        """The most that a token of this page may have: the pane keeps the height that this needs.

        A pane that changes its height is laid out anew, which redraws the whole screen.
        """
        self._most = n_objectives, n_children, n_candidates

    def show_token(self, token: TokenFacts | None, node: NodeFacts | None, teacher: Safe, objective: int) -> None:
        """Show this token, and the node before it if there is one."""
        if node is None or self._node is None or node.row != self._node.row:
            self._child = 0
        if self.scroll_offset.y and (token is None or self._token is None or token.position != self._token.position):
            self.scroll_to(y=0, animate=False)
        self._token, self._node, self._teacher, self._objective = token, node, teacher, objective
        self._draw()

    def _draw(self) -> None:
        if self._token is None:
            self.show([])
            return
        width = self.scrollable_size.width
        self.least = tallest(width, *self._most)
        lines = NodeLines(self.palette, width, self._teacher)
        if self._node is None:
            self.show(lines.between(self._token))
        else:
            self.show(lines.node(self._node, self._token, self._objective, self._child if self.has_focus else None))
            self._top_child = lines.first_child

    def on_resize(self) -> None:
        """Draw at the new width."""
        self._draw()

    def on_focus(self) -> None:
        """Show which child is current."""
        self._draw()

    def on_blur(self) -> None:
        """No child is current."""
        self._draw()

    def use(self, palette: Palette) -> None:
        """Draw in another palette."""
        super().use(palette)
        self._draw()

    def action_step(self, by: int) -> None:
        """Another child, or scroll where there are none."""
        if self._node is None or not self._node.children:
            self.scroll_relative(y=by, animate=False)
            return
        self._child = min(max(self._child + by, 0), len(self._node.children) - 1)
        self._draw()
        self.reveal(self._top_child + self._child)

    def action_read(self) -> None:
        """Read the completions of the current child."""
        if self._node is not None and self._node.children:
            self.post_message(self.Chosen(self._node.row, self._node.children[self._child].token_id))
