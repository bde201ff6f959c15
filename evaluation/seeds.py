"""Seeds of generated videos: the same for all models, whatever the other scenes are."""

from __future__ import annotations

import hashlib


def video_seed(seed: int, scene: str, sample: int) -> int:
    """Return the seed of a scene's video number `sample`, from 0 to 2**63 - 1, a hash of the three."""
    digest = hashlib.sha256(f"{seed}\0{sample}\0{scene}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
