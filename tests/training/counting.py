"""FLOPs as torch counts them while a model runs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, autograd
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def counted(run: Callable[[], Tensor], backward: bool = False) -> int:
    """Without the positions that transformers 5.17 makes by a matrix product.

    Attention is done in plain products: the counter sees nothing in the CPU's fused one.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = run()
        if backward:
            autograd.backward(result.square().sum())
    total: int = counter.get_total_flops()
    counts = counter.get_flop_counts()
    positions = sum(sum(counts[module].values()) for module in counts if module.endswith(".rotary_emb"))
    return total - positions
