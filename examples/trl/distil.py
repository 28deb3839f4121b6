"""Distils the tiny student in TRL by what `opd-tui decide` wrote: a context per question, or a weight per token.

python examples/trl/distil.py routing routing.jsonl
python examples/trl/distil.py weights weights.jsonl
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from torch.nn.utils.rnn import pad_sequence
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer

MODELS = Path(__file__).resolve().parent.parent / "chain_sums"
#: Three steps of a tiny model on a machine without a GPU.
SMALL: dict[str, Any] = {"per_device_train_batch_size": 8, "max_steps": 3, "learning_rate": 3e-4, "max_completion_length": 32}
SMALL |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "model_init_kwargs": {"dtype": "float32"}}
SMALL |= {"logging_steps": 1, "disable_tqdm": True, "report_to": "none", "save_strategy": "no", "output_dir": "out/trl"}


def self_config(**more: Any) -> SDFTConfig:
    """For the student with a context as the teacher."""
    return SDFTConfig(
        teacher_prompt_template="{prompt}{privileged_context}",  # the prompt that was judged
        max_prompt_length=None,  # the default cuts longer prompts at 512 tokens, from the front: the question goes first
        distillation_mode="full_logits",
        distillation_alpha=1.0,  # reverse KL, as the study has it
        num_generations=1,  # a stored rollout is one
        **more,
    )


def routed(student: str, rows: Dataset, **more: Any) -> SDFTTrainer:
    """Every question has the context in its teacher's prompt that routing chose."""
    return SDFTTrainer(model=student, args=self_config(**more), train_dataset=rows)


def stored(rows: list[dict[str, Any]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Stored rollouts and their weights, as the batch that a trainer makes of sampled ones."""

    def padded(lists: list[list[Any]], value: float, side: str = "right") -> torch.Tensor:
        return pad_sequence([torch.tensor(one) for one in lists], True, value, side).to(device)

    prompts, completions = [row["prompt_ids"] for row in rows], [row["completion_ids"] for row in rows]
    return {
        "prompt_ids": padded(prompts, pad, "left"),
        "prompt_mask": padded([[1] * len(ids) for ids in prompts], 0, "left"),
        "completion_ids": padded(completions, pad),
        "completion_mask": padded([[1] * len(ids) for ids in completions], 0),
        "weights": padded([row["weights"] for row in rows], 0),
    }


class Replayed(DistillationTrainer):
    """Another model is the teacher. This loss counts a token or does not: every weight but 0 is 1."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = stored(inputs, self._tokenizer.pad_token_id, self.accelerator.device)
        # Not the completion_mask, which also says what the models see.
        batch["tool_mask"] = (batch.pop("weights") != 0).long()
        batch["num_items_in_batch"] = self.accelerator.gather(batch["tool_mask"].sum()).sum()
        return batch


class ReplayedSelf(SDFTTrainer):
    """The student with a context is the teacher. Weights may lie between 0 and 1."""

    def sample_rollouts(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The stored ones."""
        batch = stored(inputs, self._tokenizer.pad_token_id, self.accelerator.device)
        return batch | {"raw_completion_lengths": batch["completion_mask"].sum(1)}

    def _compute_teacher_student_logits(self, model: Any, teacher_model: Any, inputs: dict[str, torch.Tensor]) -> Any:
        found = super()._compute_teacher_student_logits(model, teacher_model, inputs)
        return replace(found, loss_mask=found.loss_mask * inputs["weights"])


def weighted(student: str, rows: Dataset, teacher: str = "", **more: Any) -> Replayed | ReplayedSelf:
    """Stored rollouts, their tokens weighed; rows with a context say that the student is the teacher."""
    if "privileged_context" in rows.column_names:
        return ReplayedSelf(model=student, args=self_config(**more), train_dataset=rows)
    config = DistillationConfig(beta=1.0, teacher_model_init_kwargs={"dtype": "float32"}, **more)  # reverse KL
    return Replayed(model=student, teacher_model=teacher, args=config, train_dataset=rows)


def main(kind: str, file: str, **more: Any) -> DistillationTrainer | SDFTTrainer:
    """The trainer for a file of `opd-tui decide --kind KIND --format trl`."""
    rows, student = load_dataset("json", data_files=file, split="train"), str(MODELS / "student")
    if kind == "routing":
        return routed(student, rows, **{**SMALL, **more})
    return weighted(student, rows, str(MODELS / "teacher"), **{**SMALL, **more})


if __name__ == "__main__":
    main(*sys.argv[1:3]).train()
