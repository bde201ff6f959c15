"""The parameters that a stage trains: selection by patterns of their names.

Tested in tests/training/test_recipe.py.
"""

from __future__ import annotations

from collections.abc import Sequence
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
