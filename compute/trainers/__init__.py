"""What a trainer's distillation settings really optimise: the direction in which they move the student's logits.

Names mislead: an estimator of one divergence may have the gradient of another. One file per trainer reads its
settings, as its own code does (docs/trainers.md names files and versions), and says which objective of `compute.objectives`
that is. Nothing of a trainer is imported.
"""

from __future__ import annotations

from collections.abc import Callable

from compute.trainers import prime_rl, skyrl, tinker, torchrl, trl, verl
from compute.trainers.meaning import Meaning
from compute.trainers.settings import Settings, read_settings

#: By the name that `--trainer` takes.
TRAINERS: dict[str, Callable[[Settings], Meaning]] = {
    "verl": verl.meaning,
    "trl": trl.meaning,
    "tinker": tinker.meaning,
    "prime-rl": prime_rl.meaning,
    "skyrl": skyrl.meaning,
    "torchrl": torchrl.meaning,
}

__all__ = ["TRAINERS", "Meaning", "Settings", "read_settings"]
