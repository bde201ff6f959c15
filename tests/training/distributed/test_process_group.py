"""The meeting of the processes of a group: what keeps them apart is told in a line."""

from __future__ import annotations

import socket

import pytest
from torch.distributed import distributed_c10d

from nextscene.training.distributed.process_group import process_group
from nextscene.training.errors import TrainingStopped


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # A meeting that failed counts in the names that torch gives to groups, and torch caches meshes by other things than
    # their group: without this, a later test in the same process would be given a mesh of a group that is gone.
    monkeypatch.setattr(distributed_c10d._world, "group_count", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(TrainingStopped, match=f"cannot meet at 127.0.0.1:{port}: .*is the port taken"),
            process_group(),
        ):
            pass
