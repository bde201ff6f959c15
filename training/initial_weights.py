"""The weights that a stage begins with: those of a checkpoint, or of an export of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from nextscene.common.errors import UsageError
from nextscene.common.text import first_line
from nextscene.training import checkpoint
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.model.model_folders import TRAINED_PARTS, is_export


def load_initial_weights(begin: Path, info: CheckpointInfo, parameters: Mapping[str, Tensor]) -> None:
    """Fill a model's parameters, by their names, with all that was trained up to a checkpoint or an export.

    All ranks call this alike. Raise UsageError if the weights cannot be read, or some are missing.
    """
    if not is_export(begin):
        checkpoint.load_weights(begin, info, parameters)
        return
    wanted = set(info.parameters)
    for part in TRAINED_PARTS:
        for path in sorted((begin / part).glob("*.safetensors")):
            wanted -= _fill(part, path, {name: parameters[name] for name in wanted})
    if wanted:
        raise UsageError(f"{begin} lacks {len(wanted)} trained weights, {min(wanted)} for one; copy it again")


@torch.no_grad()
def _fill(part: str, path: Path, parameters: Mapping[str, Tensor]) -> set[str]:
    """Fill the parameters that a file of a part has, and return their names."""
    filled = set()
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 – the file is not a mapping
                name = f"{part}.{key}"
                if name in parameters:
                    _copy(file.get_tensor(key), parameters[name])
                    filled.add(name)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be loaded: {first_line(error)}; copy the export again") from error
    return filled


def _copy(value: Tensor, parameter: Tensor) -> None:
    """Copy a full tensor into a parameter; of a sharded one each rank takes its own part."""
    if isinstance(parameter, DTensor):
        value = value.to(parameter.device, parameter.dtype)
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(value)
