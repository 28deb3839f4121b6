"""A study with served teachers beside the same teacher run here: one set of nodes, and the same numbers where they are known."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from compute import objectives
from compute.scores import score
from compute.study import load
from compute.whole import mean_f
from store import reader
from store.schema import ABSENT_TOKEN, ChildKind
from tests.conftest import CHAIN_SUMS, run_opd, small_study
from tests.served_teacher import running

SERVED = """
[[teacher]]
id = "five"
kind = "served"
url = "{address}/top5/v1"
served_model = "tiny"
nominates = false

[[teacher]]
id = "whole"
kind = "served"
url = "{address}/key"
api = "sglang"
key_env = "SERVED_STUDY_KEY"
nominates = false
"""
OBJECTIVES = '["reverse_kl", "forward_kl", "top_k_reverse_kl(6)", "minillm"]'


def study_with(folder, address, *, limit=2):
    path = small_study(folder, limit=limit)
    text = path.read_text()
    assert "seed = 0\n" in text
    text = text.replace("seed = 0\n", f"seed = 0\nnulls = false\nobjectives = {OBJECTIVES}\n", 1)
    path.write_text(text.replace("\n[targeting]", SERVED.format(address=address) + "\n[targeting]"))
    return path


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The run, and its store."""
    folder = tmp_path_factory.mktemp("served")
    with running(CHAIN_SUMS / "teacher") as address:
        study = study_with(folder, address)
        done = run_opd("compute", study, "-o", folder / "s.zarr", env={**os.environ, "SERVED_STUDY_KEY": "sesame"})
    assert done.returncode == 0, done.stderr
    return done, folder / "s.zarr"


@pytest.fixture(scope="module")
def store(found):
    return reader.Store(found[1])


def test_the_run_says_what_the_servers_give(found):
    said = " ".join(found[0].stderr.split())
    assert "Teacher five: tiny at 127.0.0.1" in said
    assert "log-probabilities of the 5 most likely tokens, chosen ones one by one" in said
    assert "log-probabilities of all tokens, chosen ones too" in said


def test_the_key_is_nowhere_in_what_the_run_leaves(found):
    done, path = found
    assert "sesame" not in done.stdout + done.stderr
    files = [file for file in path.rglob("*") if file.is_file()]
    assert files
    assert not any(b"sesame" in file.read_bytes() for file in files)
    assert b"SERVED_STUDY_KEY" in (path / "zarr.json").read_bytes()
    assert json.loads((path / "zarr.json").read_bytes())["attributes"]["provenance"]["served"]["five"]["top_k"] == 5


@pytest.mark.full
def test_what_a_server_calls_itself_reaches_no_line_and_no_store_with_key_or_controls(tmp_path):
    with running(CHAIN_SUMS / "teacher") as address:
        study = study_with(tmp_path, address, limit=1)
        study.write_text(study.read_text().replace(f"{address}/key", f"{address}/leaks"))
        words = ("compute", study, "-o", tmp_path / "s.zarr", "--log-file", tmp_path / "log")
        done = run_opd(*words, env={**os.environ, "SERVED_STUDY_KEY": "sesame"})
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log").read_text()
    assert f"Teacher whole: [2J{'m' * 90}*** at 127.0.0.1" in log
    files = [file.read_bytes() for file in (tmp_path / "s.zarr").rglob("zarr.json")]
    assert any(b"m***" in data for data in files)
    for text in (done.stdout, done.stderr, log, *(data.decode() for data in files)):
        assert "sesame" not in text
        assert "\x1b" not in text
        assert "u001b" not in text


def test_nodes_agree_with_the_teacher_run_here(store):
    nodes, _ = store.study_nodes(whole=True)
    here, five, whole = (nodes.teachers.index(name) for name in ("teacher", "five", "whole"))
    children = ~np.isin(nodes.kind_NK, (ChildKind.ABSENT, ChildKind.REST))
    assert children.sum() > 20
    logprobs = nodes.teacher_logprob_MNK
    for m in (five, whole):
        np.testing.assert_allclose(logprobs[m][children], logprobs[here][children], atol=1e-4)
    rest = nodes.kind_NK == ChildKind.REST
    sure = rest & ~np.isnan(logprobs[five])
    np.testing.assert_allclose(logprobs[five][sure], logprobs[here][sure], atol=0.1)
    assert (np.exp(logprobs[here][rest & ~sure]) < 3e-5).all()
    fbar = {name: nodes.fbar_MNO[:, :, o] for o, name in enumerate(nodes.objectives)}
    for name, values in fbar.items():
        if name != "minillm":
            np.testing.assert_allclose(values[whole], values[here], atol=2e-4, err_msg=name)
    assert np.isnan(fbar["reverse_kl"][five]).all()
    np.testing.assert_allclose(fbar["forward_kl"][five], fbar["forward_kl"][here], atol=1e-6)
    (top_k,) = (name for name in fbar if name.startswith("top_k"))
    np.testing.assert_allclose(fbar[top_k][five], fbar[top_k][here], atol=2e-4)


def test_scores_are_the_same_where_they_are_known_and_nan_elsewhere(store):
    nodes, _ = store.study_nodes(whole=True)
    here, five, whole = (nodes.teachers.index(name) for name in ("teacher", "five", "whole"))
    for support in ("sliced", "lumped", "renormalised"):
        scores = score(nodes, n_sig=5, support=support)
        scored = ~np.isnan(scores.alignment_MON[here])
        assert scored.any()
        np.testing.assert_allclose(scores.alignment_MON[whole][scored], scores.alignment_MON[here][scored], atol=2e-2)
        unknown = [o for o, name in enumerate(scores.objectives) if name in ("reverse_kl", "minillm")]
        exact = [o for o in range(len(scores.objectives)) if o not in unknown]
        np.testing.assert_allclose(
            scores.alignment_MON[five][exact][scored[exact]], scores.alignment_MON[here][exact][scored[exact]], atol=2e-2
        )
        if support == "renormalised":
            reverse = unknown[0]
            np.testing.assert_allclose(
                scores.alignment_MON[five][reverse][scored[reverse]],
                scores.alignment_MON[here][reverse][scored[reverse]],
                atol=2e-2,
            )
        else:
            assert np.isnan(scores.alignment_MON[five][unknown]).all()


def test_an_objective_switched_to_is_nan_where_it_takes_unknown_tokens(store):
    nodes, _ = store.study_nodes(whole=True)
    here, five, whole = (nodes.teachers.index(name) for name in ("teacher", "five", "whole"))
    partly = ~np.isnan(nodes.teacher_logprob_MNK[five]).all(axis=-1)
    assert partly.all()
    for name in ("jsd(0.5)", "squared_error", "chi2"):
        means = mean_f(objectives.parse(name), nodes)
        assert np.isnan(means[five]).all()
        np.testing.assert_allclose(means[whole], means[here], rtol=1e-3, atol=1e-3)
    assert (mean_f(objectives.parse("k3_loss"), nodes)[five] == 1.0).all()
    means = mean_f(objectives.parse("top_k_reverse_kl(16)"), nodes)
    assert np.isnan(means[five]).any()
    assert not np.isnan(means[here]).any()


def test_tokens_agree_and_what_is_lacking_is_marked(store):
    rows = [rollout for question in store.questions() for rollout in question.rollouts]
    assert rows
    for row in rows:
        rollout = store.rollout(row.question_id, row.index)
        here, five, whole = (rollout.teachers.index(name) for name in ("teacher", "five", "whole"))
        for m in (five, whole):
            np.testing.assert_allclose(rollout.teacher_logprob_TM[:, m], rollout.teacher_logprob_TM[:, here], atol=1e-4)
        np.testing.assert_allclose(rollout.divergence_TMD[:, whole], rollout.divergence_TMD[:, here], atol=1e-3)
        assert np.isnan(rollout.divergence_TMD[:, five]).all()
        assert (rollout.teacher_topk_n_TM[:, five] == 5).all()
        assert (rollout.teacher_topk(five).token_id_TC[:, 5:] == ABSENT_TOKEN).all()


@pytest.mark.parametrize("words", [("info",), ("report",), ("export", "--format", "jsonl", "-o", "-")])
def test_the_commands_read_a_store_that_lacks_numbers(found, words):
    done = run_opd(words[0], found[1], *words[1:])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('url = "{address}/top5/v1"', "needs `url`"),
        ('served_model = "tiny"', "needs `served_model`"),
        ('kind = "served"\nurl', ""),
    ],
)
def test_a_section_that_lacks_something_is_refused(tmp_path, line, sentence):
    path = study_with(tmp_path, "http://localhost:1")
    text = path.read_text()
    line = line.format(address="http://localhost:1")
    assert line in text
    if sentence:
        path.write_text(text.replace(line + "\n", "", 1))
    else:
        path.write_text(text.replace("http://localhost:1/top5", "http://me:secret@localhost:1/top5"))
        sentence = "may hold no name, password or query"
    with pytest.raises(Exception, match=sentence):
        load(path)


def test_moving_a_server_changes_no_hash(tmp_path):
    from compute.study import fingerprint

    one = load(study_with(tmp_path, "http://localhost:1"))
    other = load(study_with(tmp_path, "http://elsewhere:2"))
    assert fingerprint(one, {}) == fingerprint(other, {})
