"""What is known of a dataset, of one of its shards, of one of its clips: gathered from whatever files say it."""

from curation.history.clip import ClipHistory, clip_history
from curation.history.find import find_clip, find_shard, shard_named
from curation.history.glance import Glance, glance
from curation.history.opened import Opened, look
from curation.history.sample import extract
from curation.history.shard import ShardHistory, shard_history

__all__ = [
    "ClipHistory", "Glance", "Opened", "ShardHistory",
    "clip_history", "extract", "find_clip", "find_shard", "glance", "look", "shard_history", "shard_named",
]  # fmt: skip
