"""Keyed random numbers: the published Philox, and independence of anything but the key."""

import numpy as np
import pytest

from compute.sampling import key, philox, uniforms

ONES = 0xFFFFFFFF
# Known answers of Random123 (kat_vectors, philox4x32-10).
KNOWN = [
    ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES), (ONES, ONES, ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0xA4093822, 0x299F31D0),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("words", "counter", "expected"), KNOWN)
def test_philox_gives_the_published_numbers(words, counter, expected):
    found = philox(np.array([words], dtype=np.uint64), np.array([counter], dtype=np.uint64))
    assert tuple(found[0].tolist()) == expected


def test_a_draw_depends_on_its_key_and_step_alone():
    keys = np.array([key(0, "q", "child", (1, 2), 3, n) for n in range(64)], dtype=np.uint64)
    together = uniforms(keys, np.arange(64))
    alone = [uniforms(keys[n : n + 1], np.array([n]))[0] for n in range(64)]
    assert together.tolist() == alone


def test_uniforms_are_uniform_and_never_0_or_1():
    keys = np.array([key(0, "q", "child", (), -1, n) for n in range(20_000)], dtype=np.uint64)
    found = uniforms(keys, np.zeros(len(keys), dtype=np.int64))
    assert 0 < found.min() < 1e-3
    assert 1 - 1e-3 < found.max() < 1
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square with 19 degrees of freedom, p = .001


@pytest.mark.parametrize(
    "other",
    [
        (1, "q", "child", (1, 2), 3, 0),
        (0, "r", "child", (1, 2), 3, 0),
        (0, "q", "rest", (1, 2), 3, 0),
        (0, "q", "child", (1,), 3, 0),
        (0, "q", "child", (1, 2), 4, 0),
        (0, "q", "child", (1, 2), 3, 1),
    ],
)
def test_every_part_of_a_name_makes_another_key(other):
    assert key(0, "q", "child", (1, 2), 3, 0) != key(*other)
