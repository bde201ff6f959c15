"""Hugging Face: the dataset card (README.md). Its header lists the tars, with the types and the number of samples.

Without the list, `datasets` would guess, and take the JSON files beside the tars for data.

Tested in tests/shards/exports/test_exports.py.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import fields

from nextscene.shards.exports.dataset_facts import DatasetFacts, record_fields
from nextscene.shards.format.layout import CARD
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.sample import CLIP_TYPES, Record

_DTYPES = {"str": "string", "int": "int64", "float": "float64"}
_DTYPES_OF_MEMBERS = {"mp4": "video", "jpg": "image"}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)

_READERS = """\
Take the shards from `manifest.json`, which has their sha256; with other readers:

```python
datasets.load_dataset("PATH").cast_column("mp4", datasets.Video(decode=False))
webdataset.WebDataset([f"PATH/{shard['path']}" for shard in manifest["shards"] if shard["split"] == "train"])
wids.ShardListDataset("PATH/wids-train.json", transformations=[])
megatron.energon.get_train_dataset("PATH", split_part="train", task_encoder=..., ...)  # with a Cooker of yours
mlcroissant.Dataset("PATH/croissant.json").records("train-txt")
```

wids and mlcroissant keep copies of the shards by their names, in `WIDS_CACHE` and `CROISSANT_CACHE`: give each dataset,
and each later state of it, a folder of its own.
"""


def files(manifest: Manifest, about: DatasetFacts) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content). License, language and citation are omitted: only the publisher knows them."""
    header = ["---", *_header(manifest, about), "---"]
    yield CARD, "\n".join([*header, "", *_body(manifest, about), ""]).encode()


def facts(data: bytes) -> list[str]:
    """Return what the card says of shards, splits and outcomes: its header except the title, and the count tables."""
    header, body = data.decode().split("---\n", 2)[1:]
    named = [line for line in header.splitlines() if not line.startswith("pretty_name:")]
    return named + [line for line in body.splitlines() if line.startswith(("| ", "**")) and not line.startswith("| `")]


def _header(manifest: Manifest, about: DatasetFacts) -> Iterator[str]:
    yield f"pretty_name: {_quoted(about.title)}"
    yield "task_categories: [text-to-video]"
    yield "tags: [webdataset, video, next-scene-prediction]"
    if about.machine_written:
        yield "annotations_creators: [machine-generated]"
    if not manifest.shards:
        return
    samples = sum(shard.count for shard in manifest.shards)
    yield f"size_categories: [{next((name for limit, name in _SIZES if samples < limit), '100M<n<1B')!r}]"
    yield from _data_files(manifest)
    yield from _dataset_info(manifest)


def _data_files(manifest: Manifest) -> Iterator[str]:
    """Yield each tar by its name: a pattern could match one that a retry has left behind."""
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for split in _train_first(manifest):
        yield f"  - split: {split}"
        yield "    path:"
        for shard in manifest.of_split(split):
            yield f"    - {shard.path}"


def _dataset_info(manifest: Manifest) -> Iterator[str]:
    """Yield the types, which `datasets` would guess otherwise, and the counts, which it checks."""
    yield "dataset_info:"
    yield "  features:"
    yield "  - name: json"
    yield "    struct:"
    for field in sorted(fields(Record), key=lambda field: field.name):
        yield f"    - name: {field.name}"
        yield f"      dtype: {_DTYPES[str(field.type)]}"
    members = [member for member in CLIP_TYPES[manifest.schema_version].members if member != "json"]
    for name, dtype in [(name, _DTYPES_OF_MEMBERS.get(name, "string")) for name in (*members, "__key__", "__url__")]:
        yield f"  - name: {name}"
        yield f"    dtype: {dtype}"
    yield "  splits:"
    for split in _train_first(manifest):
        shards = manifest.of_split(split)
        yield f"  - name: {split}"
        yield f"    num_bytes: {sum(shard.bytes for shard in shards)}"
        yield f"    num_examples: {sum(shard.count for shard in shards)}"


def _body(manifest: Manifest, about: DatasetFacts) -> Iterator[str]:
    yield "<!-- Each run writes this page anew: add license, language and origin to the copy that you publish. -->"
    yield ""
    yield f"# {_plain(about.title)}"
    yield ""
    yield "Clips of video, each with the text that a model is to be conditioned on, in WebDataset shards."
    yield ""
    yield f"How it was made (judge `{about.judge}`): {_plain(about.method)}."
    yield ""
    if about.machine_written:
        yield "Captions may be a model's too: `captioned_by` in the ledger names it."
        yield ""
    if not manifest.complete:
        yield "**Not complete**: the run that makes it has not ended; more shards are planned."
        yield ""
    yield from _table("split | clips | shards | bytes", _splits(manifest))
    yield from _table("outcome | reason | planned clips", _outcomes(about))
    clip = "`<key>.mp4`, the clip"
    if "jpg" in CLIP_TYPES[manifest.schema_version].members:
        clip += ", or `<key>.jpg`, if it is made of an image"
    yield f"Each sample has three members: {clip}; `<key>.txt`, the text; `<key>.json`, its record:"
    yield ""
    yield from _table("field | type | meaning", _record_fields(manifest.schema_version))
    yield _READERS


def _splits(manifest: Manifest) -> Iterator[tuple[str, str, str, str]]:
    for split in _train_first(manifest):
        shards = manifest.of_split(split)
        clips, size = sum(shard.count for shard in shards), sum(shard.bytes for shard in shards)
        yield split, f"{clips:,}", f"{len(shards):,}", f"{size:,}"


def _outcomes(about: DatasetFacts) -> Iterator[tuple[str, str, str]]:
    for outcome, reason, count in about.outcomes:
        yield _plain(outcome), _plain(reason), f"{count:,}"


def _record_fields(schema_version: int) -> Iterator[tuple[str, str, str]]:
    meanings = record_fields(schema_version)
    for field in fields(Record):
        yield f"`{field.name}`", _DTYPES[str(field.type)], meanings[field.name]


def _table(heads: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {heads} |"
    yield "|" + "---|" * len(heads.split("|"))
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _train_first(manifest: Manifest) -> list[str]:
    """Return the splits with train first: viewers show the first one."""
    return sorted(manifest.splits, key=lambda split: split != "train")


def _plain(text: str) -> str:
    """Return the text on one line, escaped so that Markdown sees no HTML and no edge of a table cell."""
    return html.escape(" ".join(text.split())).replace("|", "&#124;")


def _quoted(text: str) -> str:
    """Return a YAML string, whose escapes are those of Python."""
    escaped = text.encode("unicode_escape").decode().replace('"', '\\"')
    return f'"{escaped}"'
