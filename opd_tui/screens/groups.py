"""Under which heading of the help a key stands."""

from __future__ import annotations

from textual.binding import Binding

MOVE = Binding.Group("move")
COLOUR = Binding.Group("colour")
READ = Binding.Group("read")
KEEP = Binding.Group("keep")
#: Headings in their order; keys of no group stand under the last one.
HEADINGS = ("move", "colour", "read", "keep", "more")
