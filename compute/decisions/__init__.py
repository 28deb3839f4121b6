"""What to do with a study (method.md 7): route questions to teachers, gate tokens, go or not, weigh tokens.

Everything here is made from `compute.evidence` by numpy alone, and judged by questions (method.md 4): what chooses never
judges itself, and every result stands beside what a teacher without direction would get.
"""

from compute.decisions.gates import GateResult, fit_gate
from compute.decisions.go import GoNoGo, go_no_go
from compute.decisions.routing import Route, Routing, routing
from compute.decisions.sharpening import temperature_of
from compute.decisions.weights import Weighing, weighing

__all__ = [
    "GateResult",
    "GoNoGo",
    "Route",
    "Routing",
    "Weighing",
    "fit_gate",
    "go_no_go",
    "routing",
    "temperature_of",
    "weighing",
]
