"""The shard format: written, sealed, indexed, read, loaded. Only `loader`, `assemble` and `rooms` import torch."""
