"""Inspection of a dataset, a shard or a clip: everything known about it, gathered from all files that exist."""

from nextscene.curation.inspect.clip import ClipHistory, clip_history
from nextscene.curation.inspect.ended import EndedClips, ended_clips
from nextscene.curation.inspect.find import find_clip, find_shard, shard_named
from nextscene.curation.inspect.open_dataset import OpenDataset, read_dataset
from nextscene.curation.inspect.overview import DatasetOverview, dataset_overview
from nextscene.curation.inspect.sample import extract
from nextscene.curation.inspect.shard import ShardHistory, shard_history

__all__ = [
    "ClipHistory",
    "DatasetOverview",
    "EndedClips",
    "OpenDataset",
    "ShardHistory",
    "clip_history",
    "dataset_overview",
    "ended_clips",
    "extract",
    "find_clip",
    "find_shard",
    "read_dataset",
    "shard_history",
    "shard_named",
]
