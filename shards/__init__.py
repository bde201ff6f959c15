"""The shard format: written, sealed, indexed, read, loaded. Only `loader`, `assemble` and `rooms` import torch."""

if __name__ != "nextscene.shards":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.shards")
