"""Which parameters a stage trains: found by patterns over their names, told exactly.

Tested in tests/training/test_recipe.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from nextscene.common.errors import UsageError
from nextscene.training.model.unified import UnifiedModel


def set_trainable(model: UnifiedModel, patterns: Sequence[str]) -> None:
    """Wants gradients for what matches a pattern and nothing else. Raises UsageError if one matches nothing."""
    named = dict(model.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named if not name.startswith("language.")):
            raise UsageError(
                f"trainable: {pattern!r} matches no parameter that can be trained; they begin with bridge.queries,"
                " bridge.connector or transformer"
            )
    for name, parameter in named.items():
        wanted = not name.startswith("language.") and any(fnmatchcase(name, pattern) for pattern in patterns)
        parameter.requires_grad_(wanted)


def trained_parameters(model: UnifiedModel) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def describe_parameters(parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """A line for each; of the layers of a stack one for all: `transformer.transformer_blocks.*.attn1…  28 × […]`."""
    kinds = Counter(
        (re.sub(r"\.\d+\.", ".*.", name, count=1), "×".join(map(str, parameter.shape)))
        for name, parameter in parameters.items()
    )
    return [f"{name}  {f'{count} × ' if count > 1 else ''}[{shape}]" for (name, shape), count in kinds.items()]
