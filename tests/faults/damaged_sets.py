"""A small dataset of the judge `claude`, and changes to each kind of its files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextscene.common.config_loader import SettingsError, from_tree
from nextscene.common.errors import DamagedRecord, RunStopped, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig, EncodeConfig, Rules
from nextscene.curation.ledger import SCHEMA
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.shards.format.checksums import update_checksum
from nextscene.shards.format.layout import CHECKSUMS, CONFIG, MANIFEST, PLAN, REPORT, SUMMARY, ShardName
from tests.fakes.loopback import CLAUDE, judge_budget, loopback, spans
from tests.support import build_inline, problems

SET = replace(
    CLAUDE,
    test=0.4,
    split_by="clip",
    unit_size=2,
    units_per_shard=2,
    rules=Rules(min_width=64, min_height=48),
    encode=EncodeConfig(width=64, height=48),
)
CAPTIONS = (
    "a dog runs",
    "a dog runs",
    "a cat sleeps FAIL1",
    "a bird sings FAIL3",
    "a fish swims",
    "a fox hides",
    "a horse eats REFUSE-VERIFY",
    "a cow stands",
    "a hen walks",
)
ONE, TWO = ShardName("train", 0), ShardName("train", 1)
FILES = ("tar", "offsets", "ledger", "receipt")
ACCOUNT = "calls/account.json"

Change = Callable[[Path], None]


def make(folder: Path) -> Path:
    """Build the dataset: kept, dropped, refused and failed clips in both splits, a shared answer, and a page."""
    with pytest.MonkeyPatch.context() as patch:
        api = loopback(patch)
        next(api)
        source = spans(folder, CAPTIONS)
        with source.open("a", encoding="utf-8") as file:
            file.write("missing.mp4,0,1,words of its own\n")
        build_inline(source, folder / "out", SET, judge_budget=judge_budget())
        next(api, None)
    page = b"<!doctype html><title>a page</title>"
    (folder / "out" / REPORT).write_bytes(page)
    update_checksum(Storage.at(folder / "out"), REPORT, hashlib.sha256(page).hexdigest())
    return folder / "out"


def told(out: Path) -> list[str]:
    """Return what `--verify` reports as wrong: its findings, or the error that ends it."""
    try:
        recorded = RecordedConfig.read(Storage.at(out))
        assert recorded is not None
        return problems(out, from_tree(BuildConfig, recorded.config, CONFIG))
    except (UsageError, SettingsError, DamagedRecord, RunStopped) as error:
        return [str(error)]


def changes() -> dict[str, Change]:
    """Return all changes by their names, which begin with the kind of file."""
    return {
        f"{kind}: {what}": change
        for kind, made in (
            ("ledger", _ledger()),
            ("receipt", _receipt()),
            ("tar", _tar()),
            ("manifest", _manifest()),
            ("summary", _summary()),
            ("cards", _cards()),
            ("energon", _energon()),
            ("index", _index()),
            ("plan", _plan()),
            ("config", _config()),
            ("account", _account()),
            ("answers", _answers()),
            ("sums", _sums()),
            ("page", _page()),
            ("files", _strangers()),
        )
        for what, change in made
    }


# ---- tools -----------------------------------------------------------------------------------------------------

_Named = Iterator[tuple[str, Change]]


def _json(path: str, change: Callable[[Any], object]) -> Change:
    def do(out: Path) -> None:
        value = json.loads((out / path).read_text())
        change(value)
        (out / path).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")

    return do


def _text(path: str, old: str, new: str) -> Change:
    def do(out: Path) -> None:
        text = (out / path).read_text()
        assert old in text, (path, old)
        (out / path).write_text(text.replace(old, new, 1))

    return do


def _table(path: str, change: Callable[[pa.Table], pa.Table]) -> Change:
    def do(out: Path) -> None:
        table = pq.read_table(out / path)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), out / path)

    return do


def _cell(path: str, column: str, row: int, value: Callable[[Any], Any]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(column)
        values = table.column(column).to_pylist()
        values[row] = value(values[row])
        return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))

    return _table(path, change)


def _deleted(*paths: str) -> Change:
    def do(out: Path) -> None:
        for path in paths:
            (out / path).unlink()

    return do


def _copied(source: str, target: str) -> Change:
    def do(out: Path) -> None:
        (out / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / source, out / target)

    return do


def _both(*made: Change) -> Change:
    def do(out: Path) -> None:
        for change in made:
            change(out)

    return do


# ---- shards ----------------------------------------------------------------------------------------------------


def _other(value: Any) -> Any:
    """Return another value of the same type."""
    return f"{value}x" if isinstance(value, str) else value + 1


def _ledger() -> _Named:
    for column in (name for name in SCHEMA.names if name not in ("outcome", "calls")):
        yield f"another {column}", _cell(ONE.ledger, column, 0, _other)
    for outcome, row in (("dropped", 0), ("failed", 0), ("kept", 2)):
        yield f"{outcome} in row {row}", _cell(TWO.ledger, "outcome", row, lambda _, end=outcome: end)
    for name, value in (("usd", "0.5"), ("model_served", "m"), ("message_id", "m"), ("input_tokens", 1), ("key", "k")):
        yield f"another {name} of a call", _cell(ONE.ledger, "calls", 0, partial(_call, name, value))
    yield "no calls", _cell(ONE.ledger, "calls", 0, lambda _: "")
    yield "two rows swapped", _table(ONE.ledger, lambda table: table.take([1, 0, 2, 3]))
    yield "a row twice", _table(ONE.ledger, lambda table: table.take([0, 0, 1, 2, 3]))
    yield "a row less", _table(ONE.ledger, lambda table: table.slice(1))
    yield "no rows", _table(ONE.ledger, lambda table: table.slice(0, 0))
    yield "another shard's", _copied(TWO.ledger, ONE.ledger)
    yield "deleted", _deleted(ONE.ledger)


def _call(name: str, value: object, text: str) -> str:
    calls = json.loads(text)
    return json.dumps([{**calls[0], name: value}, *calls[1:]], ensure_ascii=False)


def _receipt() -> _Named:
    yield "another sha256", _json(ONE.receipt, lambda value: value.update(sha256="0" * 64))
    yield "clips swapped", _json(ONE.receipt, lambda value: value["clip_ids"].reverse())
    yield "another crc", _json(ONE.receipt, lambda value: value["places"][0].__setitem__(4, 1))
    yield "another width", _json(ONE.receipt, lambda value: value["places"][0].__setitem__(6, 66))
    yield "another ledger's sha256", _json(ONE.receipt, lambda value: value.update(ledger_sha256="0" * 64))
    yield "no ledger's sha256", _json(ONE.receipt, lambda value: value.pop("ledger_sha256", value.pop("count", 0)))
    yield "another revision", _json(ONE.receipt, lambda value: value.update(revision=1))
    yield "another shard's", _copied(TWO.receipt, ONE.receipt)
    yield "deleted", _deleted(ONE.receipt)


def _tar() -> _Named:
    yield "another's", _copied(TWO.tar, ONE.tar)
    yield "cut short", lambda out: (out / ONE.tar).write_bytes((out / ONE.tar).read_bytes()[:-512])
    yield "another text", _retarred(lambda name, data: data.upper() if name.endswith(".txt") else data)
    yield "another verdict", _retarred(lambda name, data: data.replace(b'"Pass"', b'"Fail"'))
    yield "another video", _retarred(lambda name, data: data[:-1] + b"\1" if name.endswith(".mp4") else data)
    yield "deleted", _deleted(ONE.tar)
    yield "another's offsets", _copied(TWO.offsets, ONE.offsets)
    yield "offsets emptied", lambda out: (out / ONE.offsets).write_bytes(b"")
    yield "offsets deleted", _deleted(ONE.offsets)
    yield "shard deleted", _deleted(ONE.tar, ONE.offsets, ONE.receipt, ONE.ledger)


def _retarred(change: Callable[[str, bytes], bytes]) -> Change:
    """Return a change that writes a tar again with Python's tarfile, with the same members and changed contents."""

    def do(out: Path) -> None:
        made = io.BytesIO()
        with tarfile.open(out / ONE.tar) as old, tarfile.open(fileobj=made, mode="w") as new:
            for member in old:
                file = old.extractfile(member)
                assert file is not None
                data = change(member.name, file.read())
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
        (out / ONE.tar).write_bytes(made.getvalue())

    return do


# ---- files derived from the shards -----------------------------------------------------------------------------


def _manifest() -> _Named:
    yield "a shard less", _json(MANIFEST, lambda value: value["shards"].pop())
    yield "other order", _json(MANIFEST, lambda value: value["shards"].reverse())
    yield "not complete", _json(MANIFEST, lambda value: value.update(complete=False))
    yield "another fingerprint", _json(MANIFEST, lambda value: value.update(fingerprint="0" * 64))
    yield "another sha256", _json(MANIFEST, lambda value: value["shards"][0].update(sha256="0" * 64))
    yield "another count", _json(MANIFEST, lambda value: value["shards"][0].update(count=7))
    yield "deleted", _deleted(MANIFEST)


def _summary() -> _Named:
    for name in ("planned", "tars", "samples", "bytes", "shards_sealed", "seconds", "method", "judge", "fingerprint"):
        yield f"another {name}", _json(SUMMARY, lambda value, name=name: value.update({name: _other(value[name])}))
    yield "another count", _json(SUMMARY, lambda value: value["outcomes"][0].__setitem__(2, 6))
    yield "another reason", _json(SUMMARY, lambda value: value["outcomes"][1].__setitem__(1, "x"))
    yield "other dollars", _json(SUMMARY, lambda value: value["spending"].update(spent_usd=0.5))
    yield "other files passed over", _json(SUMMARY, lambda value: value.update(passed_over={".txt": 3}))
    yield "deleted", _deleted(SUMMARY)


def _cards() -> _Named:
    yield "README: another count", _text("README.md", "num_examples: ", "num_examples: 1")
    yield "README: another outcome", _text("README.md", "| dropped | no_pass | 1 |", "| dropped | no_pass | 2 |")
    yield "README: another sentence", _text("README.md", "# out", "# A dataset of mine")
    yield "README: a shard less", _text("README.md", f"    - {ONE.tar}\n", "")
    yield "README: deleted", _deleted("README.md")
    yield (
        "croissant: another sha256",
        _json("croissant.json", lambda value: value["distribution"][0].update(sha256="0" * 64)),
    )
    yield "croissant: a shard less", _json("croissant.json", lambda value: value["distribution"].pop(0))
    yield "croissant: another description", _json("croissant.json", lambda value: value.update(description="x"))
    yield "croissant: deleted", _deleted("croissant.json")
    yield "wids: another count", _json("wids-train.json", lambda value: value["shardlist"][0].update(nsamples=7))
    yield "wids: a shard less", _json("wids-train.json", lambda value: value["shardlist"].pop())
    yield "wids: deleted", _deleted("wids-test.json")
    yield "wids: one more", _copied("wids-train.json", "wids-valid.json")


def _energon() -> _Named:
    for what, statement in {
        "another offset": "UPDATE samples SET byte_offset = byte_offset + 512 WHERE rowid = 1",
        "another key": "UPDATE samples SET sample_key = 'x' WHERE rowid = 1",
        "a sample less": "DELETE FROM samples WHERE rowid = 1",
        "a member more": "INSERT INTO sample_parts VALUES (0, 0, 'x', 0, 0)",
        "another size": "UPDATE sample_parts SET content_byte_size = 1 WHERE rowid = 2",
    }.items():
        yield what, lambda out, statement=statement: _execute(out / ".nv-meta/index.sqlite", statement)  # type: ignore[misc]
    yield "another identity", _text(".nv-meta/index.uuid", "-", "0")
    yield "another split", _text(".nv-meta/split.yaml", "train:", "valid:")
    yield "another count", _text(".nv-meta/.info.json", ": 1", ": 9")
    yield "another class", _text(".nv-meta/dataset.yaml", "CrudeWebdataset", "Webdataset")
    yield "index deleted", _deleted(".nv-meta/index.sqlite")
    yield "a file more", _copied(".nv-meta/split.yaml", ".nv-meta/other.yaml")


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


def _index() -> _Named:
    yield "another crc", _cell("index/train.parquet", "crc32", 0, _other)
    yield "another key", _cell("index/train.parquet", "key", 0, _other)
    yield "two rows swapped", _table("index/train.parquet", lambda table: table.take([1, 0, *range(2, len(table))]))
    yield "deleted", _deleted("index/train.parquet")
    yield "one more", _copied("index/train.parquet", "index/valid.parquet")


# ---- inputs of the shards --------------------------------------------------------------------------------------


def _plan() -> _Named:
    yield "another caption", _cell(PLAN, "caption", 0, _other)
    yield "another provenance", _cell(PLAN, "provenance", 0, _other)
    yield "another caption, and its sha256 in the configuration", _both(_cell(PLAN, "caption", 0, _other), _replanned)
    yield "another place of a source, and its sha256", _both(_cell(PLAN, "location", 0, _other), _replanned)
    yield "deleted", _deleted(PLAN)


def _replanned(out: Path) -> None:
    sha256 = next(line for line in (out / CONFIG).read_text().splitlines() if line.startswith("plan_sha256"))
    _text(CONFIG, sha256, f'plan_sha256 = "{hashlib.sha256((out / PLAN).read_bytes()).hexdigest()}"')(out)


def _config() -> _Named:
    yield "another source", _text(CONFIG, 'source = "', 'source = "/elsewhere')
    yield "another sha256 of the plan", _text(CONFIG, 'plan_sha256 = "', 'plan_sha256 = "0')
    yield "another fingerprint", _text(CONFIG, 'fingerprint = "', 'fingerprint = "0')
    yield "another setting", _text(CONFIG, "crf = 18", "crf = 19")
    yield "another setting that decides", _text(CONFIG, '"encode.crf" = 18', '"encode.crf" = 19')
    yield (
        "another setting, twice",
        _both(_text(CONFIG, "crf = 18", "crf = 19"), _text(CONFIG, '"encode.crf" = 18', '"encode.crf" = 19')),
    )
    yield "another prompt", _text(CONFIG, '"prompts.caption" = "', '"prompts.caption" = "0')
    yield "another version of the cut", _text(CONFIG, "begun_with_cut = 2", "begun_with_cut = 1")
    yield "a limit", _text(CONFIG, "clip_seconds = 120.0", "clip_seconds = 12.0")
    yield "a comment", _text(CONFIG, "fingerprint", "# mine\nfingerprint")


def _account() -> _Named:
    for name, value in (("spent", "0.5"), ("lost", "0.5"), ("allowance", "7"), ("answers", 1)):
        yield f"another {name}", _json(ACCOUNT, lambda found, name=name, value=value: found.update({name: value}))
    yield "none", lambda out: (out / ACCOUNT).write_bytes(b"")
    yield "deleted", _deleted(ACCOUNT)


def segments(out: Path) -> list[Path]:
    return sorted((out / "calls").rglob("*.jsonl.gz"))


def _answers() -> _Named:
    for name, value in (("text", "other words"), ("usd", "0.5"), ("message_id", "m"), ("model_served", "m")):
        yield f"another {name}", _answer(name, value, renamed=False)
        if name != "text":
            yield f"another {name}, and the name that fits", _answer(name, value, renamed=True)
    yield "deleted", lambda out: segments(out)[-1].unlink()
    yield "another unit's", lambda out: [shutil.copyfile(segments(out)[0], segments(out)[-1])][0] and None
    yield "emptied", lambda out: [segments(out)[0].write_bytes(b"")][0] and None


def _answer(name: str, value: object, *, renamed: bool) -> Change:
    def do(out: Path) -> None:
        path = segments(out)[-1]
        answers = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        answers[0][name] = value
        data = gzip.compress(b"".join(json.dumps(answer).encode() + b"\n" for answer in answers), mtime=0)
        path.write_bytes(data)
        if renamed:
            first = path.name.partition("-")[0]
            path.rename(path.with_name(f"{first}-{hashlib.sha256(data).hexdigest()[:16]}.jsonl.gz"))

    return do


# ---- checksums and other files ---------------------------------------------------------------------------------


def _sums() -> _Named:
    def lines(change: Callable[[list[str]], list[str]]) -> Change:
        def do(out: Path) -> None:
            (out / CHECKSUMS).write_text("".join(change((out / CHECKSUMS).read_text().splitlines(keepends=True))))

        return do

    yield "a line less", lines(lambda found: found[1:])
    yield "a line more", lines(lambda found: sorted([*found, f"{'0' * 64}  LICENSE\n"], key=lambda line: line[66:]))
    yield "other order", lines(lambda found: found[::-1])
    yield "another hash", lines(lambda found: [line.replace("a", "b") for line in found])
    yield "in capitals", lines(lambda found: [line[:64].upper() + line[64:] for line in found])
    yield "another path", lines(lambda found: [line.replace(ONE.tar, TWO.tar) for line in found])
    yield "emptied", lines(lambda found: [])
    yield "deleted", _deleted(CHECKSUMS)


def _page() -> _Named:
    yield "another title", _text(REPORT, "a page", "another page")
    yield "deleted", _deleted(REPORT)


def _strangers() -> _Named:
    seven = ShardName("train", 7)
    yield "a stray tar", _copied(ONE.tar, seven.tar)
    yield "a stray ledger", _copied(ONE.ledger, seven.ledger)
    yield "a stray file", _copied(ONE.tar, "shards/extra.txt")
    yield (
        "a shard more",
        _both(
            *(_copied(getattr(ONE, name), getattr(seven, name)) for name in FILES),
            _json(seven.receipt, lambda value: value.update(index=7)),
        ),
    )
    yield "two shards swapped", _both(*map(_swapped, FILES))


def _swapped(name: str) -> Change:
    one, two = getattr(ONE, name), getattr(TWO, name)
    return _both(_copied(one, "x"), _copied(two, one), _copied("x", two), _deleted("x"))
