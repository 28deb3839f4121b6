"""What the numbers of a report support, in sentences, and what they do not. Each follows from its numbers by a rule.

A rule says what holds only where the sign-flip test is below 0.05 and the interval leaves zero out, speaks of gain
before alignment (noise moves a mean cosine and not a mean gain), and otherwise says that nothing is shown: which is
not that there is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from compute.findings import FLIPPED, Finding, FindingRow
from compute.findings.teachers import SIGNIFICANT
from compute.statistics import MIN_QUESTIONS, Interval
from store.tables import StoreCounts
from store.words import are, counted

Verdict = Literal["supported", "not supported", "limit"]

#: A teacher is the best one where it has the largest mean gain in this share of the bootstrap's draws.
SURELY_BEST = 0.95
#: A rank correlation that is surely smaller than this says next to nothing.
WEAK = 0.1
#: Below this agreement of both halves, single scores are mostly noise.
RELIABLE = 0.5
#: Larger shares of truncated completions, and of nodes with two children, are worth a sentence.
MANY_TRUNCATED, MANY_PAIRS = 0.05, 0.5
LOCAL = "Alignment and gain are local diagnostics of next-token logits: none of this is a forecast of what training brings."


class Claim(Struct, frozen=True):
    """One sentence, and whether the numbers bear it."""

    verdict: Verdict
    finding: str  #: the name of the finding that it follows from
    text: str
    code: str = ""  #: what stands between backticks in the text, if anything does: a rule as it is typed


def claims(found: Sequence[Finding], counts: StoreCounts) -> list[Claim]:
    """All sentences about the findings under their first objective."""
    by_name = {finding.name: finding for finding in found}
    objective = next((row.objective for row in by_name["teacher_ranking"].rows), "")

    def rows(name: str) -> list[FindingRow]:
        return [row for row in by_name[name].rows if row.objective in ("", objective)]

    ranking = rows("teacher_ranking")
    said = [*_ranking(ranking), *_best(ranking), *_outcomes(rows("correct_incorrect"))]
    correlation = rows("within_path_correlation")
    said += [*_depth(correlation), *_divergence(correlation), *_choosing(rows("selection_gain"))]
    return [*said, *_limits(ranking, rows("two_children"), rows("counting"), counts)]


def _own(rows: Sequence[FindingRow]) -> list[FindingRow]:
    """Those of teachers that are no nulls."""
    return [row for row in rows if not row.null and row.teacher]


def _sign(value: Interval, p: float) -> int:
    """The sign of a mean, where test and interval agree that there is one; else 0."""
    if not p < SIGNIFICANT or math.isnan(value.low):
        return 0
    return 1 if value.low > 0.0 else -1 if value.high < 0.0 else 0


def gain_text(value: Interval) -> str:
    """A gain as it stands in the tables."""
    return f"{1000 * value.mean:+.1f} [{1000 * value.low:+.1f}, {1000 * value.high:+.1f}]"


def _rho_text(value: Interval) -> str:
    return f"{value.mean:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _ranking(rows: Sequence[FindingRow]) -> Iterator[Claim]:
    """Whether each teacher helps or harms, and whether by more than nulls do."""
    nulls = [row for row in rows if row.null and row.group != FLIPPED]
    for row in _own(rows):
        gain, alignment = row.intervals["gain"], row.intervals["alignment"]
        about = f"gain x 1000 is {gain_text(gain)} over {gain.n} questions"
        sign = _sign(gain, row.numbers["p_gain"])
        name = "teacher_ranking"
        if math.isnan(gain.low):
            yield Claim("not supported", name, _few(row.teacher, gain.n))
        elif sign > 0:
            as_good = [null.teacher for null in nulls if not null.intervals["gain"].high < gain.low]
            if as_good:
                yield Claim(
                    "not supported",
                    name,
                    f"{row.teacher} moves the student towards success ({about}), but not surely by more than {_listed(as_good)}, "
                    "which knows nothing of the answer: that it is its knowledge that helps is not shown.",
                )
            else:
                beyond = f", and beyond what {_listed([null.teacher for null in nulls])} earns" if nulls else ""
                yield Claim("supported", name, f"{row.teacher} moves the student towards success{beyond}: {about}.")
        elif sign < 0:
            yield Claim("supported", name, f"{row.teacher} moves the student away from success: {about}.")
        else:
            cosine = _sign(alignment, row.numbers["p_alignment"])
            only = " Its mean cosine has a sign, its gain has none: believe the gain." if cosine else ""
            yield Claim("not supported", name, f"Whether {row.teacher} helps or harms is not shown: {about}.{only}")


def _few(teacher: str, n: int) -> str:
    return f"{teacher}: {counted(n, 'question')} {are(n)} too few for an interval; from {MIN_QUESTIONS} on there is one."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _best(rows: Sequence[FindingRow]) -> Iterator[Claim]:
    chances = {row.teacher: row.numbers.get("probability_best", math.nan) for row in _own(rows)}
    ordered = sorted((one for one in chances.items() if not math.isnan(one[1])), key=lambda one: -one[1])
    if len(ordered) < 2:
        return
    (first, chance), *others = ordered
    if chance >= SURELY_BEST:
        gain = {row.teacher: row.intervals["gain"].mean for row in rows if row.group != FLIPPED}
        better = [row.teacher for row in rows if row.null and row.group != FLIPPED and gain[row.teacher] > gain[first]]
        text = f"Among the teachers {first} has the largest mean gain: in {chance:.0%} of the bootstrap's draws over questions."
        if better:
            text += f" That of {_listed(better)}, which knows nothing of the answer, is larger still."
        yield Claim("supported", "teacher_ranking", text)
    else:
        shares = ", ".join(f"{name} in {share:.0%}" for name, share in [(first, chance), *others[:2]])
        text = (
            f"Which teacher is best is not settled: the largest mean gain has {shares} of the bootstrap's draws over questions."
        )
        yield Claim("not supported", "teacher_ranking", text)


def _outcomes(rows: Sequence[FindingRow]) -> Iterator[Claim]:
    """Correct against incorrect rollouts: whole paths, with what is left after the fork of the two kinds beside a difference."""
    forked = {row.teacher: row for row in rows if row.group == "after the fork"}
    for row in _own([row for row in rows if row.group == "whole paths"]):
        gain, cosine = row.intervals["gain_difference"], row.intervals["alignment_difference"]
        if math.isnan(gain.low):
            continue
        sign = _sign(gain, row.numbers["p_gain"])
        about = f"the paired difference of gain x 1000, incorrect less correct, is {gain_text(gain)} over {gain.n} questions"
        if sign:
            more, less = ("incorrect", "correct") if sign > 0 else ("correct", "incorrect")
            text = f"The gain of {row.teacher} is larger on {more} rollouts than on {less} ones: {about}."
            yield Claim("supported", "correct_incorrect", text + _forked(forked, row, sign))
        elif _sign(cosine, row.numbers["p_alignment"]):
            yield Claim(
                "not supported",
                "correct_incorrect",
                f"{row.teacher} has another mean cosine on incorrect than on correct rollouts, but {about}: counting noise alone "
                "can make such a difference of cosines.",
            )
        else:
            yield Claim(
                "not supported",
                "correct_incorrect",
                f"That the gain of {row.teacher} differs between incorrect and correct rollouts is not shown: {about}.",
            )


def _forked(forked: Mapping[str, FindingRow], row: FindingRow, sign: int) -> str:
    """Whether the difference is there as well without the nodes that both kinds of path share."""
    after = forked.get(row.teacher)
    if after is None or math.isnan(after.intervals["gain_difference"].low):
        return ""
    value = after.intervals["gain_difference"]
    holds = _sign(value, after.numbers["p_gain"]) == sign
    return f" Where their paths have parted it is {gain_text(value)}, {'and holds' if holds else 'which does not show it'}."


def _depth(rows: Sequence[FindingRow]) -> Iterator[Claim]:
    for row in _own([row for row in rows if row.group == "depth"]):
        rho = row.intervals["gain"]
        if math.isnan(rho.low):
            continue
        about = f"the rank correlation of gain with depth inside a path is {_rho_text(rho)} over {rho.n} questions"
        sign = _sign(rho, row.numbers["p_gain"])
        if sign:
            where = "late" if sign > 0 else "early"
            yield Claim(
                "supported", "within_path_correlation", f"The gain of {row.teacher} is larger {where} in a response: {about}."
            )
        else:
            yield Claim(
                "not supported",
                "within_path_correlation",
                f"That the gain of {row.teacher} changes along a response is not shown: {about}.",
            )


def _divergence(rows: Sequence[FindingRow]) -> Iterator[Claim]:
    """Whether the divergence that trainers look at says where a teacher helps."""
    for row in _own([row for row in rows if row.group == "kl_student_teacher"]):
        rho = row.intervals["gain"]
        if math.isnan(rho.low):
            continue
        about = f"its rank correlation with gain inside a path is {_rho_text(rho)} over {rho.n} questions"
        sign = _sign(rho, row.numbers["p_gain"])
        if max(abs(rho.low), abs(rho.high)) < WEAK:
            text = f"KL(P‖T) says next to nothing of where the gain of {row.teacher} is large: {about}."
            yield Claim("supported", "within_path_correlation", text)
        elif sign:
            where = "large" if sign > 0 else "small"
            text = f"The gain of {row.teacher} is larger where KL(P‖T) is {where}: {about}."
            yield Claim("supported", "within_path_correlation", text)
        else:
            text = f"That KL(P‖T) tells where the gain of {row.teacher} is large is not shown: {about}."
            yield Claim("not supported", "within_path_correlation", text)


def _choosing(rows: Sequence[FindingRow]) -> Iterator[Claim]:
    """Choices that add something where those judge that did not choose, and those that only seem to."""
    for row in rows:
        more, seems = row.intervals["more_gain"], row.intervals["gain_unsplit"]
        what = f"`{row.group}`" + (f" of {row.teacher}" if row.teacher else "")
        if row.flags:
            text = (
                f"Choosing by {what} seems to bring a gain x 1000 of {1000 * seems.mean:+.1f}; judged by completions that did "
                f"not choose it adds {gain_text(more)}: more than half of what it seems to add is luck."
            )
            yield Claim("not supported", "selection_gain", text, row.group)
        elif more.low > 0.0:
            text = f"Choosing by {what} adds a gain x 1000 of {gain_text(more)}, judged by completions that did not choose."
            yield Claim("supported", "selection_gain", text, row.group)


def _limits(
    ranking: Sequence[FindingRow], pairs: Sequence[FindingRow], counting: Sequence[FindingRow], counts: StoreCounts
) -> Iterator[Claim]:
    done, planned = f"{counts.n_questions_done:,}", counted(counts.n_questions_planned, "question")
    if counts.n_questions_chosen:
        text = f"This is a slice of the study, {done} of its {planned}, chosen by somebody: it speaks for these alone."
        yield Claim("limit", "counting", text)
    elif not counts.complete:
        yield Claim("limit", "counting", f"The study is not finished: {done} of {planned} {are(counts.n_questions_done)} in.")
    reliability = next(
        (row.intervals["reliability"] for row in ranking if not math.isnan(row.intervals["reliability"].mean)), None
    )
    if reliability is not None and reliability.mean < RELIABLE:
        text = (
            f"Single scores are mostly noise: gradients of both halves of the completions agree with a cosine of "
            f"{reliability.mean:.2f}. Read means, or count more completions."
        )
        yield Claim("limit", "teacher_ranking", text)
    share = next((row.intervals["share"] for row in pairs if "share" in row.intervals), None)
    if share is not None and share.mean > MANY_PAIRS:
        text = f"{share.mean:.0%} of the decision points have two kept children, where a cosine is close to a mere sign."
        yield Claim("limit", "two_children", text)
    truncated = next((row.intervals["truncated"] for row in counting if "truncated" in row.intervals), None)
    if truncated is not None and truncated.mean > MANY_TRUNCATED:
        text = f"{truncated.mean:.0%} of the completions were cut off at the length limit, and count as failures."
        yield Claim("limit", "counting", text)
    flags = dict.fromkeys(flag for row in ranking for flag in row.flags)
    yield from (Claim("limit", "teacher_ranking", flag) for flag in flags)
    n = len(_own(ranking))
    if n > 1:
        text = (
            f"{n} teachers were looked at, and no test is corrected for that: one of twenty with no effect shows one by chance."
        )
        yield Claim("limit", "teacher_ranking", text)
    yield Claim("limit", "teacher_ranking", LOCAL)
