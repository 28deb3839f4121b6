"""A served teacher along one response, beside the student: what follows from the known tokens, NaN for the rest."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray

from compute import scoring
from compute.scoring import Int32, LogProbs, TeacherScores
from compute.served.known import Known
from store.schema import ABSENT_TOKEN, DIVERGENCES


@torch.inference_mode()
def score_served(
    student: LogProbs,
    student_states: torch.Tensor,
    known: Known,
    token_ids: NDArray[np.integer],
    student_topk_TC: Int32,
) -> TeacherScores:
    """Score T tokens under what a server said of them; student's states [T, d].

    Where it named the whole vocabulary, every number is what a local teacher's would be. Else entropy and divergences
    are NaN, as are log-probabilities of unknown tokens; top-K columns beyond the server's hold ABSENT_TOKEN and NaN, and
    the tail mass is that outside the columns which are there. Positions are nominated by a gradient in which the unknown
    tokens count as one, and by differences of known tokens or those that an unknown one has at least.
    """
    if known.whole(student_vocab := scoring.rows_of(student, student_states, slice(1)).shape[-1]):
        logt_TV = torch.as_tensor(np.array([known.row(at, student_vocab) for at in range(len(known))]), dtype=torch.float32)
        logt_TV = logt_TV.to(student_states.device)
        return scoring.score_teacher(student, student_states, as_they_are, logt_TV, token_ids, student_topk_TC)

    def score(rows: slice) -> tuple[torch.Tensor, ...]:
        logp_TV = scoring.rows_of(student, student_states, rows)
        return _columns(_partly(logp_TV, known[rows], token_ids[rows], student_topk_TC[rows]))

    return TeacherScores(*scoring.in_chunks(score, len(known), scoring.chunk_on(student_states.device)))


def as_they_are(log_probs: torch.Tensor) -> torch.Tensor:
    """The log-probabilities of a teacher whose states are log-probabilities already."""
    return log_probs


def _columns(scores: TeacherScores) -> tuple[torch.Tensor, ...]:
    return tuple(torch.as_tensor(getattr(scores, one.name)) for one in fields(scores))


def _partly(logp_TV: torch.Tensor, known: Known, token_ids: NDArray[np.integer], student_topk_TC: Int32) -> TeacherScores:
    """The scores of positions at which the server did not name every token."""
    length, top_k = student_topk_TC.shape
    there_TC = known.token_id_TC != ABSENT_TOKEN
    columns = torch.as_tensor(np.where(there_TC, known.token_id_TC, 0), dtype=torch.long, device=logp_TV.device)
    logp_TC = np.where(there_TC, logp_TV.gather(-1, columns).double().cpu().numpy(), -np.inf)
    logt_TC = np.where(there_TC, known.logprob_TC, -np.inf)
    top_TC = np.arange(logt_TC.shape[1]) < np.minimum(known.n_top_T, top_k)[:, None]

    width = min(top_k, logt_TC.shape[1])
    topk_ids, topk_logt, topk_logp = np.full((length, top_k), ABSENT_TOKEN), *(np.full((length, top_k), np.nan) for _ in range(2))
    topk_ids[:, :width] = np.where(top_TC, known.token_id_TC, ABSENT_TOKEN)[:, :width]
    topk_logt[:, :width] = np.where(top_TC, logt_TC, np.nan)[:, :width]
    topk_logp[:, :width] = np.where(top_TC, logp_TC, np.nan)[:, :width]

    gradient_T, difference_T = _nomination(logp_TV, columns, there_TC, logp_TC, logt_TC, known.n_top_T)
    nan_T = np.full(length, np.nan)
    return TeacherScores(
        logprob_T=_float(known.at(np.asarray(token_ids)[:, None])[:, 0]),
        entropy_T=_float(nan_T),
        divergence_TD=_float(np.full((length, len(DIVERGENCES)), np.nan)),
        topk_token_id_TC=topk_ids.astype(np.int32),
        topk_logprob_TC=_float(topk_logt),
        student_logprob_at_topk_TC=_float(topk_logp),
        logprob_at_student_topk_TC=_float(known.at(student_topk_TC)),
        tail_mass_T=_float(np.maximum(1.0 - np.exp(np.where(top_TC, logt_TC, -np.inf)).sum(-1), 0.0)),
        gradient_T=_float(gradient_T),
        difference_T=_float(difference_T),
    )


def _nomination(
    logp_TV: torch.Tensor,
    columns: torch.Tensor,
    there_TC: NDArray[np.bool_],
    logp_TC: NDArray[np.float64],
    logt_TC: NDArray[np.float64],
    n_top_T: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest |P_j (l_j - lbar)| with the unknown tokens as one, and the largest |T_j - P_j| that is certain; each [T].

    An unknown token has at most the tail's mass, and at most that of the least likely top token.
    """
    P_TC, T_TC = np.exp(logp_TC), np.exp(logt_TC)
    p_T, t_T = np.maximum(1.0 - P_TC.sum(-1), 0.0), np.maximum(1.0 - T_TC.sum(-1), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A tail that rounds to nothing would give an infinite log-ratio: the rounding itself is its largest mass.
        l_tail_T = np.where(p_T > 0.0, np.log(np.maximum(t_T, 1e-6)) - np.log(p_T), 0.0)
        l_TC = np.where(there_TC, logt_TC - logp_TC, 0.0)
    P_all, l_all = np.concatenate([P_TC, p_T[:, None]], -1), np.concatenate([l_TC, l_tail_T[:, None]], -1)
    mean_T1 = (P_all * l_all).sum(-1, keepdims=True)
    gradient_T = np.abs(P_all * (l_all - mean_T1)).max(-1)

    last_T = np.take_along_axis(T_TC, np.maximum(n_top_T - 1, 0)[:, None], axis=-1)[:, 0]
    cap_T = np.minimum(t_T, np.where(n_top_T > 0, last_T, 1.0))
    mask = torch.zeros_like(logp_TV, dtype=torch.bool).scatter_(-1, columns, torch.as_tensor(there_TC, device=logp_TV.device))
    unknown_T = np.exp(logp_TV.masked_fill(mask, -torch.inf).amax(-1).double().cpu().numpy())
    return gradient_T, np.maximum(np.abs(T_TC - P_TC).max(-1), unknown_T - cap_T)


def _float(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)
