"""Findings about where alignment is high: along a path, with divergence, with the difficulty of the question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compute.averages import shared_questions
from compute.evidence import Evidence
from compute.findings.shape import MEANS, Finding, FindingRow, comparable, mean_rows, scored
from compute.statistics import jackknife_t, sign_flip_tests, spearman, t_interval
from store.schema import DIVERGENCES

Array = NDArray[np.float64]

#: What alignment is correlated with inside a path.
CORRELATED = ("depth", *DIVERGENCES)
#: Fewer decision points than this give a path no rank correlation.
MIN_POINTS = 4
#: Success rates from which a question counts as such; above 0 and below the last it is hard.
EASY, MEDIUM = 0.8, 0.25


def depth_profile(evidence: Evidence, *, n_bins: int = 5) -> Finding:
    """Alignment and gain along the path: means in bins of normalised depth, which is position over the path's length."""
    depth_P = evidence.depth_P
    rows = []
    for one in scored(evidence):
        for b in range(n_bins):
            low, high = b / n_bins, (b + 1) / n_bins
            inside_P = (depth_P >= low) & ((depth_P < high) | (b == n_bins - 1))
            alignment_MP = np.where(inside_P, one.alignment_MP, np.nan)
            rows += mean_rows(evidence, one.objective, f"{low:.2g}-{high:.2g}", alignment_MP, one.gain_MP)
    return Finding("depth_profile", "How alignment changes along a response", tuple(rows))


def within_path_correlation(evidence: Evidence) -> Finding:
    """Spearman's rank correlation inside a path of alignment, and of gain, with depth and with each divergence.

    One rho per path with enough decision points, averaged over the paths of a question and over questions.
    """
    averages = evidence.averages
    n_paths = len(averages.question_L)
    rows = []
    for one in scored(evidence):
        for name in CORRELATED:
            feature_MP = evidence.features.get(name)
            if feature_MP is None:
                continue
            rho_MCL = np.empty((len(feature_MP), 2, n_paths))
            for m, feature_P in enumerate(feature_MP):
                for c, score_P in enumerate((one.alignment_MP[m], one.gain_MP[m])):
                    rho_MCL[m, c] = spearman(score_P, feature_P, averages.path_P, n_paths, MIN_POINTS)
            rho_MCQ = averages.over_questions(rho_MCL)
            rho_MCQ = rho_MCQ[..., shared_questions(np.isfinite(rho_MCQ[:, 0]))]
            p_MC = sign_flip_tests(rho_MCQ.reshape(2 * len(rho_MCQ), rho_MCQ.shape[-1])).reshape(-1, 2).tolist()
            rows += [
                FindingRow(
                    teacher=teacher,
                    objective=one.objective,
                    group=name,
                    null=teacher in evidence.null_teachers,
                    intervals={"alignment": t_interval(rho_MCQ[m, 0]), "gain": t_interval(rho_MCQ[m, 1])},
                    numbers={
                        "p_alignment": p_MC[m][0],
                        "p_gain": p_MC[m][1],
                        "n_paths": int(np.isfinite(rho_MCL[m, 0]).sum()),
                    },
                )
                for m, teacher in enumerate(evidence.scores.teachers)
            ]
    return Finding("within_path_correlation", "Whether depth or divergence predicts alignment inside a path", tuple(rows))


def difficulty(evidence: Evidence) -> Finding:
    """Alignment and gain by the student's success rate: means in bins, and the slope per unit of success rate.

    Groups `easy` (from 0.8), `medium` (from 0.25), `hard` (below, above 0) and `slope`, of the least-squares line
    through the questions.
    """
    averages = evidence.averages
    rate_Q = np.array([evidence.success_rates.get(number, np.nan) for number in averages.numbers_Q.tolist()])
    bins = {
        "easy": rate_Q >= EASY,
        "medium": (rate_Q >= MEDIUM) & (rate_Q < EASY),
        "hard": (rate_Q > 0.0) & (rate_Q < MEDIUM),
    }
    rows = []
    for one in scored(evidence):
        for group, inside_Q in bins.items():
            inside_P = inside_Q[averages.question_P]
            rows += mean_rows(evidence, one.objective, group, np.where(inside_P, one.alignment_MP, np.nan), one.gain_MP)
        shared_Q = comparable(averages, one.alignment_MP)
        score_CMQ = averages.question_means(np.stack([one.alignment_MP, one.gain_MP]))[..., shared_Q]
        rate_q = rate_Q[shared_Q]
        rows += [
            FindingRow(
                teacher=teacher,
                objective=one.objective,
                group="slope",
                null=teacher in evidence.null_teachers,
                intervals={name: jackknife_t(_products(rate_q, score_CMQ[c, m]), _slope) for c, name in enumerate(MEANS)},
                numbers={"n_questions": int(shared_Q.sum())},
            )
            for m, teacher in enumerate(evidence.scores.teachers)
        ]
    return Finding("difficulty", "Whether teachers help more on easy or on hard questions", tuple(rows))


def _products(x_Q: Array, y_Q: Array) -> Array:
    """Columns whose means give a slope: [Q, 4]."""
    return np.stack([x_Q, y_Q, x_Q * y_Q, x_Q * x_Q], axis=1)


def _slope(mean_C: Array) -> Array:
    """Least-squares slope of y on x from the means of x, y, x y, x^2. NaN where x does not vary."""
    x, y, xy, xx = np.moveaxis(mean_C, -1, 0)
    variance = xx - x * x
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(variance > 1e-12, (xy - x * y) / variance, np.nan), dtype=np.float64)
