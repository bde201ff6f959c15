"""The shard format: written, sealed, indexed, read. Nothing here imports torch at import time."""
