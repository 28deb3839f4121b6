"""The study file: what a study is (`settings`), how its file is read and its faults explained (`reading`), teachers beside
those it lists (`further`), its hash (`fingerprints`), and the commented file that `opd-tui init` writes (`template`).
"""

from compute.study.fingerprints import fingerprint, teacher_fingerprint
from compute.study.further import with_added, with_nulls
from compute.study.reading import load, parse, parse_teacher
from compute.study.settings import Chat, Engine, ModelSettings, Study, Targeting, Task, Teacher

__all__ = [
    "Chat",
    "Engine",
    "ModelSettings",
    "Study",
    "Targeting",
    "Task",
    "Teacher",
    "fingerprint",
    "load",
    "parse",
    "parse_teacher",
    "teacher_fingerprint",
    "with_added",
    "with_nulls",
]
