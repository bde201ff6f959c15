"""The shard format: written, sealed, indexed, read, loaded. Only `loader` and `assemble` import torch."""
