"""The variables by which torchrun describes this process: its rank and the world size, read without importing torch.

Tested in tests/pipelines/test_train.py.
"""

from __future__ import annotations

import os

from nextscene.common.errors import UsageError

_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_ALONE = "start the command by torchrun, or unset RANK and WORLD_SIZE"
_TASKS = "SLURM_STEP_NUM_TASKS"
_PARENT = os.getppid()


def rank_and_world(meeting: bool = False) -> tuple[int, int]:
    """Return the rank of this process and the world size: 0 and 1 for a process alone.

    Raise UsageError if the variables are inconsistent. With `meeting`, raise it also if the process belongs to a group
    and the address or the port at which its processes connect is missing or invalid, or if it is one of several tasks
    that srun started without torchrun.
    """
    rank, world = (os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if not (_is_number(rank) and _is_number(world) and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} WORLD_SIZE={world} is not a process of a group; {_ALONE}")
    if meeting and "RANK" in os.environ:
        for name in _MEETING:
            if not os.environ.get(name):
                raise UsageError(f"RANK is set and {name} is not, where processes meet; {_ALONE}")
        if not _is_number(port := os.environ["MASTER_PORT"]):
            raise UsageError(f"MASTER_PORT={port} is not the number of a port; {_ALONE}")
    if meeting and "RANK" not in os.environ and int(world) > 1:
        raise UsageError(f"WORLD_SIZE={world} is set and RANK is not; {_ALONE}")
    if meeting and "RANK" not in os.environ and (tasks := os.environ.get(_TASKS, "1")) != "1":
        raise UsageError(
            f"srun started {tasks} processes ({_TASKS}), which do not know each other; let it start one torchrun on"
            " each node: srun --ntasks-per-node 1 torchrun …"
        )
    local = os.environ.get("LOCAL_RANK", "0")
    if not _is_number(local):
        raise UsageError(f"LOCAL_RANK={local} is not the number of a process; {_ALONE}")
    return int(rank), int(world)


def torchrun_has_ended() -> bool:
    """Return whether torchrun started this process, and has ended before it: nothing ends or restarts it any more."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != _PARENT


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
