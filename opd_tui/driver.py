"""Textual's driver of a terminal, with a thrifty wire."""

from __future__ import annotations

from textual.drivers.linux_driver import LinuxDriver

from opd_tui.wire import Wire


class ThriftyDriver(LinuxDriver):
    """Sends of each frame what is new. Whoever knows that the terminal shows something else tells the `wire` to forget."""

    wire = Wire()

    def write(self, data: str) -> None:
        """Send what of `data` the terminal does not show already."""
        super().write(self.wire.thrifty(data))

    def start_application_mode(self) -> None:
        """Begin, or go on after the program was stopped."""
        self.wire.forget()
        super().start_application_mode()  # type: ignore[no-untyped-call]  # Textual's has no annotations
