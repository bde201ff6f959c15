"""The findings of a verification, and the remedies for the faults among them.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nextscene.common.storage import Storage
from nextscene.curation.sealing.damaged_shards import files_to_delete
from nextscene.shards.format.layout import CHECKSUMS, ShardName


@dataclass(frozen=True)
class Finding:
    """One line of the result: a fault with its remedy, or, if not `wrong`, a note.

    `delete` are the files to be deleted as a remedy, with those of the shard that is `damaged`; `build` is True if the
    build is to be run then. If neither is given, only a copy helps.
    """

    text: str
    wrong: bool = True
    delete: tuple[str, ...] = ()
    damaged: ShardName | None = None
    build: bool = False


@dataclass(frozen=True)
class Remedy:
    """The remedy for all faults together: the files to delete, and whether the build is to be run then.

    `damaged` are the shards that it makes anew.
    """

    delete: tuple[str, ...]
    build: bool
    damaged: tuple[ShardName, ...]

    @staticmethod
    def of(out: Storage, found: Iterable[Finding]) -> Remedy:
        wrong = [finding for finding in found if finding.wrong]
        damaged = dict.fromkeys(finding.damaged for finding in wrong if finding.damaged)
        named = (path for finding in wrong for path in finding.delete)
        delete = dict.fromkeys([*files_to_delete(out, damaged), *named])
        return Remedy(tuple(delete), any(finding.build for finding in wrong), tuple(damaged))


def note(text: str) -> Finding:
    return Finding(text, wrong=False)


def to_restore(fault: str) -> Finding:
    return Finding(f"{fault}; restore it from a copy")


def to_build(text: str) -> Finding:
    """Return the finding of a fault that the build mends; `text` says so."""
    return Finding(text, build=True)


def to_delete(path: str, fault: str) -> Finding:
    return Finding(f"{path} {fault}; delete it", delete=(path,))


def to_write_anew(path: str, fault: str) -> Finding:
    return Finding(f"{path}: {fault}; delete it and run the build again to write it anew", delete=(path,), build=True)


def to_list_anew(fault: str) -> Finding:
    text = f"{fault}; delete {CHECKSUMS} and run the build again to write it anew"
    return Finding(text, delete=(CHECKSUMS,), build=True)


def to_make_anew(shard: ShardName, path: str, fault: str) -> Finding:
    return Finding(f"{path}: {fault}; restore it from a copy, or have the shard made anew", damaged=shard, build=True)
