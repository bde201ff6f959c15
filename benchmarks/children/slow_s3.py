"""An object store on loopback that takes SECONDS to write a file: `slow_s3 SECONDS`.

The first line of output is the URI of a folder in it; it serves until stdin ends. The credentials of the tests must be
in the environment.
"""

from __future__ import annotations

import sys
import time

from tests.faults.object_store import Fate, store


def main(seconds: float) -> None:
    def slowly(method: str, path: str) -> Fate:
        if method == "PUT":
            time.sleep(seconds)
        return ""

    with store() as served:
        served.proxy.fate = slowly
        print(served.through_proxy("asking"), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(float(sys.argv[1]))
