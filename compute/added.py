"""Teachers that a study did not have, scored over a store that is there: `opd-tui add-teacher`.

Nothing stored is rewritten: a teacher has a group of its own, and one part for every part of the student. Its settings
are kept in that group, for people and for `compute --extend`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import store
from compute import models
from compute.batch import work_folder
from compute.demonstrations import Pool, Writer
from compute.errors import StudyError
from compute.judging import absent, judge
from compute.locks import lock_teacher
from compute.pipeline import Bench
from compute.progress import Reporter
from compute.residence import Residence
from compute.runner import others_of, pools_of
from compute.setup import Setup, contents_of, examine, teacher_info
from compute.shelf import Shelf, load_model, open_teacher, study_engine, transformers_engine
from compute.spooled import Spool
from compute.stopping import Ticker, check, signals
from compute.study import Study, Teacher, fingerprint, parse, parse_teacher, teacher_fingerprint, with_added, with_nulls
from compute.tasks import Question, load_questions, make_grader
from compute.teachers import require_fields
from store import writer
from store.layout import read_added_settings
from store.parts import Arrays, PartArrays, concatenate_teacher
from store.place import PathLike
from store.reader import Store
from store.tables import PartRows

#: Begins the name of the folder of a teacher's unfinished work, beside the store.
WORK = "teacher-"


@dataclass(frozen=True, slots=True)
class Addition:
    """A teacher that is ready to be added: a bench with it alone, and what the store keeps of how it was made."""

    setup: Setup
    settings: dict[str, Any]  #: see `_settings`

    @property
    def teacher(self) -> Teacher:
        """The one teacher of the bench."""
        return self.setup.bench.teachers[0].settings


@dataclass(frozen=True, slots=True)
class Judged:
    """What adding a teacher came to."""

    n_done: int  #: questions of the store that the teacher has been asked about
    n_questions: int  #: in the store
    n_without: int  #: of those asked about in this run, how many its context could not be had for
    seconds: float


def prepare_teacher(
    out: PathLike, file: Path, reporter: Reporter, *, study_file: Path | None = None, device: str = ""
) -> Addition:
    """Load what a teacher needs to be scored over the store `out`: the study's questions and student, and the teacher.

    Relative paths of the teacher count from the folder of `file`, those of the study from the folder of `study_file`, and
    without one from that of `file` too. Raises `StoreError`, and `StudyError` where the study is no longer the store's.
    """
    opened = store.open(out)
    text, folder = _read(file), file.resolve().parent
    teacher = parse_teacher(text, file)
    home = study_file.resolve().parent if study_file else folder
    study, questions = _study(opened, study_file, home)
    with_added(study, [teacher], str(file))
    require_fields([teacher], questions)
    settings = _settings(text, teacher, folder, home)
    _require_new(opened, teacher, settings)
    reporter.say("Loading models ...")
    reporter.phase("loading models")
    shared = Residence() if study.engine.resident == "one" else None
    student = load_model(study.student.model, study.student, home, device, study.sampling.stop, shared)
    _require_hash(opened, study, questions, home, student.tokens.digest())
    questions = _planned(opened, questions)
    if study.engine.threads:
        import torch

        torch.set_num_threads(study.engine.threads)
    engine = (
        study_engine(study, student, home, reporter.say)
        if _asks_student(teacher)
        else transformers_engine(study, student, lambda _text: None)
    )
    shelf = Shelf(study, home, device, Writer("", student, engine), reporter.say, shared)
    runs = (open_teacher(teacher, shelf.beside(folder)),)
    grade = make_grader(study.task, home, study.study.seed)
    bench = Bench(study, student, engine, runs, grade, Ticker(reporter), reporter.say)
    served = examine(bench, questions)
    setup = Setup(study, questions, bench, opened.attributes, shelf)
    return Addition(setup, settings | {"served": served} if served else settings)


def add(addition: Addition, out: PathLike, reporter: Reporter) -> Judged:
    """Score the teacher over every part that lacks it, also over those that appear meanwhile.

    Raises `ComputeError` where another process adds the same teacher, `StoreError` where the store cannot be written,
    `Interrupted` after a signal.
    """
    started, n_without = time.monotonic(), 0
    name = addition.teacher.id
    folder = work_folder(out) / f"{WORK}{name}"
    with lock_teacher(folder, out, name):
        writer.remove_leftovers(out)  # of runs that were killed while they published
        writer.add_teacher(out, teacher_info(addition.teacher, addition.setup.study), addition.settings)
        pools = Spool(folder, f"pools-{addition.settings['hash']}")
        opened = store.open(out)
        reporter.done, reporter.total = _progress(opened, name)
        if reporter.done:
            reporter.say(f"{reporter.done} of {reporter.total} questions have teacher {name} already.")
        with reporter, signals():
            while lacking := opened.lacking(name):
                for part in lacking:
                    n_without += _judge_part(addition, opened, part, Spool(folder, _of_part(addition, part)), pools, reporter)
                opened.refresh()
                reporter.total = len(opened.questions())
        for piece in folder.glob("*/"):  # demonstrations, and parts that nobody reads any more
            shutil.rmtree(piece, ignore_errors=True)
    return Judged(*_progress(opened, name), n_without, time.monotonic() - started)


def added_to(out: PathLike) -> tuple[str, ...]:
    """Ids of the teachers that were added to a store. Raises `StoreError` where there is none."""
    return tuple(teacher.id for teacher in store.open(out).added_teachers)


def open_added(setup: Setup, opened: Store, study_file: Path) -> tuple[Setup, str]:
    """The study with the teachers that were added to its store, by id after its own, and a hash of all of them.

    Raises `StudyError` where one is no longer what it was when it was added.
    """
    home, runs, hashes = study_file.resolve().parent, list(setup.bench.teachers), [opened.attributes.study_hash]
    for info in opened.added_teachers:
        kept = read_added_settings(opened.path, info.id)
        if not all(isinstance(kept.get(key), str) for key in ("file", "folder", "hash")):
            raise StudyError(f"{opened.path} does not say how teacher {info.id} was made, so it cannot take part in --extend.")
        where = Path(f"{opened.path}, teacher {info.id}")
        teacher, folder = parse_teacher(kept["file"], where), home / kept["folder"]
        if _settings(kept["file"], teacher, folder, home)["hash"] != kept["hash"]:
            raise StudyError(
                f"The models of teacher {info.id} in {folder} are not those that it was added with; put them back, where they "
                "lay as seen from the study file."
            )
        runs.append(open_teacher(teacher, setup.shelf.beside(folder)))
        hashes.append(kept["hash"])
    added = [run.settings for run in runs[len(setup.bench.teachers) :]]
    study = with_added(setup.study, added, str(opened.path))
    require_fields(added, setup.questions)
    bench = Bench(
        study, setup.bench.student, setup.bench.engine, tuple(runs), setup.bench.grade, setup.bench.tick, setup.bench.say
    )
    examine(
        Bench(study, bench.student, bench.engine, tuple(runs[-len(added) :]), bench.grade, bench.tick, bench.say), setup.questions
    )
    return Setup(study, setup.questions, bench, setup.attributes, setup.shelf), "-".join(hashes)


def _judge_part(addition: Addition, opened: Store, part: PartRows, spool: Spool, pools: Spool, reporter: Reporter) -> int:
    """Score one part, question by question, and publish it; how many questions had no context for the teacher."""
    setup, name = addition.setup, addition.teacher.id
    by_id = {question.id: question for question in setup.questions}
    records: list[Arrays] = []
    n_without = 0
    for row in part.rows:
        check()
        nothing = absent(row, part, len(setup.attributes.objectives), setup.study.keep.top_k)
        if not row.current:  # nobody reads it: the question was extended
            records.append(nothing)
            continue
        question = by_id[row.question_id]
        reporter.phase(f"question {question.number + 1}: teacher {name}")
        kept = spool.record(question)
        arrays = kept.teachers.get(name) if kept else _judge_question(setup, opened, question, pools)
        n_without += arrays is None and row.n_tokens > 0
        if kept is None:
            spool.keep_record(question, PartArrays({}, {name: arrays or nothing}))
        setup.bench.tick(row.n_tokens)
        records.append(arrays or nothing)
        reporter.question_done()
    writer.publish_teacher(opened.path, part.part, name, concatenate_teacher(records, part.n_children, part.n_candidates))
    spool.remove()
    return n_without


def _judge_question(setup: Setup, opened: Store, question: Question, pools: Spool) -> Arrays | None:
    has_paths = opened.line(question.id).rollouts
    written: dict[str, Pool] = pools_of(setup, question, pools) if has_paths else {}
    others = others_of(setup, question, pools) if has_paths else {}
    return judge(setup.bench, opened, question, written, others)


def _of_part(addition: Addition, part: PartRows) -> str:
    """Names the unfinished work of a part."""
    return f"{part.part}-{addition.settings['hash'][:8]}"


def _progress(opened: Store, teacher: str) -> tuple[int, int]:
    """Questions that the teacher has been asked about, and all that are in the store."""
    n_lacking = sum(row.current for part in opened.lacking(teacher) for row in part.rows)
    n_questions = len(opened.questions())
    return n_questions - n_lacking, n_questions


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"There is no teacher file {file}; it holds one [[teacher]] table as a study file has them.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"The teacher file {file} cannot be read: {getattr(error, 'strerror', error)}.") from None


def _study(opened: Store, file: Path | None, home: Path) -> tuple[Study, tuple[Question, ...]]:
    """The study that a store was computed from, with its questions, if they and the student are still there."""
    study = parse(_read(file).encode(), file) if file else parse(opened.attributes.study.encode(), Path(opened.path))
    then = opened.attributes.provenance.get("weights")
    if not isinstance(then, list) or not then:
        raise StudyError(f"{opened.path} does not say which weights it was computed with, so no teacher can be added to it.")
    now = models.weights_digest(models.locate(study.student.model, home))
    remedy = "" if file else "; --study STUDY.toml says where the study file lies, from whose folder its paths count"
    if then[0] and not now:
        raise StudyError(
            f"There is no student {study.student.model} in {home}, where the study of {opened.path} names it{remedy}."
        )
    if now != then[0]:
        raise StudyError(
            f"The weights of the student {study.student.model} in {home} are not those that {opened.path} was computed with; "
            "scores of a teacher beside them would mean nothing."
        )
    try:
        questions = load_questions(study.task, home, study.study.seed)
    except StudyError as error:
        raise StudyError(f"{str(error).rstrip('.')}{remedy}.") from None
    return with_nulls(study, len(questions)), questions


def _planned(opened: Store, questions: Sequence[Question]) -> tuple[Question, ...]:
    """The questions of the store, by its numbers: imported rollouts may answer only some of the study's."""
    wanted = set(opened.attributes.question_ids)
    return tuple(replace(one, number=number) for number, one in enumerate(one for one in questions if one.id in wanted))


def _require_hash(opened: Store, study: Study, questions: Sequence[Question], home: Path, tokens: str) -> None:
    """Raise `StudyError` unless study, questions, grader and tokenizer are the store's. Weights are looked at before."""
    provenance = opened.attributes.provenance
    if tokens != provenance.get("tokens"):
        raise StudyError(
            f"The tokenizer of the student {study.student.model} is not the one that {opened.path} was computed with."
        )
    imported = provenance.get("imported")  # its rollouts gave the store a hash of its own
    then = imported["study_hash"] if isinstance(imported, dict) else opened.attributes.study_hash
    if fingerprint(study, contents_of(study, questions, home, provenance["weights"], tokens)) != then:
        raise StudyError(
            f"The study, its questions or its grader in {home} are not those that {opened.path} was computed with; "
            "go back to those, or say with --study where they are."
        )


def _settings(text: str, teacher: Teacher, folder: Path, home: Path) -> dict[str, Any]:
    """What a store keeps of how a teacher was made: its file, where that lay as seen from the study, and its identity."""
    named = (teacher.model, teacher.context_model, teacher.summary_model)
    weights = [models.weights_digest(models.locate(name, folder)) for name in named if name]
    return {
        "file": text,
        "folder": os.path.relpath(folder, home),
        "hash": teacher_fingerprint(teacher, weights),
        "weights": weights,
    }


def _require_new(opened: Store, teacher: Teacher, settings: dict[str, Any]) -> None:
    """Raise `StudyError` where the store has another teacher of this id: it may be the same one, half done."""
    for info in opened.added_teachers:
        if info.id.lower() == teacher.id.lower():
            there = read_added_settings(opened.path, info.id)
            if info.id != teacher.id or there.get("hash") != settings["hash"]:
                raise StudyError(
                    f"{opened.path} has a teacher {info.id} already, with other settings or weights; give this one another id."
                )


def _asks_student(teacher: Teacher) -> bool:
    """Whether the student writes something for the teacher."""
    demonstrated = teacher.reads_demonstrations or teacher.context == "other"
    return (demonstrated and not teacher.context_model) or (teacher.summarised and not teacher.summary_model)
