"""Croissant 1.1: the shards with their hashes and the members of each sample, as JSON-LD (croissant.json).

Each kind of member is a record set of its own, joined by key: mlcroissant reads a record set from one kind of file
only, and JSON inside an archive as text. So the fields of the JSON are a table here.

Tested in tests/shards/exports/test_exports.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from nextscene.shards.exports.dataset_facts import DatasetFacts, record_fields
from nextscene.shards.format.layout import CROISSANT
from nextscene.shards.format.manifest import Manifest, ManifestShard
from nextscene.shards.format.sample import CLIP_TYPES, Record

_Node = dict[str, Any]

_MEMBERS = {
    "json": ("application/json", "sc:Text", "the record of the clip"),
    "mp4": ("video/mp4", "sc:VideoObject", "the clip"),
    "jpg": ("image/jpeg", "sc:ImageObject", "the clip, if it is made of an image"),
    "txt": ("text/plain", "sc:Text", "the text that a model is conditioned on"),
}
_TYPES = {"str": "sc:Text", "int": "sc:Integer", "float": "sc:Float"}

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context of the Croissant 1.1 specification, verbatim."""


def files(manifest: Manifest, about: DatasetFacts) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content). Publisher, license, citation and date are omitted: only the publisher knows them."""
    yield CROISSANT, (json.dumps(_dataset(manifest, about), indent=1, ensure_ascii=False) + "\n").encode()


def facts(data: bytes) -> Any:
    """Return what the file says of the tars."""
    return [node for node in json.loads(data)["distribution"] if node["@type"] == "cr:FileObject"]


def _dataset(manifest: Manifest, about: DatasetFacts) -> _Node:
    contents = [(split, member) for split in manifest.splits for member in CLIP_TYPES[manifest.schema_version].members]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": about.title,
        "description": f"Clips of video, each with a text for a model to be conditioned on. {about.method}.",
        "rai:dataAnnotationProtocol": about.method,
        "distribution": [
            *map(_tar, manifest.shards),
            *(_file_set(split, member, manifest.of_split(split)) for split, member in contents),
        ],
        "recordSet": [
            *(_record_set(split, member) for split, member in contents),
            _field_table(manifest.schema_version),
        ],
    }


def _tar(shard: ManifestShard) -> _Node:
    return {
        "@type": "cr:FileObject",
        "@id": shard.path,
        "contentUrl": shard.path,
        "contentSize": f"{shard.bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": shard.sha256,
    }


def _file_set(split: str, member: str, shards: tuple[ManifestShard, ...]) -> _Node:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-{member}-files",
        "containedIn": [{"@id": shard.path} for shard in shards],
        "encodingFormat": _MEMBERS[member][0],
        "includes": f"*.{member}",
    }


def _record_set(split: str, member: str) -> _Node:
    name = f"{split}-{member}"
    _, data_type, meaning = _MEMBERS[member]
    key = _from_file(name, "filename") | {"transform": {"regex": rf"^([a-z0-9]+)\.{member}$"}}
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "key": {"@id": f"{name}/key"},
        "field": [
            _field(f"{name}/key", "the key of the clip", "sc:Text") | {"source": key},
            _field(f"{name}/{member}", meaning, data_type) | {"source": _from_file(name, "content")},
        ],
    }


def _from_file(name: str, part: str) -> _Node:
    return {"fileSet": {"@id": f"{name}-files"}, "extract": {"fileProperty": part}}


def _field_table(schema_version: int) -> _Node:
    columns = [f"json-fields/{column}" for column in ("name", "type", "description")]
    meanings = record_fields(schema_version)
    rows = [(field.name, _TYPES[str(field.type)], meanings[field.name]) for field in fields(Record)]
    return {
        "@type": "cr:RecordSet",
        "@id": "json-fields",
        "key": {"@id": "json-fields/name"},
        "field": [_field(column, column.partition("/")[2], "sc:Text") for column in columns],
        "data": [dict(zip(columns, row, strict=True)) for row in rows],
    }


def _field(name: str, description: str, data_type: str) -> _Node:
    return {"@type": "cr:Field", "@id": name, "description": description, "dataType": data_type}
