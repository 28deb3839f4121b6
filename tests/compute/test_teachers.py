"""What self teachers read: the wording, where its parts come from, and that none of it is the rollout that is scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tokenizers
import transformers

import store
from compute import models, scoring
from compute.demonstrations import Pool, gather, sample_pool
from compute.errors import ComputeError, StudyError
from compute.pipeline import investigate, sample_rollouts
from compute.preview import preview
from compute.progress import Reporter
from compute.runner import run
from compute.setup import Setup, prepare
from compute.spooled import Spool
from compute.study import Teacher, load, parse, with_nulls
from compute.study.template import study_template
from compute.tasks import Question
from compute.teachers import FEEDBACK_PLACE, TEMPLATES, Material, context_of, has_context, require_fields, summary_request
from store.schema import PathKind, QuestionStatus
from tests.conftest import CHAIN_SUMS, ROOT

QUESTION = Question("q7", 0, "What is 3+4?", "seven", {"question": "What is 3+4?", "hint": "It is odd.", "source": "a book"})
MATERIAL = Material("It is seven.\n", "It is eight.\n", "One counts to seven.", "The response was graded wrong.")
#: Every self context, worded so that the tiny models' sixteen characters suffice.
CONTEXTS = {
    "answer": "|{answer}",
    "1c": "|{demonstration}",
    "1c1w": "|{demonstration}|{wrong}",
    "sum-1c": "|{summary}",
    "sum-1c1w": "|{summary}",
    "hint": "|{hint}",
    "feedback": "|{feedback}",
}
GRADER = """
import re

def grade(response, answer, question):
    found = re.findall(r"=(\\d+)\\.", response)
    return (1.0, "7") if found and found[-1] == answer else (0.0, "0")
"""


def teacher(context: str, **more: str) -> Teacher:
    return Teacher(id="t", kind="self", context=context, **more)


def study_file(folder: Path, teachers: str, *, task: str = "", rest: str = "") -> Path:
    """Three questions for the tiny models, with hints and a grader that speaks."""
    (folder / "mine.py").write_text(GRADER)
    lines = [json.loads(line) for line in (CHAIN_SUMS / "questions.jsonl").read_text().splitlines()[:4]]
    (folder / "q.jsonl").write_text("".join(json.dumps({**line, "hint": line["answer"][0]}) + "\n" for line in lines))
    path = folder / "study.toml"
    path.write_text(
        f'[study]\nname = "contexts"\n[student]\nmodel = "{CHAIN_SUMS / "student"}"\n'
        f'[task]\nquestions = "q.jsonl"\ngrader = "mine.py:grade"\nlimit = 3\n{task}\n{teachers}\n'
        "[sampling]\nn_rollouts = 24\nmax_response_tokens = 32\n"
        "[targeting]\nk = 2\nr = 1\nn_min = 20\n[demonstrations]\nsummary_tokens = 32\n[engine]\nthreads = 1\n" + rest
    )
    return path


def self_teacher(context: str, **more: str) -> str:
    settings = {"id": f"self-{context}", "kind": "self", "context": context, "context_template": CONTEXTS[context], **more}
    if context.startswith("sum-"):
        settings.setdefault(
            "summary_template", "{question}|{demonstration}{wrong}" if "1w" in context else "{question}|{demonstration}"
        )
    return "[[teacher]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    """All contexts at once; summaries and one demonstration by another model."""
    other = str(CHAIN_SUMS / "teacher")
    teachers = [self_teacher(context, **({"summary_model": other} if context == "sum-1c" else {})) for context in CONTEXTS]
    teachers.append(self_teacher("1c", id="self-1c-by-other", context_model=other))
    return prepare(study_file(tmp_path_factory.mktemp("contexts"), "\n".join(teachers)), Reporter(0))


@pytest.fixture(scope="module")
def opened(setup, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "s.zarr"
    run(setup, out, Reporter(0))
    return store.open(out)


def scored(opened) -> list:
    found = [line for line in opened.questions() if line.status is QuestionStatus.SCORED]
    assert len(found) >= 2
    return found


# wording


@pytest.mark.parametrize("context", TEMPLATES)
def test_every_wording_says_all_it_has_and_ends_with_the_request(context):
    text = context_of(teacher(context), QUESTION, MATERIAL)
    says = {
        "1c": ["It is seven."],
        "1c1w": ["correct", "It is seven.", "wrong", "It is eight."],
        "sum-1c": ["One counts to seven."],
        "sum-1c1w": ["One counts to seven."],
        "answer": ["seven"],
        "hint": ["It is odd."],
        "feedback": ["The response was graded wrong."],
        "other": ["It is seven."],
    }[context]
    places = [text.index(words) for words in says]
    assert places == sorted(places)
    assert max(places) < text.index("answer the question")
    assert "{" not in text


def test_the_two_demonstrations_are_labelled():
    text = context_of(teacher("1c1w"), QUESTION, MATERIAL)
    assert "correct response" in text[: text.index("It is seven.")]
    assert "wrong response" in text[text.index("It is seven.") : text.index("It is eight.")]


def test_a_wording_of_the_users_may_take_fields_of_the_question():
    worded = teacher("1c", context_template="{demonstration} From {source}: {answer}.")
    assert context_of(worded, QUESTION, MATERIAL) == "It is seven. From a book: seven."
    with pytest.raises(StudyError, match=r"teacher t names \{page\}"):
        require_fields([teacher("1c", context_template="{demonstration}{page}")], [QUESTION])


def test_only_a_wording_that_asks_for_it_says_the_reference_answer():
    for context in TEMPLATES:
        text = context_of(teacher(context), QUESTION, Material("one", "two", "three", "four"))
        assert ("seven" in text) is (context == "answer")


@pytest.mark.parametrize("context", ["sum-1c", "sum-1c1w"])
def test_the_summariser_is_shown_question_and_demonstrations(context):
    text = summary_request(teacher(context), QUESTION, MATERIAL)
    assert text.startswith("What is 3+4?")
    assert "It is seven." in text
    assert ("It is eight." in text) is (context == "sum-1c1w")
    assert "Sum up" in text


def test_a_hint_that_is_empty_is_none_and_one_that_is_missing_is_named():
    without = replace(QUESTION, fields={"hint": None})
    assert has_context(teacher("hint"), QUESTION, Material())
    assert not has_context(teacher("hint"), without, Material())
    with pytest.raises(StudyError, match=r"q7 has no field `clue` for teacher t.*question, hint, source"):
        require_fields([teacher("hint", hint_field="clue")], [QUESTION])


# the study file

HEAD = '[study]\nname = "s"\n[student]\nmodel = "m"\n[task]\nquestions = "q.jsonl"\n'


def ids(text: str, n_questions: int = 2) -> list[str]:
    return [one.id for one in with_nulls(parse(text.encode(), Path("s.toml")), n_questions).teacher]


def toml(kind: str, **more: object) -> str:
    return f'[[teacher]]\nid = "t-{kind}"\nkind = "{kind}"\n' + "".join(f"{k} = {json.dumps(v)}\n" for k, v in more.items())


EXTERNAL, ONE_CORRECT = toml("external", model="n"), toml("self", context="1c", context_template="see {demonstration}")


def test_nulls_are_part_of_every_study_unless_they_are_switched_off():
    assert ids(HEAD + EXTERNAL) == ["t-external", "null-t0.7", "null-t1.3"]
    assert ids(HEAD + ONE_CORRECT) == ["t-self", "null-t0.7", "null-t1.3", "null-other"]
    assert ids(HEAD.replace("[student]", "nulls = false\n[student]") + ONE_CORRECT) == ["t-self"]


def test_a_null_that_the_study_lists_is_not_added_again():
    listed = toml("temperature", temperature=0.7) + '[[teacher]]\nid = "mine"\nkind = "self"\ncontext = "other"\n'
    assert ids(HEAD + ONE_CORRECT + listed) == ["t-self", "t-temperature", "mine", "null-t1.3"]


def test_another_questions_demonstration_needs_one_and_is_worded_like_the_teachers():
    assert "null-other" not in ids(HEAD + ONE_CORRECT, n_questions=1)
    assert "null-other" not in ids(HEAD + toml("self", context="answer"))
    assert (
        with_nulls(parse((HEAD + ONE_CORRECT).encode(), Path("s.toml")), 2).teacher[-1].context_template == "see {demonstration}"
    )


def test_the_id_of_a_null_is_its_own():
    with pytest.raises(StudyError, match=r"null-t0.7.*`study.nulls` = false"):
        ids(HEAD + EXTERNAL.replace("t-external", "Null-T0.7"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"context": "1c1w", "context_template": "{demonstration}"}, "has no {wrong}"),
        ({"context": "sum-1c", "context_template": "{demonstration}"}, "has no {summary}"),
        ({"context": "sum-1c1w", "summary_template": "{demonstration}"}, "`summary_template` has no {wrong}"),
        ({"context": "hint", "context_template": "hm"}, "has no {hint}"),
        ({"context": "feedback", "context_template": "hm"}, "has no {feedback}"),
        ({"context": "answer", "context_model": "n"}, "this teacher reads none"),
        ({"context": "1c", "summary_model": "n"}, "sum-1c and sum-1c1w"),
        ({"context": "1c", "hint_field": "clue"}, "`hint_field` belongs to"),
        ({"context": "2c"}, "sum-1c1w"),
        ({}, "needs a `context`: 1c, 1c1w, sum-1c, sum-1c1w, answer, hint, feedback, other"),
    ],
)
def test_what_a_context_needs_and_what_it_would_ignore(settings, says):
    with pytest.raises(StudyError) as caught:
        ids(HEAD + toml("self", **settings))
    assert says in str(caught.value)


def test_the_commented_study_file_names_every_context():
    text = " ".join(line.removeprefix("# ") for line in study_template().splitlines())
    for context in TEMPLATES:
        assert f"{context}:" in text or f"{context}, " in text


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_a_study_with_its_nulls(path):
    study = with_nulls(load(path), 2)
    assert {"null-t0.7", "null-t1.3"} <= {one.id for one in study.teacher if one.null}
    assert len({one.id for one in study.teacher}) == len(study.teacher)


# where its parts come from


def test_nothing_of_any_context_reaches_the_students_prompt(setup, opened):
    for line in scored(opened):
        question, (asked,) = opened.question(line.id), [one for one in setup.questions if one.id == line.id]
        plain = setup.bench.student.prompt_ids(asked.fields["question"], setup.study.chat)
        assert question.prompt_token_ids.tolist() == plain


def contexts(opened, question: str) -> dict[str, list[str]]:
    """What each teacher reads after the question, cut at the bars of the wordings above."""
    found = {one.id: opened.teacher_prompt(question, one.id) for one in opened.attributes.teachers}
    return {name: text.removesuffix("<assistant>").split("|")[1:] for name, text in found.items()}


def test_every_context_holds_what_it_says(setup, opened):
    for line in scored(opened):
        (question,) = [one for one in setup.questions if one.id == line.id]
        right = {
            name: [setup.bench.grade(question, text).correct for text in parts]
            for name, parts in contexts(opened, line.id).items()
        }
        assert right["self-1c"] == right["self-1c-by-other"] == [True]
        assert right["self-1c1w"] == [True, False]
        assert right["null-other"] == [False]
        read = contexts(opened, line.id)
        assert all(read["self-sum-1c"]) and all(read["self-sum-1c1w"])
        assert read["self-answer"] == [question.answer]
        assert read["self-hint"] == [question.answer[0]]
        assert read["null-t0.7"] == read["null-t1.3"] == []


def test_no_demonstration_is_a_rollout_that_is_scored(setup, opened):
    for line in scored(opened):
        read = contexts(opened, line.id)
        shown = {
            text for name in ("self-1c", "self-1c1w", "self-sum-1c", "self-sum-1c1w", "self-1c-by-other") for text in read[name]
        }
        for row in line.rollouts:
            assert setup.bench.student.text(opened.rollout(line.id, row.index).token_id_T.tolist()) not in shown


def test_feedback_is_that_of_the_rollout(setup, opened):
    """The stored scores are those of a prompt with the rollout's own grade in it, and of no other."""
    number = [one.id for one in opened.attributes.teachers].index("self-feedback")
    student, told = setup.bench.student, set()
    for line in scored(opened):
        (question,) = [one for one in setup.questions if one.id == line.id]
        for row in line.rollouts:
            rollout = opened.rollout(line.id, row.index)
            said = "7" if row.correct else "0"
            told.add(said)
            for feedback in "70":
                prompt = student.prompt_ids(f"{question.prompt}|{feedback}", setup.study.chat)
                states = scoring.states(student, prompt, rollout.token_id_T.tolist())[:-1]
                logprob = setup.bench.student_log_probs(states).numpy()[np.arange(len(rollout)), rollout.token_id_T]
                assert np.allclose(rollout.teacher_logprob_TM[:, number], logprob, atol=1e-4) is (feedback == said)
    assert told == {"7", "0"}


def test_the_kept_prompt_marks_where_feedback_goes(opened):
    # The tiny models have no letters: of the mark they show as many unknown characters.
    shown = opened.teacher_prompt(scored(opened)[0].id, "self-feedback")
    assert shown.count("<unknown>") == len(FEEDBACK_PLACE)


def test_preview_shows_the_summarisers_prompt_and_every_teachers(setup):
    shown = dict(preview(setup, setup.questions[0]))
    assert set(shown) == {
        "student",
        *(one.id for one in setup.study.teacher),
        "self-sum-1c, the summariser",
        "self-sum-1c1w, the summariser",
    }
    (demonstration,) = shown["self-1c"].removesuffix("<assistant>").split("|")[1:]
    assert demonstration in shown["self-sum-1c, the summariser"]


def test_a_demonstration_that_is_a_chosen_rollout_gives_way(setup):
    (one,) = [one for one in setup.bench.teachers if one.settings.id == "self-1c"]
    bench = replace(setup.bench, teachers=(one,))
    texts, chosen = {3: "=1.", 5: "=2."}, {3: PathKind.CORRECT, 5: PathKind.INCORRECT}

    def picked(*pool: str) -> tuple[str | None, list[int]]:
        materials, left = gather(bench, setup.questions[0], {"": Pool(pool)}, {}, texts, chosen)
        return materials[0].demonstration if materials else None, sorted(left)

    assert picked("=1.", "=3.") == ("=3.", [3, 5])
    assert picked("=1. ") == ("=1. ", [5])  # the only one: the rollout is not scored
    assert picked() == (None, [3, 5])


def test_a_wrong_demonstration_that_cannot_be_had_leaves_the_question_out_for_all(setup):
    question, rollouts = setup.questions[0], sample_rollouts(setup.bench, setup.questions[0])
    pools = {name: Pool(("=1.", "=2."), ()) for name in {one.writer.id for one in setup.bench.teachers if one.writer}}
    found = investigate(setup.bench, question, rollouts, pools, dict.fromkeys(pools, "=3."), lambda phase, make: make())
    assert found.status is QuestionStatus.NO_DEMONSTRATION
    assert not found.batches


@pytest.mark.parametrize(("right", "spent"), [("none", 60), ("all", 20)])
def test_demonstrations_are_sampled_and_graded_up_to_sixty_times(setup, right, spent):
    graded: list[str] = []

    def grade(question: Question, text: str):
        graded.append(text)
        return replace(setup.bench.grade(question, text), correct=right == "all")

    bench = replace(setup.bench, grade=grade)
    writer = next(one.writer for one in bench.teachers if one.settings.id == "self-1c")
    pool = sample_pool(bench, writer, setup.questions[1], wants_wrong=False)
    assert spent - 10 < len(graded) <= spent  # responses that were cut off are not graded
    assert len(pool.correct) == (2 if right == "all" else 0)


def test_demonstrations_are_sampled_at_their_temperature(setup):
    writer = next(one.writer for one in setup.bench.teachers if one.settings.id == "self-1c")

    def written(temperature: float) -> set[str]:
        study = setup.study
        settings = type(study.demonstrations)(temperature=temperature, max_tries=20)
        texts: set[str] = set()

        def grade(question: Question, text: str):
            texts.add(text)
            return setup.bench.grade(question, text)

        bench = replace(setup.bench, grade=grade, study=msgspec.structs.replace(study, demonstrations=settings))
        sample_pool(bench, writer, setup.questions[1], wants_wrong=False)
        return texts

    assert setup.study.demonstrations.temperature == 0.7
    assert len(written(1e-4)) == 1 < len(written(0.7))


def test_demonstrations_are_kept_for_a_run_that_goes_on(tmp_path):
    def again() -> Pool:
        raise AssertionError("they were kept")

    pool, spool = Pool(("=1.\n", "é ⟨1⟩"), ("",)), Spool(tmp_path, "0123456789abcdef")
    assert spool.pool(QUESTION, "demonstrations", lambda: pool) == pool
    assert spool.pool(QUESTION, "demonstrations", again) == pool
    assert spool.pool(QUESTION, "demonstrations-other", Pool) == Pool()


# teachers that are refused


def test_a_teacher_with_a_really_different_tokenizer_is_refused_with_the_reason(tmp_path):
    """Byte pairs over the same characters: another vocabulary altogether."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<end>"], show_progress=False)
    made.train_from_iterator((CHAIN_SUMS / "questions.jsonl").read_text().splitlines(), trainer)
    folder = tmp_path / "other"
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<end>").save_pretrained(folder)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / name).write_bytes((CHAIN_SUMS / "teacher" / name).read_bytes())
    path = study_file(tmp_path, f'[[teacher]]\nid = "big"\nkind = "external"\nmodel = "{folder}"\n')
    with pytest.raises(
        StudyError, match=r"tokenizers of student .* and teacher .*other differ: token 0 is .*need the same tokenizer"
    ):
        prepare(path, Reporter(0))


def test_a_context_longer_than_the_teachers_window_is_refused_by_name(tmp_path):
    long = self_teacher("answer", id="wordy", context_template="|{answer}" + "+1" * 150)
    setup = prepare(study_file(tmp_path, long), Reporter(0))
    with pytest.raises(
        ComputeError, match=r"Teacher wordy: \d+ tokens of prompt and response do not fit the window of .*student, 256"
    ):
        run(setup, tmp_path / "s.zarr", Reporter(0))


def test_a_summary_that_does_not_fit_is_refused_by_name(tmp_path):
    path = study_file(tmp_path, self_teacher("sum-1c"))
    path.write_text(path.read_text().replace("summary_tokens = 32", "summary_tokens = 256"))
    with pytest.raises(ComputeError, match=r"summary for teacher self-sum-1c .* window of .*student has 256"):
        run(prepare(path, Reporter(0)), tmp_path / "s.zarr", Reporter(0))


def test_models_that_write_are_loaded_once(setup):
    by_other = [
        one.writer or one.summariser for one in setup.bench.teachers if one.settings.context_model or one.settings.summary_model
    ]
    summariser = next(one.summariser for one in setup.bench.teachers if one.settings.id == "self-sum-1c")
    assert len({id(one.model.network) for one in (*by_other, summariser) if one.id}) == 1
    assert models.weights_digest(str(CHAIN_SUMS / "teacher")) in setup.attributes.provenance["weights"]
