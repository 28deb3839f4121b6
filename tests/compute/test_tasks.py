"""Questions and graders."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import msgspec
import pytest

from compute.errors import ComputeError, StudyError
from compute.study import Task, load
from compute.tasks import GRADERS, NO_ANSWER, RIGHT, Question, grader_digest, load_questions, make_grader


#: The library keeps what it read under the home folder; tests leave no trace there.
@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


QUESTION = Question("q", 0, "?", "12", {})


def write(folder: Path, text: str) -> Task:
    (folder / "q.jsonl").write_text(text)
    return Task(questions="q.jsonl")


def test_a_broken_line_is_named(tmp_path):
    task = write(tmp_path, '{"id": "a", "question": "?", "answer": "1"}\n{"id": "b", \n')
    with pytest.raises(StudyError, match=r"q\.jsonl, line 2 is not valid JSON"):
        load_questions(task, tmp_path, 0)


def test_a_missing_field_names_line_and_fields(tmp_path):
    with pytest.raises(StudyError, match=r"line 1.*`answer`.*id, question"):
        load_questions(write(tmp_path, '{"id": "a", "question": "?"}\n'), tmp_path, 0)


def test_two_questions_of_one_name_are_refused(tmp_path):
    line = '{"id": "a", "question": "?", "answer": "1"}\n'
    with pytest.raises(StudyError, match=r"line 2.*twice"):
        load_questions(write(tmp_path, line + line), tmp_path, 0)


def test_an_unknown_field_of_the_prompt_is_named(tmp_path):
    write(tmp_path, '{"id": "a", "question": "?", "answer": "1"}\n')
    with pytest.raises(StudyError, match=r"\{passage\}"):
        load_questions(Task(questions="q.jsonl", prompt="{passage}"), tmp_path, 0)


def test_braces_in_a_question_stay_text(tmp_path):
    task = write(tmp_path, '{"id": "a", "question": "{answer} and {x}", "answer": "1"}\n')
    assert load_questions(task, tmp_path, 0)[0].prompt == "{answer} and {x}"


def test_reasoning_gym_makes_the_same_questions_for_the_same_seed(tmp_path):
    task = Task(reasoning_gym="chain_sum", limit=3, grader="reasoning_gym")
    first, again = load_questions(task, tmp_path, 5), load_questions(task, tmp_path, 5)
    assert [one.prompt for one in first] == [one.prompt for one in again]
    grade = make_grader(task, tmp_path, 5)
    assert grade(first[0], first[0].answer).correct
    assert not grade(first[0], "no number").correct


@pytest.mark.parametrize(
    ("grader", "response", "answer", "right"),
    [
        ("exact", " Twelve\n", "twelve", True),
        ("number", "3 + 9 = 12.", "12", True),
        ("number", "the sum is 1,200", "1200.0", True),
        ("number", "12, no: 13", "12", False),
        ("number", "none", "12", False),
        ("boolean", "I think yes. So the answer is no", "false", True),
        ("boolean", "nothing known", "false", False),
        ("choice", "A or B? It is (C).", "C", True),
        ("choice", "It is c", "C", False),
    ],
)
def test_graders(grader, response, answer, right):
    assert bool(GRADERS[grader](response, answer, {})) is right


def test_the_pattern_takes_the_last_match(tmp_path):
    grade = make_grader(Task(questions="q", grader="number", answer_pattern=r"Answer: (\d+)"), tmp_path, 0)
    assert grade(QUESTION, "Answer: 3. Wait. Answer: 12").correct
    assert not grade(QUESTION, "It is 12").correct


def test_a_users_grader_is_called_and_named_when_it_raises(tmp_path):
    (tmp_path / "mine.py").write_text("def grade(response, answer, question):\n    return {'right': 1.0}[response]\n")
    grade = make_grader(Task(questions="q", grader="mine.py:grade"), tmp_path, 0)
    assert grade(QUESTION, "right").correct
    with pytest.raises(ComputeError, match=r"`mine.py:grade` failed on question q.*'wrong'.*KeyError"):
        grade(QUESTION, "wrong")


@pytest.mark.parametrize(
    ("grader", "says"),
    [
        ("exakt", "exact, number"),
        ("no.py:grade", "no file"),
        ("q.py:nothing", "no function `nothing`"),
        ("bad.py:f", "SyntaxError"),
    ],
)
def test_wrong_graders_are_named(tmp_path, grader, says):
    (tmp_path / "q.py").write_text("")
    (tmp_path / "bad.py").write_text("def f(:")
    with pytest.raises(StudyError, match=says):
        make_grader(Task(questions="q", grader=grader), tmp_path, 0)


CAPITALS = [
    {"id": "a", "question": "Capital of Peru?", "choices": ["Quito", "Lima"], "answer": "1"},
    {"id": "b", "question": "question", "choices": ["choice0", "choice1"], "answer": "answer"},
    {"id": "c", "question": "Capital of Chad?", "choices": ["N'Djamena", "Niamey"], "answer": "A"},
    {"id": "d", "question": "question", "choices": ["choice0", "choice1"], "answer": "answer"},
]


def capitals(folder: Path) -> str:
    (folder / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CAPITALS))
    return "capitals.jsonl"


def test_a_reference_that_the_grader_cannot_compare_with_is_named_with_the_remedy(tmp_path):
    questions = capitals(tmp_path)
    with pytest.raises(StudyError) as caught:
        load_questions(Task(questions=questions, grader="choice"), tmp_path, 0)
    sentence = str(caught.value)
    assert "capitals.jsonl, line 2" in sentence
    assert "'answer'" in sentence
    assert '`task.leave_out` = ["b", "d"]' in sentence
    assert [one.id for one in load_questions(Task(questions=questions, grader="choice", leave_out=("b", "d")), tmp_path, 0)] == [
        "a",
        "c",
    ]
    assert len(load_questions(Task(questions=questions, grader="exact"), tmp_path, 0)) == 4  # there it is as good as any


def test_questions_are_taken_by_name_and_then_by_place(tmp_path):
    task = write(tmp_path, "".join(f'{{"id": "{name}", "question": "?", "answer": "1"}}\n' for name in "abcde"))

    def taken(**more: object) -> list[tuple[str, int]]:
        found = load_questions(msgspec.structs.replace(task, **more), tmp_path, 0)
        return [(one.id, one.number) for one in found]

    assert taken(skip=1, limit=2) == [("b", 0), ("c", 1)]
    assert taken(leave_out=("b",), skip=1, limit=2) == [("c", 0), ("d", 1)]
    assert taken(only=("d", "b")) == [("b", 0), ("d", 1)]
    for key in ("only", "leave_out"):
        with pytest.raises(StudyError, match=rf"`task.{key}` names `z`"):
            taken(**{key: ("z",)})
    with pytest.raises(StudyError, match="are left"):
        taken(skip=5)


def test_a_question_without_a_name_keeps_that_of_its_line(tmp_path):
    task = write(tmp_path, '{"question": "?", "answer": "1"}\n' * 3)
    assert [one.id for one in load_questions(msgspec.structs.replace(task, skip=1), tmp_path, 0)] == ["q0001", "q0002"]


def test_choices_may_be_called_otherwise(tmp_path):
    row = {"question": "Capital of Peru?", "options": ["Quito", "Lima"], "answer": "Lima"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    task = Task(questions="q.jsonl", grader="choice", choices_field="options", prompt="{question}\n{options}")
    (question,) = load_questions(task, tmp_path, 0)
    assert question.prompt == "Capital of Peru?\nA. Quito\nB. Lima"
    assert make_grader(task, tmp_path, 0)(question, "It is (B).").correct


def test_a_data_set_is_read_by_name_configuration_and_split(tmp_path):
    """A folder in the layout of the hub, two configurations and two splits."""
    folder = tmp_path / "capitals"
    folder.mkdir()
    for config in ("easy", "all"):
        for split in ("train", "test"):
            rows = [{"question": f"{config} {split}", "passage": "?", "answer": True, "asked": "2020-01-01T00:00:00"}] * 2
            (folder / f"{config}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    configs = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {config}-{split}.jsonl\n" for split in ("train", "test"))
        for config in ("easy", "all")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    task = Task(dataset="capitals", dataset_config="easy", split="train", id_field="", grader="boolean")
    found = load_questions(task, tmp_path, 0)
    assert [(one.id, one.prompt, one.answer) for one in found] == [
        ("q0000", "easy train", "true"),
        ("q0001", "easy train", "true"),
    ]
    with pytest.raises(StudyError, match=r"data set `capitals` cannot be loaded: .*valid"):
        load_questions(msgspec.structs.replace(task, split="valid"), tmp_path, 0)
    assert found[0].digest == load_questions(task, tmp_path, 0)[0].digest


def test_code_that_comes_with_a_data_set_is_never_run(tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(StudyError, match="data set `evil` cannot be loaded"):
        load_questions(Task(dataset="evil"), tmp_path, 0)
    assert not (tmp_path / "ran").exists()


def test_a_missing_library_names_the_extra(tmp_path):
    """A real import that fails, in a process of its own."""
    program = (
        "import sys; sys.modules['datasets'] = None\n"
        "from pathlib import Path; from compute.study import Task; from compute.tasks import load_questions\n"
        "load_questions(Task(dataset='x'), Path('.'), 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith(
        "`task.dataset` needs the package `datasets`; install the extra: pip install 'opd-tui[datasets]'."
    )


def test_every_field_of_a_question_is_in_its_hash():
    def digest(hint: str) -> str:
        odd = {"when": date(2020, 1, 1), "odd": object(), "keys": {1: "a", "b": (2, {3})}}
        return Question("q", 0, "?", "12", {"hint": hint, **odd}).digest

    assert digest("a") == digest("a") != digest("b")


def test_the_file_of_a_grader_is_in_the_studys_hash(tmp_path):
    (tmp_path / "mine.py").write_text("def grade(*_): return 1\n")
    task = Task(questions="q", grader="mine.py:grade")
    first = grader_digest(task, tmp_path)
    (tmp_path / "mine.py").write_text("def grade(*_): return 0\n")
    assert first != grader_digest(task, tmp_path)
    assert grader_digest(Task(questions="q", grader="number"), tmp_path) == ""


SMOLLM2 = Path(__file__).parents[2] / "examples" / "smollm2"

# Rows written for this test in the form of public benchmarks: their fields, types, order and oddities, none of their sentences.
BOOLQ = [
    {
        "id": "boolq-1",
        "question": "is the harbour of lunde open in winter",
        "passage": "LUNDE HARBOUR Lunde is a port in the north ( pop. 812 ) . { Its harbour } is free of ice all year .",
        "answer": "true",
    },
    {
        "id": "boolq-2",
        "question": "can a kite of paper fly in the rain",
        "passage": "Wet paper tears , so that kites of paper `` stay at home '' .",
        "answer": "false",
    },
]
MMLU = [
    {
        "id": "mmlu-toy_optics-0",
        "subject": "toy_optics",
        "question": "A mirror is turned by 10 degrees.\nA reflected ray then turns by",
        "choices": ["5 degrees", "10 degrees", "20 degrees", "40 degrees \x80\x94 at most"],
        "answer": "2",
    },
    {"id": "mmlu-toy_sums-3", "subject": "toy_sums", "question": "{2} + 1 =", "choices": ["0", "1", "2", "3"], "answer": "3"},
]
BROKEN = {
    "id": "mmlu-toy_sums-0",
    "subject": "toy_sums",
    "question": "question",
    "choices": ["choice0", "choice1", "choice2", "choice3"],
    "answer": "answer",
}
GSM8K = [
    {
        "id": identity,
        "question": f"Ada buys {n} pens at $60 each. How many dollars does she pay?",
        "answer": str(60 * n),
        "solution": f"One pen is $60.\n{n} pens are {n} * $60 = ${60 * n}.",
    }
    for n, identity in enumerate(load(SMOLLM2 / "gsm8k.toml").task.only, 15)
]
AIME = [
    {
        "id": "aime2025-1",
        "question": "Let $S=\\{1,2,\\dots,9\\}$. The share of odd ones in $S$ is $\\tfrac{m}{n}$ in lowest terms.\nFind $m+n$.",
        "answer": "14",
    },
    {"id": "aime2025-2", "question": "Find the least $k$ with $2^{k}>1000$.", "answer": "10"},
]


@pytest.mark.parametrize(
    ("study", "rows", "asked", "right", "wrong", "unparsable"),
    [
        (
            "boolq",
            BOOLQ,
            "Passage: LUNDE HARBOUR Lunde is a port in the north ( pop. 812 ) . { Its harbour } is free of ice all year .\n"
            "Question: is the harbour of lunde open in winter?\n{context}Evidence:",
            (" Its harbour is free of ice all year . So yes.", " Wet paper tears , so no kite flies. So no."),
            (" It is a port in the north. So no.", " Wet paper tears. No doubt. So yes."),
            (" Its harbour is free of ice, yes, all year .", " Wet paper tears: so it is not true."),
        ),
        (
            "mmlu",
            MMLU,
            "Question: A mirror is turned by 10 degrees.\nA reflected ray then turns by\n"
            "A. 5 degrees\nB. 10 degrees\nC. 20 degrees\nD. 40 degrees \x80\x94 at most\n{context}Reason:",
            (" A ray turns twice as far as a mirror. Answer: C", " 2 + 1 = 3. Answer: (D)."),
            (" A ray turns as far as its mirror. Answer: B", " 2 + 1 = 3. Answer: C"),
            (" A ray turns twice as far as a mirror.", " 2 + 1 is a sum. Answer: some number"),
        ),
        (
            "gsm8k",
            GSM8K,
            "Question: Ada buys 15 pens at $60 each. How many dollars does she pay?\n{context}Solution:",
            (" 15 * 60 = 900. Answer: 900", *(f" Answer: ${60 * n:,}." for n in range(16, 31))),
            (" 15 * 60 = 900. Answer: 90", *(f" Answer: {60 * n + 1:,}" for n in range(16, 31))),
            (" 15 * 60 = 900.", *(" Answer: many" for n in range(16, 31))),
        ),
        (
            "aime",
            AIME,
            "Let $S=\\{1,2,\\dots,9\\}$. The share of odd ones in $S$ is $\\tfrac{m}{n}$ in lowest terms.\nFind $m+n$.\n\n"
            "Think step by step, and give the answer, an integer from 0 to 999, as \\boxed{...}.",
            ("It is $\\tfrac{5}{9}$, so $m+n=\\boxed{14}$.", "$2^9 = 512$. Not \\boxed{9}, but \\boxed{010}."),
            ("It is $\\boxed{\\tfrac{5}{9}}$, \\boxed{5}.", "$2^{10} = 1024$, so \\boxed{1024}."),
            ("It is $\\tfrac{5}{9}$, so $m+n=14$.", "\\boxed{}"),
        ),
    ],
)
def test_the_example_studies_read_and_grade_rows_of_their_benchmarks(tmp_path, study, rows, asked, right, wrong, unparsable):
    """In each, the first response is to the first question. A response without the form that the study asks for has no answer."""
    loaded = load(SMOLLM2 / f"{study}.toml")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    task = msgspec.structs.replace(loaded.task, questions=str(tmp_path / "rows.jsonl"))
    questions = load_questions(task, SMOLLM2, loaded.study.seed)
    assert [(one.id, one.answer) for one in questions] == [(row["id"], row["answer"]) for row in rows]
    assert questions[0].prompt.endswith(asked)
    grade = make_grader(task, SMOLLM2, loaded.study.seed)
    for one, good, bad, neither in zip(questions, right, wrong, unparsable, strict=True):
        assert (grade(one, good).correct, grade(one, good).feedback) == (True, RIGHT), good
        assert not grade(one, bad).correct and grade(one, bad).feedback != NO_ANSWER, bad
        assert (grade(one, neither).correct, grade(one, neither).feedback) == (False, NO_ANSWER), neither


def test_a_broken_row_of_multiple_choice_is_left_out_as_its_study_says(tmp_path):
    """The study has `leave_out` as a comment: without it such a row is refused, with the line that helps."""
    loaded = load(SMOLLM2 / "mmlu.toml")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*MMLU, BROKEN]))
    task = msgspec.structs.replace(loaded.task, questions=str(tmp_path / "rows.jsonl"))
    with pytest.raises(StudyError, match=r'line 3: .*\["mmlu-toy_sums-0"\]'):
        load_questions(task, SMOLLM2, 0)
    kept = load_questions(msgspec.structs.replace(task, leave_out=("mmlu-toy_sums-0",)), SMOLLM2, 0)
    assert [one.id for one in kept] == ["mmlu-toy_optics-0", "mmlu-toy_sums-3"]


def test_easy_sums_are_picked_by_name_from_the_whole_file(tmp_path):
    """Rows that the study does not name are not asked, and one that it names and that is missing is said."""
    loaded = load(SMOLLM2 / "gsm8k.toml")
    other = {**GSM8K[0], "id": "gsm8k-0"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [other, *reversed(GSM8K)]))
    task = msgspec.structs.replace(loaded.task, questions=str(tmp_path / "rows.jsonl"))
    assert [one.id for one in load_questions(task, SMOLLM2, 0)] == [row["id"] for row in reversed(GSM8K)]
    (tmp_path / "rows.jsonl").write_text(json.dumps(other) + "\n")
    with pytest.raises(StudyError, match=rf"`task.only` names `{GSM8K[0]['id']}`"):
        load_questions(task, SMOLLM2, 0)
