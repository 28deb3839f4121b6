"""What was written is what is read, through every method and with any Zarr reader."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import store
from store.arrays import ArrayReader, Slice
from store.encoding import array_metadata
from store.errors import StoreError
from store.index import INDEX
from store.part_view import student_slices, teacher_slices
from store.parts import pad_columns, unpack_texts
from store.schema import REST_TOKEN, STUDENT, TEACHER, VOCAB, ChildKind, QuestionStatus
from store.tables import Nodes
from store.writer import PartArrays, concatenate, create, publish
from tests.stored import same_values
from tests.synthetic import OBJECTIVES, TEACHERS, root_attributes, write_store
from tests.synthetic_models import HOSTILE, SPECIALS, vocabulary

IDS = tuple(teacher.id for teacher in TEACHERS)


def test_the_root_says_what_was_put_in(shared_store: Path) -> None:
    reader = store.open(shared_store)
    assert reader.attributes == root_attributes(6)
    assert reader.teachers == TEACHERS
    assert reader.path == shared_store


def test_a_question_reads_as_it_was_written(shared_store: Path, records: list[PartArrays]) -> None:
    reader = store.open(shared_store)
    for number, record in enumerate(records):
        question = reader.question(f"q{number:03d}")
        assert [question.prompt] == unpack_texts(record.student["prompt"], record.student["prompt_start"])
        assert [question.reference_answer] == unpack_texts(
            record.student["reference_answer"], record.student["reference_answer_start"]
        )
        assert np.array_equal(question.prompt_token_ids, record.student["prompt_token_id"])
        assert question.number == number
        assert question.status == record.student["question_status"][0]
        for teacher in IDS:
            arrays = record.teachers[teacher]
            assert [reader.teacher_prompt(question.id, teacher)] == unpack_texts(
                arrays["teacher_prompt"], arrays["teacher_prompt_start"]
            )


def test_columns_along_some_rollouts_are_those_of_the_rollouts(shared_store: Path) -> None:
    reader = store.open(shared_store)
    for question, places in (("q001", range(1, 3)), ("q004", range(4)), ("q005", range(2, 4)), ("q002", range(2, 2))):
        rollouts = [reader.rollout(question, reader.line(question).rollouts[place].index) for place in places]
        student, by_teacher = reader.columns(question, places, ("logprob", "path_node"), {"entropy", "divergence"}, ["hot"])
        for name, field in (("logprob", "logprob_T"), ("path_node", "node_P")):
            expected = np.concatenate([np.empty(0, np.float32), *(getattr(rollout, field) for rollout in rollouts)])
            assert np.array_equal(student[name], expected)
        assert set(by_teacher) == {"hot"} and set(by_teacher["hot"]) == {"entropy", "divergence"}
        hot = IDS.index("hot")
        expected = np.concatenate([np.empty(0, np.float16), *(rollout.teacher_entropy_TM[:, hot] for rollout in rollouts)])
        assert np.array_equal(by_teacher["hot"]["entropy"], expected)
    assert reader.columns("q001", range(1), ("token_id",))[1] == {}
    with pytest.raises(StoreError, match="no question 'nobody'"):
        reader.columns("nobody", range(1), ("token_id",))
    with pytest.raises(StoreError, match="no teacher 'nobody'"):
        reader.columns("q001", range(1), (), ("entropy",), ["nobody"])


def test_a_rollout_reads_as_it_was_written(shared_store: Path, records: list[PartArrays]) -> None:
    reader = store.open(shared_store)
    for number, index in itertools.product(range(6), range(4)):
        student = records[number].student
        tokens = slice(*student["token_start"][index : index + 2])
        path = slice(*student["path_node_start"][index : index + 2])
        rollout = reader.rollout(f"q{number:03d}", index)
        for field, name in (
            ("token_id_T", "token_id"), ("token_source_T", "token_source"), ("logprob_T", "logprob"), ("entropy_T", "entropy"),
            ("topk_token_id_TC", "topk_token_id"), ("topk_logprob_TC", "topk_logprob"), ("tail_mass_T", "tail_mass"),
        ):  # fmt: skip
            _same(getattr(rollout, field), student[name][tokens])
        _same(rollout.node_P, student["path_node"][path])
        assert rollout.teachers == IDS
        for field, name in (
            ("teacher_logprob_TM", "logprob"), ("teacher_entropy_TM", "entropy"), ("divergence_TMD", "divergence"),
            ("teacher_topk_n_TM", "topk_n"), ("teacher_tail_mass_TM", "tail_mass"),
            ("teacher_logprob_at_student_topk_TMC", "logprob_at_student_topk"),
        ):  # fmt: skip
            for m, teacher in enumerate(IDS):
                _same(getattr(rollout, field)[:, m], records[number].teachers[teacher][name][tokens])
        for m, teacher in enumerate(IDS):
            arrays, extras = records[number].teachers[teacher], rollout.extras_M[m]
            bounds = arrays["extra_start"][tokens.start : tokens.stop + 1]
            _same(extras.start_T1, bounds - bounds[0])
            _same(extras.token_id_E, arrays["extra_token_id"][bounds[0] : bounds[-1]])
            _same(extras.logprob_E, arrays["extra_logprob"][bounds[0] : bounds[-1]])
            _same(extras.student_logprob_E, arrays["extra_student_logprob"][bounds[0] : bounds[-1]])


def test_nodes_and_completions_read_as_they_were_written(shared_store: Path, records: list[PartArrays]) -> None:
    reader = store.open(shared_store)
    for number, record in enumerate(records):
        nodes = reader.nodes(f"q{number:03d}")
        _check_nodes(nodes, record, number)
        student = record.student
        completions = reader.completions(f"q{number:03d}")
        assert len(completions) == student["completion_start"][1]
        for row, completion in enumerate(completions):
            tokens = slice(*student["completion_token_start"][row : row + 2])
            _same(completion.token_ids, student["completion_token_id"][tokens])
            assert completion.exit_node == student["completion_exit_node"][row]
            assert completion.exit_token == student["completion_exit_token"][row]
            assert completion.correct == bool(student["completion_correct"][row])


def test_the_whole_study_is_its_questions_end_to_end_whatever_the_parts(tmp_path: Path, records: list[PartArrays]) -> None:
    path = tmp_path / "S.zarr"
    create(path, root_attributes(6), vocabulary(), range(len(SPECIALS)))
    assert len(store.open(path).study_nodes()[0]) == 0
    for part, numbers in {"p-a": (5, 1), "p-b": (4,), "p-c": (3, 0, 1), "p-d": (2,)}.items():  # 1 is there twice
        publish(path, part, concatenate([records[number] for number in numbers]))
    reader = store.open(path)
    nodes, paths = reader.study_nodes()
    whole = concatenate(records)
    _check_nodes(nodes, whole, None)
    start = whole.student["node_start"]
    assert np.array_equal(nodes.question_N, np.repeat(np.arange(6), np.diff(start)))
    has_nodes = np.diff(whole.student["path_node_start"]) > 0
    assert np.array_equal(paths.node_P, whole.student["path_node"])
    assert np.array_equal(np.diff(paths.start_L1), np.diff(whole.student["path_node_start"])[has_nodes])
    assert np.array_equal(paths.rollout_index_L, whole.student["rollout_index"][has_nodes])
    assert np.array_equal(paths.correct_L, whole.student["correct"][has_nodes].astype(bool))
    assert [row.number for row in reader.questions()] == list(range(6))
    counts = reader.counts()
    assert (counts.n_questions_planned, counts.n_questions_done) == (6, 6)
    assert counts.n_tokens == len(whole.student["token_id"])
    assert counts.n_nodes == len(nodes)
    assert counts.n_completions == whole.student["group_n"][whole.student["group_forced_kind"] > 0].sum()
    only, _ = reader.study_nodes(["hot"])
    assert np.array_equal(only.teacher_logprob_MNK[0], nodes.teacher_logprob_MNK[2], equal_nan=True)
    assert reader.study_nodes([])[0].teacher_logprob_MNK.shape == (0, *nodes.token_NK.shape)


def test_the_list_of_questions_agrees_with_the_pages(shared_store: Path) -> None:
    reader = store.open(shared_store)
    for row in reader.questions():
        assert row.success_rate == reader.question(row.id).success_rate
        for rollout in row.rollouts:
            page = reader.rollout(row.id, rollout.index)
            assert (rollout.n_tokens, rollout.n_nodes, rollout.correct) == (len(page), len(page.node_P), page.correct)
    assert reader.questions()[5].status == QuestionStatus.NO_SUCCESS


def test_every_array_reads_the_same_with_zarr_alone(shared_store: Path) -> None:
    import zarr

    reader = store.open(shared_store)
    commits = [reader._catalog.parts[part] for part in reader.part_ids]
    every = [Slice("vocab", name, spec) for name, spec in VOCAB.items()]
    every += [Slice(reader._catalog.index.folder, name, spec) for name, spec in INDEX.items()]
    for commit in commits:
        rows = {name: range(_length(commit.counts, spec.dims[0])) for name, spec in STUDENT.items()}
        every += student_slices(commit, rows)
        for teacher in IDS:
            of_teacher = reader._teacher_commit(
                reader._catalog, teacher, reader._load_views(reader._catalog, [commit.part])[commit.part]
            )
            rows = {name: range(_length(of_teacher.counts, spec.dims[0])) for name, spec in TEACHER.items()}
            every += teacher_slices(teacher, of_teacher, rows)
    root = zarr.open_group(shared_store, mode="r")
    by_tensorstore = ArrayReader(shared_store, 1 << 20).read(every)
    for piece, values in zip(every, by_tensorstore, strict=True):
        array = root[piece.key]
        _same(array[...], values)
        assert array.metadata.dimension_names == piece.spec.dims
        assert json.loads((shared_store / piece.key / "zarr.json").read_text()) == array_metadata(piece.spec, array.shape)
        assert len(list((shared_store / piece.key).rglob("c/*"))) <= 2, "one shard"
    names = {f"{path}" for path, member in root.members(max_depth=None) if isinstance(member, zarr.Array)}
    assert names == {piece.key for piece in every}
    assert set(root.group_keys()) == {"vocab", "student", "teacher", "index"}


def test_unknown_names_are_refused_and_the_nearest_is_named(shared_store: Path) -> None:
    reader = store.open(shared_store)
    with pytest.raises(StoreError, match="did you mean 'q001'"):
        reader.question("q01")
    with pytest.raises(StoreError, match="no rollout 9; it has 0, 1, 2, 3"):
        reader.rollout("q001", 9)
    with pytest.raises(StoreError, match="no teacher 'ext7b'; did you mean 'ext-7b'"):
        reader.rollout("q001", 0, ["ext7b"])


def test_a_planned_question_is_told_from_an_unknown_one(tmp_path: Path) -> None:
    create(tmp_path / "S.zarr", root_attributes(3), vocabulary(), [])
    with pytest.raises(StoreError, match="not computed yet"):
        store.open(tmp_path / "S.zarr").question("q002")


def test_bytes_of_tokens_come_back_whatever_they_are(tmp_path: Path) -> None:
    reader = store.open(write_store(tmp_path / "S.zarr", n_questions=2, hostile=True))
    vocab = reader.vocab
    assert [vocab.bytes_of(token) for token in range(len(vocab))] == vocabulary(hostile=True)
    assert vocab.is_special(0)
    assert not vocab.is_special(3)
    first = vocabulary(hostile=True).index(HOSTILE[0])
    emoji = [first + HOSTILE.index(piece) for piece in (b"\xf0\x9f", b"\x98\x80")]
    assert vocab.text(emoji) == "😀"
    assert vocab.text(emoji[:1]) == "\ufffd"
    for token in (-1, len(vocab)):
        with pytest.raises(StoreError, match="outside of the vocabulary"):
            vocab.bytes_of(token)
    assert reader.question("q001[/b]\u202e").prompt.endswith("[/b]\x1b[2J\u202e漢字 😀")


def test_new_parts_appear_and_readers_never_stumble(tmp_path: Path, records: list[PartArrays]) -> None:
    path = tmp_path / "S.zarr"
    create(path, root_attributes(6), vocabulary(), range(len(SPECIALS)))
    reader = store.open(path)
    assert not reader.refresh()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            reader.refresh()
            for row in reader.questions():
                assert len(reader.rollout(row.id, 0)) == row.rollouts[0].n_tokens
            reader.counts()

    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        for number in range(2):
            publish(path, f"p-{number}", records[number])
        done.set()
        looking.result()
    reader.refresh()
    assert [row.id for row in reader.questions()] == ["q000", "q001"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_cache_gives_back_what_it_may_not_keep(tmp_path_factory: pytest.TempPathFactory, python) -> None:
    import zarr

    length, chunk = 8_000_000, 20_000
    folder = tmp_path_factory.mktemp("big")
    big = zarr.create_array(folder / "x/big", shape=(length,), dtype="f4", chunks=(chunk,), shards=(length,), compressors=None)
    big[...] = np.arange(length, dtype=np.float32)
    program = """
import sys
from pathlib import Path
from store.arrays import ArrayReader, Slice
from store.schema import ArraySpec
reader = ArrayReader(Path(sys.argv[1]), int(sys.argv[2]))
length, chunk = int(sys.argv[3]), int(sys.argv[4])
def read(at):
    reader.read([Slice("x", "big", ArraySpec("f4", ("token",), chunk, ""), (length,), at, at + 10)])
def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
read(0)
before = megabytes()
for at in range(0, length, chunk):
    read(at)
print(megabytes() - before)
"""
    unbounded, bounded = (float(python(program, folder, size, length, chunk).stdout) for size in (1 << 30, 1 << 20))
    assert unbounded > 25, "32 MB pass through"
    assert bounded < 8


def _length(counts, dim: str) -> int:
    return counts[dim.removesuffix("_bound")] + dim.endswith("_bound")


def _same(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype
    assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _same_but_wider(one: np.ndarray, other: np.ndarray, fill: float) -> None:
    """Equal, but for children that a question has not and the widest of its part has."""
    if one.ndim == 2:
        other = pad_columns(other, one.shape[1], fill)
    _same(one, other)


def _fields(nodes: Nodes) -> Iterator[tuple[np.ndarray, str]]:
    for field, name in (
        ("position_N", "node_position"), ("parent_N", "node_parent"), ("nominated_by_N", "node_nominated_by"),
        ("token_NK", "child_token_id"), ("kind_NK", "child_kind"), ("logprob_NK", "child_logprob"),
        ("child_nominated_by_NK", "child_nominated_by"), ("next_NK", "child_next"),
        ("continue_logprob_NK", "child_continue_logprob"), ("outcome_NK", "child_outcome"),
    ):  # fmt: skip
        yield getattr(nodes, field), name
    for name in (
        "launch_node",
        "forced_kind",
        "forced_token",
        "exit_node",
        "exit_token",
        "half",
        "n",
        "n_success",
        "n_truncated",
    ):
        yield getattr(nodes, f"group_{name}_G"), f"group_{name}"


def _check_nodes(nodes: Nodes, record: PartArrays, number: int | None) -> None:
    for values, name in _fields(nodes):
        _same_but_wider(values, record.student[name], STUDENT[name].fill)
    if number is not None:
        assert (nodes.question_N == number).all()
    assert nodes.objectives == OBJECTIVES
    for m, teacher in enumerate(nodes.teachers):
        _same_but_wider(nodes.teacher_logprob_MNK[m], record.teachers[teacher]["child_logprob"], np.nan)
        _same(nodes.fbar_MNO[m], record.teachers[teacher]["fbar"])


def test_the_made_up_study_is_consistent(shared_store: Path) -> None:
    nodes, _ = store.open(shared_store).study_nodes()
    there = nodes.kind_NK != ChildKind.ABSENT
    assert np.allclose(np.where(there, np.exp(nodes.logprob_NK), 0).sum(axis=1), 1, atol=1e-5)
    for teacher_logprob_NK in nodes.teacher_logprob_MNK:
        assert np.allclose(np.where(there, np.exp(teacher_logprob_NK), 0).sum(axis=1), 1, atol=1e-5)
    strata = {(n, int(t)) for n in range(len(nodes)) for t in nodes.token_NK[n] if t >= 0 or t == REST_TOKEN}
    exits = set(zip(nodes.group_exit_node_G.tolist(), nodes.group_exit_token_G.tolist(), strict=True))
    assert {at for at in exits if at[0] >= 0} <= strata
    on_path = nodes.kind_NK == ChildKind.ON_PATH
    assert on_path.any(axis=1).all()
    follows = nodes.next_NK >= 0
    assert (nodes.parent_N[nodes.next_NK[follows]] == np.nonzero(follows)[0]).all()
    assert np.isfinite(nodes.continue_logprob_NK[on_path]).all()


def test_an_array_that_is_packed_in_another_way_is_read_by_what_it_says_of_itself(
    own_store: Path, records: list[PartArrays]
) -> None:
    import zarr

    expected = store.open(own_store).rollout("q000", 0)
    for name in ("logprob", "topk_token_id"):
        folder = own_store / "student" / store.open(own_store).part_ids[0] / name
        values = zarr.open_array(folder)[...]
        chunks = (7, *values.shape[1:])
        zarr.create_array(folder, data=values, chunks=chunks, shards=None, compressors=None, overwrite=True)
    found = store.open(own_store).rollout("q000", 0)
    _same(found.logprob_T, expected.logprob_T)
    _same(found.topk_token_id_TC, expected.topk_token_id_TC)


def test_a_page_is_question_rollout_and_nodes_at_once(shared_store: Path) -> None:
    reader = store.open(shared_store)
    for index, whole in ((0, False), (2, True)):
        page = reader.page("q002", index, ["hot", "ext-7b"], whole=whole)
        for found, expected in (
            (page.question, reader.question("q002")),
            (page.rollout, reader.rollout("q002", index, ["hot", "ext-7b"])),
            (page.nodes, reader.nodes("q002", ["hot", "ext-7b"], whole=whole)),
        ):
            assert same_values(found, expected)
