"""A folder on a local disk that belongs to a storage, even if that is an object store.

Tested in tests/common/test_local_state.py; a lost mount in tests/faults/test_lost_mount.py.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from nextscene.common.location import s3_endpoint
from nextscene.common.storage import Storage, StorageFault


def local_state(storage: Storage, path: str) -> Path:
    """Return the folder `path` below a local storage; for an object store, a folder of this user below TMPDIR.

    On one machine a storage always has the same folder. Buckets at different endpoints have different ones. Raise
    StorageFault.
    """
    if (below := storage.local_path(path)) is not None:
        storage.check_anchor()
        return below
    endpoint = s3_endpoint(storage.uri) if storage.uri.startswith("s3://") else ""
    place = f"{storage.display_uri}\0{path}" + (f"\0{endpoint}" if endpoint else "")
    name = hashlib.sha256(place.encode()).hexdigest()[:32]
    home = Path(tempfile.gettempdir()) / f"nextscene-state-{os.getuid()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        if home.is_symlink() or home.stat().st_uid != os.getuid():
            raise StorageFault(f"{home} belongs to another user; remove it, or set TMPDIR")
    except OSError as fault:
        raise StorageFault(f"cannot make {home}: {fault.strerror}; set TMPDIR") from fault
    return home / name
