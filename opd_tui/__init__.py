"""opd-tui: the microscope for on-policy distillation.

``opd_tui.open(path)`` opens a store for reading, as ``store.open`` does.
"""

from __future__ import annotations

from opd_tui.guard import check_packages

check_packages()

from store import open  # noqa: A004, E402  # after the check: it says whose store this is

__all__ = ["open"]
__version__ = "0.1.0"
