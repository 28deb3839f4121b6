"""What Compare looks at: two pages, a cursor on each, and how they move together. Knows nothing of Textual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from opd_tui.colouring import NO_COLOURING, Colouring
from opd_tui.pairing import Comparison, Fork, Lock, fork, partner
from opd_tui.palette import Scale
from opd_tui.place import Place
from opd_tui.session import Session
from opd_tui.walk import next_of, next_ranked, ranked, sign_flips

if TYPE_CHECKING:
    from opd_tui.pages import RolloutPage

LEFT, RIGHT = 0, 1


class SideBySide:
    """The state of Compare. Metric, teacher and objective are the session's: Browse goes on with them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.both: Comparison | None = None
        self.cursors = [0, 0]
        self.active = LEFT
        self.lock = Lock.PREFIX
        self._colourings: tuple[Colouring, Colouring] | None = None
        self._walking_at: int | None = None

    def show(self, both: Comparison, at: int | None = None) -> None:
        """Look at these two, at the token `at` of the left one; without it, with both cursors where they part."""
        self.both = both
        self._changed()
        self.to_fork()
        if at is not None and at < both.left.n_tokens:
            self.active = LEFT
            self.move(at)

    def to_fork(self) -> None:
        """Both cursors to where the two part, as nearly as there is a token."""
        if self.both is not None:
            n_shared = self.both.n_shared
            self.cursors = [min(n_shared, max(page.n_tokens - 1, 0)) for page in (self.both.left, self.both.right)]

    def page(self, side: int) -> RolloutPage | None:
        """The page of one side."""
        return None if self.both is None else self.both.right if side == RIGHT else self.both.left

    @property
    def n_teachers(self) -> int:
        """Teachers that both pages know."""
        return min(self.both.left.n_teachers, self.both.right.n_teachers) if self.both else 0

    @property
    def place(self) -> Place | None:
        """Where the cursor of the active side is."""
        page = self.page(self.active)
        return Place(page.question_id, page.index, self.cursors[self.active]) if page else None

    @property
    def fork(self) -> Fork | None:
        """Where the two part, under the current objective."""
        return fork(self.both, self.session.objective) if self.both else None

    # colours

    def choose(self, *, teacher: int | None = None, objective: int | None = None, metric_step: int = 0) -> None:
        """Colour both sides by something else."""
        metric = self.session.metric_after(metric_step) if metric_step else None
        self.session.choose(metric=metric, teacher=teacher, objective=objective)
        self._changed()

    def surveyed(self) -> None:
        """The study now says how sure signs are."""
        self._changed()

    def _changed(self) -> None:
        self._colourings, self._walking_at = None, None

    def colouring(self, side: int) -> Colouring:
        """The metric along one side, on the scale of both."""
        if self.both is None:
            return NO_COLOURING
        if self._colourings is None:
            session = self.session
            prior = session.overview.prior if session.overview else None
            teacher = min(session.teacher, max(self.n_teachers - 1, 0))
            objective = session.objective
            left, right = (
                page.colouring(session.metric, teacher, objective, page.sure(teacher, objective, prior), session.second)
                for page in (self.both.left, self.both.right)
            )
            scale = one_scale(left.scale, right.scale)
            self._colourings = replace(left, scale=scale), replace(right, scale=scale)
        return self._colourings[side]

    # moving

    def turn(self, side: int) -> None:
        """The keys go to this side from now on."""
        if side != self.active:
            self.active, self._walking_at = side, None

    def move(self, token: int) -> int | None:
        """The active side moves to `token`. Where the other side goes, None where it stays."""
        self.cursors[self.active] = token
        page, other = self.page(self.active), self.page(1 - self.active)
        if self.both is None or page is None or other is None:
            return None
        pairs = self.both.node_pairs if self.active == LEFT else tuple((b, a) for a, b in self.both.node_pairs)
        there = partner(self.lock, token, n_shared=self.both.n_shared, pairs=pairs, n_other=other.n_tokens)
        if there is not None:
            self.cursors[1 - self.active] = there
        return there

    def node_after(self, step: int) -> int | None:
        """The next node of the active side, or the one before."""
        page = self.page(self.active)
        return next_of(page.node_positions, self.cursors[self.active], step) if page else None

    def worse(self, step: int) -> int | None:
        """Along the order from worst to best of the active side."""
        order = ranked(self.colouring(self.active), self.session.metric.worst_is_low)
        found = next_ranked(order, self._walking_at, step, self.cursors[self.active])
        self._walking_at = found if found is not None else self._walking_at
        return found

    def flip_after(self, step: int) -> int | None:
        """The next change of sign on the active side."""
        if not self.session.metric.diverging:
            return None
        return next_of(sign_flips(self.colouring(self.active)), self.cursors[self.active], step)

    def other_rollout(self, pair: tuple[int, int], side: int, step: int) -> int | None:
        """Index of the rollout to show next on `side` of `pair`, round and round, leaving out the one on the other side."""
        question = self.session.question
        indices = [one.index for one in question.rollouts if one.index != pair[1 - side]] if question else []
        if pair[side] not in indices or len(indices) < 2:
            return None
        return indices[(indices.index(pair[side]) + step) % len(indices)]


def one_scale(left: Scale, right: Scale) -> Scale:
    """The scale that holds both: the same colour means the same number on either side."""
    return Scale(min(left.low, right.low), max(left.high, right.high), left.diverging, left.names)
