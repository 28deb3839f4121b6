"""opd-tui: the microscope for on-policy distillation.

``opd_tui.open(path)`` opens a store for reading, as ``store.open`` does.
"""

from __future__ import annotations

from opd_tui.guard import check_packages

check_packages()

from store import open  # after the check, which says what is wrong where this is not our store

__all__ = ["open"]
__version__ = "0.1.0"
