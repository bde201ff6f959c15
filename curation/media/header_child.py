"""The process that reads the headers of untrusted files. `header_reader.py` starts it with its end of a pipe:

    python header_child.py DESCRIPTOR

A request has the limits, and `path`, which is null if the parent reads the file for the child. The answer has
`measured`, `raised` or `fault`. Any number of `read` requests may come before the answer; the parent replies to each
with bytes.

Tested in tests/curation/media/test_header_reader.py.
"""

from __future__ import annotations

import errno
import io
import json
import sys
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nextscene.common.sized_file import SizedFile
from nextscene.curation.media.child_loop import serve
from nextscene.curation.media.probe import ImplausibleHeader, NoVideo, UnreadableFile, measure

BUFFER_BYTES = 64 << 10
_EXPECTED = (UnreadableFile, NoVideo, ImplausibleHeader)


class _ServedFile(SizedFile):
    """A file that the parent process reads for this one."""

    def __init__(self, line: Connection, size: int) -> None:
        super().__init__(size)
        self._line = line

    def read_at(self, offset: int, size: int) -> bytes:
        wanted = min(size, BUFFER_BYTES)
        self._line.send_bytes(json.dumps({"read": [offset, wanted]}).encode())
        return self._line.recv_bytes(wanted)


def _answer(line: Connection, request: dict[str, Any]) -> dict[str, Any]:
    """Measure one file and return the answer for the parent. Raise MemoryError."""
    path = request["path"]
    try:
        if path is None:
            served = io.BufferedReader(_ServedFile(line, request["size"]), BUFFER_BYTES)
            return {"measured": asdict(measure(served))}
        with open(path, "rb") as file:  # noqa: PTH123
            return {"measured": asdict(measure(file, Path(path)))}
    except _EXPECTED as error:
        return {"raised": [type(error).__name__, str(error)]}
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        return {"fault": [error.errno, error.strerror or str(error)]}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}"
        return {"raised": ["RuntimeError", said]}


if __name__ == "__main__":
    serve(int(sys.argv[1]), _answer)
