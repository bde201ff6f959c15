"""Seeds of generated videos. They are the same for all models, and do not depend on the other scenes."""

from __future__ import annotations

import hashlib


def video_seed(seed: int, scene: str, sample: int) -> int:
    """Return the seed of a scene's video number `sample`: a hash of the three arguments, from 0 to 2**63 - 1."""
    digest = hashlib.sha256(f"{seed}\0{sample}\0{scene}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
