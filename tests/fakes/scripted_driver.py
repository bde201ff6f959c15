"""A replacement of the driver process: it does the steps that it receives, each a name and its argument."""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path


def main(descriptor: int) -> None:
    line = Connection(descriptor)
    line.send_bytes(b"ready")
    for step, given in line.recv():
        if step == "send":
            line.send(given)
        elif step == "say":
            sys.stderr.write(f"{given}\n")
            sys.stderr.flush()
        elif step == "exit":
            os._exit(given)
        elif step == "kill":
            os.kill(given, signal.SIGKILL)
        elif step == "note its number":
            Path(given).write_text(str(os.getpid()))
        elif step == "answer":  # once it receives a message
            line.recv()
            line.send(given)
        elif step == "sleep":
            time.sleep(given)


if __name__ == "__main__":
    main(int(sys.argv[1]))
