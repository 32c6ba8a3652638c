"""Rounding of a table to few bits in PyTorch, as a quantizer will do it later: so a model can learn to live with it."""

from __future__ import annotations

from typing import Any

BLOCK = 32
"""Numbers that share a scale."""
_LARGEST = 7
"""Of the whole numbers of 4 bits that are as many on both sides of nought."""


def round_rows(torch: Any, table: Any, block: int = BLOCK) -> Any:
    """Return a table with every ``block`` numbers of a row rounded to a multiple of a seventh of the largest of them.

    The scales are cut to 16 bits as the quantizer's are. A row's length that no block divides is one block.
    """
    rows, width = table.shape
    block = block if width % block == 0 else width
    blocks = table.detach().reshape(rows, width // block, block)
    scales = (blocks.abs().amax(dim=2, keepdim=True) / _LARGEST).clamp(min=1e-12).to(torch.float16).float()
    scales = scales.clamp(min=6e-8)
    return ((blocks / scales).round().clamp(-_LARGEST, _LARGEST) * scales).reshape(rows, width)
