"""`opd-tui export --format html`: coloured rollouts as one file that a browser opens without opd-tui and without a network.

Tokens are text, coloured for the first choice; a small script colours them by any other metric, teacher and objective,
and says what is known of the token or node that a pointer or the arrow keys are on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import IO, Any

from msgspec import Struct

from compute.posterior import Prior
from opd_tui.export.rows import Selection
from opd_tui.facts import Catalogue, QuestionFacts, RolloutFacts
from opd_tui.markup import data, head, resource
from opd_tui.metrics import METRICS, Metric
from opd_tui.pages import RolloutPage
from opd_tui.palette import Depth, Palette, mark
from opd_tui.reading import Library
from opd_tui.text import Kind, Run, Safe, safe
from opd_tui.whole_file import check_apart, whole_file
from store.errors import StoreError
from store.words import counted

#: What the page can colour by: what takes one teacher at most.
PAGE_METRICS = tuple(one for one in METRICS if one.needs in ("nothing", "teacher", "objective"))
#: What a browser still shows at once.
MOST_ROLLOUTS = 100


class Choice(Struct, frozen=True):
    """What of a store goes into a file."""

    catalogue: Catalogue
    teachers: tuple[int, ...]
    objectives: tuple[int, ...]
    rollouts: tuple[tuple[QuestionFacts, RolloutFacts], ...]
    prior: Prior | None


def write_html(path: str, selection: Selection, out: str) -> int:
    """Write the rollouts of a selection of the store at `path` to `out`, or to standard output for ``-``; return how many.

    Raises StoreError for names that are not in the store, for more rollouts than a browser shows, and where the file
    cannot be written.
    """
    library = Library(path)
    catalogue = library.catalogue()
    choice = Choice(
        catalogue,
        _places([one.id for one in catalogue.teachers], selection.teachers, "teacher"),
        _places(list(catalogue.objectives), selection.objectives, "objective"),
        _rollouts(catalogue, selection),
        None,
    )
    *_, overview = library.overviews()
    choice = Choice(choice.catalogue, choice.teachers, choice.objectives, choice.rollouts, overview.prior)
    if out == "-":
        _write(library, choice, sys.stdout)
    else:
        check_apart(path, out)
        with whole_file(out) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
            _write(library, choice, file)
    return len(choice.rollouts)


def _places(there: Sequence[str], wanted: Sequence[str], what: str) -> tuple[int, ...]:
    for name in wanted:
        if name not in there:
            raise StoreError(f"The study has no {what} {name!r}; there is {', '.join(there)}.")
    return tuple(place for place, name in enumerate(there) if not wanted or name in wanted)


def _rollouts(catalogue: Catalogue, selection: Selection) -> tuple[tuple[QuestionFacts, RolloutFacts], ...]:
    questions = catalogue.questions
    for name in selection.questions:
        if questions.get(name) is None:
            raise StoreError(f"The store has no question {name!r}.")
    chosen = [one for one in questions if not selection.questions or one.id in selection.questions]
    found = [(one, rollout) for one in chosen for rollout in one.rollouts]
    missing = set(selection.rollouts) - {rollout.index for _, rollout in found}
    if missing:
        raise StoreError(f"No chosen question has a rollout {min(missing)}.")
    found = [(one, rollout) for one, rollout in found if not selection.rollouts or rollout.index in selection.rollouts]
    if not found:
        raise StoreError("There is no rollout to show: no chosen question is finished.")
    if len(found) > MOST_ROLLOUTS:
        raise StoreError(
            f"One HTML file holds {MOST_ROLLOUTS} rollouts, and {len(found):,} are chosen; choose with --question and --rollout."
        )
    return tuple(found)


def _write(library: Library, choice: Choice, file: IO[str]) -> None:
    """One rollout after the other, so that memory holds one."""
    title = f"{choice.catalogue.title}: rollouts"
    script = resource("rollout.js")
    file.write(head(title, _style(), script))
    file.write(
        f"<body>\n<header>\n<h1>{escape(choice.catalogue.title)}</h1>\n<p>student {escape(choice.catalogue.student)}</p>\n"
    )
    file.write(_controls(choice))
    file.write("</header>\n<main>\n")
    for number, (question, rollout) in enumerate(choice.rollouts):
        page = library.rollout(question.id, rollout.index)
        file.write(_section(page, question, rollout, choice, number))
    hint = "<p>Point at a token, or go from node to node with the arrow keys.</p>"
    details = f'<aside id="details" tabindex="0" aria-label="What is known here" aria-live="polite">{hint}</aside>'
    file.write(f"</main>\n{details}\n<script>{script}</script>\n</body>\n</html>\n")


# the head of the page


def _style() -> str:
    """The style sheet, with the explorer's own colours: light, and dark where the reader has it so."""
    light, dark = (Palette(Depth.TRUECOLOR, dark) for dark in (False, True))

    def variables(palette: Palette) -> str:
        ground, pane = ("#101216", "#1b2028") if palette.dark else ("#fbfbfc", "#e9ebef")
        on = "#ffffff" if palette.dark else "#000000"
        ink = palette.ink
        names = {"ground": ground, "pane": pane, "on": on, "ink": ink.text, "dim": ink.dim, "accent": ink.accent}
        names |= {"good": ink.good, "bad": ink.bad, "escape": ink.escape}
        names |= {f"d{step}": colour for step, colour in enumerate(palette.fills(diverging=True))}
        names |= {f"q{step}": colour for step, colour in enumerate(palette.fills(diverging=False))}
        return ";".join(f"--{name}:{colour}" for name, colour in names.items())

    steps = "".join(f".{kind}{step}{{background:var(--{kind}{step});color:var(--on)}}" for kind in "dq" for step in range(7))
    return (
        f":root{{color-scheme:light dark;{variables(light)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(dark)}}}}}{steps}{resource('rollout.css')}"
    )


def _controls(choice: Choice) -> str:
    teachers, objectives = choice.catalogue.teachers, choice.catalogue.objectives
    options: dict[str, list[tuple[str, str]]] = {
        "metric": [(one.key, one.label) for one in PAGE_METRICS],
        "teacher": [
            (str(place), teachers[m].label + (" (null)" if teachers[m].null else "")) for place, m in enumerate(choice.teachers)
        ],
        "objective": [(str(place), objectives[o]) for place, o in enumerate(choice.objectives)],
    }
    chosen = "".join(
        f'<label>{name} <select id="{name}">'
        + "".join(f'<option value="{escape(value)}">{escape(label)}</option>' for value, label in named)
        + "</select></label>\n"
        for name, named in options.items()
    )
    about = {
        "metrics": {one.key: [one.label, one.needs, one.diverging, one.meaning] for one in PAGE_METRICS},
        "teachers": [choice.catalogue.teachers[m].label for m in choice.teachers],
        "objectives": [choice.catalogue.objectives[o] for o in choice.objectives],
    }
    legend = '<p id="legend"><span id="low"></span> ' + "".join(
        f'<span class="step d{step}">{mark(step, True)}</span>' for step in range(7)
    )
    legend += (
        ' <span id="high"></span> <span id="meaning"></span><br>'
        '<span class="hollow">like this</span>: the sign is uncertain. No colour: no estimate. '
        '<span class="n">Underlined</span>: a node. Arrow keys go from node to node, Enter reads one, Escape comes back.</p>\n'
    )
    return (
        f'<form aria-label="Colours">{chosen}</form>\n{legend}<script type="application/json" id="about">{data(about)}</script>\n'
    )


# a rollout


def _section(page: RolloutPage, question: QuestionFacts, rollout: RolloutFacts, choice: Choice, number: int) -> str:
    ending = ", cut off" if rollout.truncated else ""
    outcome = "correct" if rollout.correct else "incorrect"
    sizes = f"{counted(page.n_tokens, 'token')}, {counted(rollout.n_nodes, 'node')}"
    heading = f"{question.label} rollout {rollout.index}: {outcome}{ending}, {sizes}"
    asked = "<br>".join(escape(line) for line in page.question)
    return (
        f'<section aria-labelledby="r{number}"><h2 id="r{number}">{escape(heading)}</h2>\n<p class="asked">{asked}</p>\n'
        f'<div class="tokens" role="group" aria-labelledby="r{number}">{_tokens(page, choice)}</div>\n'
        f'<script type="application/json" class="data">{data(_data(page, choice))}</script></section>\n'
    )


def _tokens(page: RolloutPage, choice: Choice) -> str:
    """Every token in an element of its own; tokens that share a character, in one."""
    metric = METRICS[0]
    m, o = choice.teachers[0], choice.objectives[0]
    colouring = page.colouring(metric, m, o, page.sure(m, o, choice.prior))
    parts = []
    for (first, last), runs in groupby(_pieces(page.flow.runs), key=lambda piece: piece[0]):
        text = "".join(_text(run) for _, run in runs)
        node = next((place for place in range(first, last + 1) if place in page.row_of), None)
        at = first if node is None else node
        step = colouring.scale.step(colouring.values[at])
        classes = ["t"] + (["n"] if node is not None else [])
        if step is not None:
            classes.append("hollow" if at in colouring.uncertain else f"d{step}")
        marked = f' data-mark="{mark(step, metric.diverging)}"' if step is not None else ""
        until = f' data-last="{last}"' if last > first else ""
        button = f' role="button" tabindex="-1" aria-label="{escape(_spoken(page, at))}"' if node is not None else ""
        parts.append(f'<span class="{" ".join(classes)}" data-t="{at}"{until}{marked}{button}>{text}</span>')
    return "".join(parts)


def _pieces(runs: Sequence[Run]) -> Iterator[tuple[tuple[int, int], Run]]:
    """Every run with the first and the last token of what it cannot be parted from."""
    spans: list[tuple[int, int]] = []
    for run in runs:
        if spans and run.first <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], run.last)
        else:
            spans.append((run.first, run.last))
    place = 0
    for run in runs:
        while run.first > spans[place][1]:
            place += 1
        yield spans[place], run


def _text(run: Run) -> str:
    match run.kind:
        case Kind.NEWLINE:
            return '<span class="dim" aria-hidden="true">↵</span>\n'
        case Kind.SPACE:
            return " " * run.width
        case Kind.ESCAPE | Kind.SPECIAL:
            return f'<span class="escape">{escape(run.text)}</span>'
        case _:
            return escape(run.text)


def _spoken(page: RolloutPage, position: int) -> str:
    number = page.node_positions.index(position) + 1
    return f"{page.label(int(page.rollout.token_id_T[position]))}, node {number} of {len(page.row_of)}"


def _data(page: RolloutPage, choice: Choice) -> dict[str, Any]:
    """What the script colours by, and what it says of tokens and nodes."""
    ids = page.rollout.token_id_T.tolist()
    return {
        "label": [page.label(one) for one in ids],
        "id": ids,
        "values": {metric.key: _values(page, metric, choice) for metric in PAGE_METRICS},
        "nodes": {str(position): _node(page, position, choice) for position in page.node_positions},
    }


def _values(page: RolloutPage, metric: Metric, choice: Choice) -> list[list[dict[str, Any]]]:
    """By teacher and objective, or once where the metric needs none: values, the ends of the scale, uncertain places."""
    teachers = choice.teachers if metric.needs in ("teacher", "objective") else choice.teachers[:1]
    objectives = choice.objectives if metric.needs == "objective" else choice.objectives[:1]
    found = []
    for m in teachers:
        row = []
        for o in objectives:
            one = page.colouring(metric, m, o, page.sure(m, o, choice.prior) if metric.needs == "objective" else None)
            values: Any = list(one.values)
            if metric.at_nodes:
                values = {str(position): values[position] for position in page.node_positions}
            row.append({"v": values, "low": one.scale.low, "high": one.scale.high, "unsure": sorted(one.uncertain)})
        found.append(row)
    return found


def _node(page: RolloutPage, position: int, choice: Choice) -> dict[str, Any]:
    facts = [page.node(position, m, 0) for m in choice.teachers]
    first = facts[0]
    assert first is not None  # it is one of the page's nodes
    positive = [[page.sure(m, o, choice.prior).p_positive_N[first.row] for o in choice.objectives] for m in choice.teachers]
    return {
        "number": first.number,
        "reason": first.reason,
        "kept": first.n_kept,
        "range": first.success_range,
        "value": first.value,
        "children": [
            [_child_name(one.label, one.kind), one.taken, one.kept, one.p_student, one.p_succ, one.low, one.high, one.n]
            for one in first.children
        ],
        "teachers": [
            {
                "p": [child.p_teacher for child in one.children],
                "advantage": one.advantage,
                "late": one.judged_only,
                "scores": [
                    [one.objectives[o].alignment, one.objectives[o].gain, one.objectives[o].gain_se, float(positive[m][place])]
                    for place, o in enumerate(choice.objectives)
                ],
            }
            for m, one in enumerate(facts)
            if one is not None
        ],
    }


def _child_name(label: Safe, kind: str) -> str:
    return label if kind in ("", "path", "rest") else f"{label} ({safe(kind)})"
