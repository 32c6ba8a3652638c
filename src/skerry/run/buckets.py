"""Buckets: texts of (almost) one length, which share a batch without much padding.

Measured with all-MiniLM-L6-v2 on 384 docstring lines of 9 to 26 tokens, 64 at a time, one thread of an x86-64 with
VNNI, as a multiple of one text at a time (fp32 | int8 with dynamic scales):

========= ===== =====
tolerance  fp32  int8
========= ===== =====
0          1.77  1.13
1          2.00  1.13
2          2.07  1.13
4          2.04  1.10
8          1.91  0.99
unlimited  1.36  0.69
========= ===== =====

With 16 at a time it is 1.29, 1.51, 1.64, 1.75, 1.77, 1.54 and 1.07, 1.09, 1.04, 1.04, 1.00, 0.83. One token of
tolerance is the best for int8 and close to it for fp32. More than 256 tokens in one batch changed nothing beyond
noise; the limit is there for the memory of the activations.
"""

from __future__ import annotations

from collections.abc import Sequence

TOLERANCE = 1
"""By how many tokens the texts of one batch may differ in length."""

MOST_TOKENS = 1024
"""The most tokens in one batch, padding included; one text alone may have more.

The activations of MiniLM in int8 then take 18 MB (64 texts of 16 tokens) to 38 MB (4 of 256).
"""


def buckets(lengths: Sequence[int], *, tolerance: int = TOLERANCE, most_tokens: int = MOST_TOKENS) -> list[list[int]]:
    """Return the indexes of ``lengths`` in groups, each index once, shortest texts first."""
    groups: list[list[int]] = []
    shortest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        group = groups[-1] if groups else []
        if group and length - shortest <= tolerance and (len(group) + 1) * length <= most_tokens:
            group.append(index)
        else:
            groups.append([index])
            shortest = length
    return groups
