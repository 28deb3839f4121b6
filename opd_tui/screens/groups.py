"""Under which heading of the help a key stands."""

from __future__ import annotations

from textual.binding import Binding

MOVE = Binding.Group("move")
FIND = Binding.Group("find")
COLOUR = Binding.Group("colour")
READ = Binding.Group("read")
KEEP = Binding.Group("keep")
#: Headings in their order; keys of no group stand under the last one.
HEADINGS = ("move", "find", "colour", "read", "keep", "more")
