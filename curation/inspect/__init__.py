"""What is known of a dataset, of one of its shards, of one of its clips: gathered from whatever files say it."""

from nextscene.curation.inspect.clip import ClipHistory, clip_history
from nextscene.curation.inspect.find import find_clip, find_shard, shard_named
from nextscene.curation.inspect.open_dataset import Opened, look
from nextscene.curation.inspect.overview import Glance, glance
from nextscene.curation.inspect.sample import extract
from nextscene.curation.inspect.shard import ShardHistory, shard_history

__all__ = [
    "ClipHistory", "Glance", "Opened", "ShardHistory",
    "clip_history", "extract", "find_clip", "find_shard", "glance", "look", "shard_history", "shard_named",
]  # fmt: skip
