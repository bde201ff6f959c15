"""What the scripts of this folder tell of a sample; imports nothing that their environments may lack."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def record_bytes(record: dict[str, Any]) -> bytes:
    """The JSON of a sample as it was written, from what a reader parsed: the same only if no value changed its type."""
    return json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
