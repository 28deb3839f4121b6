"""A record that waits in the spool is used again, unless it is of another schema."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from msgspec.structs import replace

from compute.spooled import Spool
from compute.tasks import Question
from tests.synthetic import question_record


def test_a_record_of_another_schema_counts_as_not_there(tmp_path: Path) -> None:
    spool, question = Spool(tmp_path, "0123456789abcdef"), Question("q000", 0, "1 + 1", "2", {})
    record = question_record(0)
    spool.keep_record(question, record)
    found = spool.record(question)
    assert found is not None
    assert np.array_equal(found.teachers["hot"]["extra_start"], record.teachers["hot"]["extra_start"])
    hot = {**record.teachers["hot"], "topk_token_id": record.student["topk_token_id"]}
    spool.keep_record(question, replace(record, teachers={**record.teachers, "hot": hot}))
    assert spool.record(question) is None
