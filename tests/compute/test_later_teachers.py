"""A teacher that is added to a store says what it would have said in the study; `--extend` gives it its nodes."""

import hashlib
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import store
from compute.added import add, prepare_teacher
from compute.errors import ComputeError, StudyError
from compute.extension import extend
from compute.locks import lock_teacher
from compute.progress import Reporter
from compute.runner import run
from compute.setup import prepare
from compute.study import parse_teacher
from opd_tui.info import describe
from opd_tui.report.terminal import print_report
from tests.conftest import CHAIN_SUMS, OPD_TUI, small_study
from tests.stored import stored

LATE = f"""
[[teacher]]
id = "late"
kind = "external"
model = "{CHAIN_SUMS / "teacher"}"
"""
HOT = """
[[teacher]]
id = "hot"
kind = "temperature"
temperature = 1.3
"""
SHOWN = """
[[teacher]]
id = "Shown"
kind = "self"
context = "1c"
context_template = "|{demonstration}"
"""
ANSWER = SHOWN.replace('"Shown"', '"answer"').replace('"1c"', '"answer"').replace("{demonstration}", "{answer}")


def study_of(
    folder: Path, *teachers: str, objectives: str = '"reverse_kl", "minillm"', keep: str = "all", limit: int = 2
) -> Path:
    """A study with these teachers, and a file for every teacher that can be added."""
    folder.mkdir(exist_ok=True)
    path = small_study(folder, limit=limit, n_min=6)
    head, _, rest = path.read_text().partition("\n[[teacher]]")
    tail = rest[rest.index("\n[targeting]") :]
    head = head.replace("seed = 0\n", f"seed = 0\nnulls = false\nobjectives = [{objectives}]\n", 1)
    path.write_text(f'{head}{"".join(teachers)}\n[keep]\ncompletions = "{keep}"\n{tail}')
    for name, text in (("late", LATE), ("hot", HOT), ("shown", SHOWN)):
        (folder / f"{name}.toml").write_text(text)
    return path


def compute(study: Path) -> Path:
    out = study.with_name("s.zarr")
    run(prepare(study, Reporter(0)), out, Reporter(0))
    return out


def add_to(out: Path, file: Path, **more: Path) -> None:
    add(prepare_teacher(out, file, Reporter(0), **more), out, Reporter(0))


def extend_all(study: Path, out: Path) -> str:
    return extend(lambda: prepare(study, Reporter(0)), study, out, Reporter(0))


def files(out: Path) -> dict[str, str]:
    """Every file of a store and what is in it; index and manifest are caches that follow the parts."""
    found = {one.relative_to(out).as_posix(): one for one in out.rglob("*") if one.is_file()}
    caches = ("index/", "manifest.json")
    return {name: hashlib.blake2b(one.read_bytes()).hexdigest() for name, one in found.items() if not name.startswith(caches)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("later")


@pytest.fixture(scope="module")
def base(folder) -> Path:
    """A store of the study without the teachers that come later; not to be changed."""
    return compute(study_of(folder / "base", ANSWER))


@pytest.fixture
def own(base, tmp_path) -> Path:
    """A copy of it, with its study and teacher files beside it."""
    shutil.copytree(base.parent, tmp_path / "own")
    return tmp_path / "own" / "s.zarr"


@pytest.fixture(scope="module")
def late(base, folder) -> Path:
    """The store with a teacher added."""
    shutil.copytree(base.parent, folder / "late")
    add_to(folder / "late" / "s.zarr", folder / "late" / "late.toml")
    return folder / "late" / "s.zarr"


def test_it_has_the_bits_that_it_would_have_had_in_the_study(late, folder):
    whole = compute(study_of(folder / "whole", ANSWER, LATE + "nominates = false\n"))
    assert stored(late) == stored(whole)


def test_nothing_stored_is_rewritten(base, late):
    before, after = files(base), files(late)
    assert before.items() <= after.items()
    assert all(name.startswith("teacher/late/") for name in after.keys() - before.keys())
    assert not late.with_name("s.zarr.work").exists()


@pytest.fixture(scope="module")
def extended(late, folder) -> tuple[Path, str]:
    """The store extended for it, and what was said."""
    shutil.copytree(late.parent, folder / "extended")
    out = folder / "extended" / "s.zarr"
    return out, extend_all(out.with_name("study.toml"), out)


def test_an_extended_store_is_the_study_with_all_teachers_from_the_beginning(late, extended, folder):
    out, said = extended
    assert "2 questions are extended for late" in said
    assert " 0 taken" not in said  # completions that are there are not sampled again
    assert stored(out) == stored(compute(study_of(folder / "all", ANSWER, LATE)))
    assert files(late).items() <= files(out).items()


def test_it_is_marked_until_the_questions_are_extended(late, extended, capsys):
    mark = "judged at {0} of {0} nodes nominated by others".format(store.open(late).counts().n_nodes)
    assert [one["judged_only"] is None for one in describe(str(late))["teachers"]] == [True, False]
    print_report(str(late))
    assert " ".join(capsys.readouterr().out.split()).count(mark) == 1
    print_report(str(extended[0]))
    assert "nominated by others" not in capsys.readouterr().out


def test_where_there_is_nothing_to_extend_no_model_is_loaded(base, extended):
    def no_model():
        pytest.fail("a model is loaded")

    assert "No teacher was added" in extend(no_model, base, base, Reporter(0))
    assert "nothing to extend" in extend(no_model, base, extended[0], Reporter(0))


def test_a_teacher_added_after_an_extension_moves_no_bits(extended, tmp_path):
    shutil.copytree(extended[0].parent, tmp_path / "own")
    out = tmp_path / "own" / "s.zarr"
    before = store.open(out)
    nominated = {row.id: before.nodes(row.id).nominated_by_N for row in before.questions()}
    add_to(out, out.with_name("shown.toml"))  # by id it comes before the other
    after = store.open(out)
    assert [one.id for one in after.teachers] == ["answer", "Shown", "late"]
    for name, bits in nominated.items():
        assert after.judged_only(name) == {"Shown"}
        assert (after.nodes(name).nominated_by_N == (bits & 1) + (bits >> 1 << 2)).all()


def test_a_question_where_it_nominates_nothing_is_left_alone(own):
    own.with_name("late.toml").write_text(ANSWER.replace('"answer"', '"twin"', 1))
    add_to(own, own.with_name("late.toml"))
    before = files(own)
    assert "0 questions are extended for twin, 2 left alone: 0 completions" in extend_all(own.with_name("study.toml"), own)
    assert files(own) == before


def test_completions_that_were_not_kept_whole_are_unknown(tmp_path):
    out = compute(study_of(tmp_path / "sample", ANSWER, keep="sample", limit=1))
    add_to(out, out.with_name("late.toml"))
    opened = store.open(out)
    for row in opened.questions():
        nodes = opened.nodes(row.id, ["late"], whole=True)
        assert not nodes.later_n_MNK.any()
        assert (nodes.later_sum_MNK != nodes.later_sum_MNK).all()
        assert (nodes.teacher_logprob_MNK[0, nodes.kind_NK != 0] <= 0.0).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["`teacher` is missing"]),
        (LATE + HOT, ["2 teachers", "one [[teacher]]"]),
        (LATE.replace("external", "extern"), ["did you mean `external`"]),
        (LATE.replace("model", "modell"), ["is no key", "did you mean `model`"]),
        ('[[teacher]]\nid = "x"\nkind = "self"\n', ["(x)", "needs a `context`"]),
        ("[study]\nname = 'x'\n" + LATE, ["`study` is no key"]),
        ("[[teach", ["not valid TOML"]),
    ],
)
def test_a_wrong_teacher_file_says_what_is_wrong(text, says):
    with pytest.raises(StudyError) as caught:
        parse_teacher(text, Path("t.toml"))
    for words in ("t.toml", *says):
        assert words in str(caught.value)


def test_what_cannot_be_added_is_refused_in_one_sentence(own, late, tmp_path):
    def refused(out: Path, file: Path, **more: Path) -> str:
        with pytest.raises(StudyError) as caught:
            prepare_teacher(out, file, Reporter(0), **more)
        return str(caught.value)

    assert "There is no teacher file" in refused(own, tmp_path / "no.toml")
    taken = tmp_path / "taken.toml"
    taken.write_text(LATE.replace('"late"', '"Answer"'))
    assert "has a teacher of the id Answer already" in refused(own, taken)
    taken.write_text(LATE + 'dtype = "bfloat16"\n')
    assert "has a teacher late already, with other settings" in refused(late, taken)
    study = own.with_name("study.toml")
    changed = tmp_path / "student"
    shutil.copytree(CHAIN_SUMS / "student", changed)
    weights = changed / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2] + b"\0\0\0\0" + content[len(content) // 2 + 4 :])
    there = study.read_text()
    study.write_text(there.replace(str(CHAIN_SUMS / "student"), str(changed)))
    assert "weights of the student" in refused(own, own.with_name("late.toml"), study_file=study)
    study.write_text(there.replace("seed = 0", "seed = 1"))
    assert "are not those that" in refused(own, own.with_name("late.toml"), study_file=study)


def start(out: Path, teacher: str) -> subprocess.Popen[bytes]:
    words = [OPD_TUI, "add-teacher", out, out.with_name(f"{teacher}.toml")]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_one_process_at_a_time_adds_a_teacher(own):
    addition = prepare_teacher(own, own.with_name("late.toml"), Reporter(0))
    folder = own.with_name("s.zarr.work") / "teacher-late"
    with lock_teacher(folder, own, "late"), pytest.raises(ComputeError, match="adding teacher late"):
        add(addition, own, Reporter(0))
    assert not folder.exists()


@pytest.mark.full
def test_two_processes_add_two_teachers_and_survive_being_stopped(own, late):
    """One is asked to stop and the other killed, both after their first question; both are started again."""
    both = {name: start(own, name) for name in ("late", "shown")}

    def stop(name: str, number: int) -> str:
        process = both[name]
        assert process.stderr is not None
        assert any(b" 1 of 2 questions" in line for line in process.stderr)
        process.send_signal(number)
        return process.communicate(timeout=60)[1].decode()

    with ThreadPoolExecutor(2) as pool:  # each at once, while it is at its second question
        _, told = pool.map(stop, both, (signal.SIGKILL, signal.SIGTERM))
    assert both["shown"].returncode == 130, told
    assert "the same command goes on" in told
    for name in both:
        add_to(own, own.with_name(f"{name}.toml"))
    opened = store.open(own)
    assert [one.id for one in opened.added_teachers] == ["Shown", "late"]
    alone = store.open(late)
    for row in opened.questions():
        ours, theirs = opened.nodes(row.id, ["late"]), alone.nodes(row.id, ["late"])
        assert ours.teacher_logprob_MNK.tobytes() == theirs.teacher_logprob_MNK.tobytes()
    assert not opened.lacking("Shown")
    assert not own.with_name("s.zarr.work").exists()
