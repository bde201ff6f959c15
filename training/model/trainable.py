"""The parameters that a stage trains: selection by patterns of their names, and a list for the log.

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
    """Make exactly the parameters trainable whose names match a pattern.

    Parameters of the language model are never trained. Raise UsageError if a pattern matches nothing.
    """
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
    """Return the parameters that require a gradient, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def describe_parameters(parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Return a line for each parameter, and one line for the same parameter of all layers of a stack.

    For example `transformer.transformer_blocks.*.attn1…  28 × […]`.
    """
    kinds = Counter(
        (re.sub(r"\.\d+\.", ".*.", name, count=1), "×".join(map(str, parameter.shape)))
        for name, parameter in parameters.items()
    )
    return [f"{name}  {f'{count} × ' if count > 1 else ''}[{shape}]" for (name, shape), count in kinds.items()]
