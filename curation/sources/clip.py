"""A clip from a source, and the location of its bytes. Tested in tests/curation/sources/test_sources.py."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from pathlib import PurePosixPath

from nextscene.common.joined_storage import SEPARATOR, join_places, pieces_of
from nextscene.common.storage import Storage, split_query

VIDEO_SUFFIXES = frozenset(
    """
    .3g2 .3gp .asf .avi .divx .f4v .flv .m2t .m2ts .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogm .ogv .qt .ts .vob
    .webm .wmv
    """.split()
)
IMAGE_SUFFIXES = frozenset(".avif .bmp .jfif .jpeg .jpg .png .tif .tiff .webp".split())
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES

OPEN_END = -1
WHOLE_FILE = -1
MISSING = -1
SIZE_NOT_READ = -2


@dataclass(frozen=True, slots=True)
class Clip:
    """One span of one video, or one image.

    `name` is the video's name in records. The id is made from `identity`, which has no row number, host or scheme.
    `location` says where the bytes are: below the source's root, or absolute. A clip inside an archive is the `length`
    bytes at `offset`. `size` is MISSING if the file was not found. `digest` is that of the clip's bytes; "" if it is
    not known. `flaw` is the reason of an outcome that the source alone decides; "" if there is none. `scene` says what
    happened before the clip; "" if the source does not say so, or was not asked for scenes.

    `packed` says how the bytes are stored in an archive that packs its members; "" for bytes as they are. `crop` is the
    part of the picture to keep, as `x,y,width,height` in pixels; "" for all of it. `group` names the original video
    that the clip was cut from, if the source knows more than the file's name; else it is "".
    """

    name: str
    identity: str
    location: str
    start_ms: int = 0
    end_ms: int = OPEN_END
    caption: str = ""
    provenance: str = ""
    offset: int = 0
    length: int = WHOLE_FILE
    size: int = MISSING
    mtime_ns: int = 0
    flaw: str = ""
    flaw_detail: str = ""
    digest: str = ""
    scene: str = ""
    packed: str = ""
    crop: str = ""
    group: str = ""

    @property
    def original(self) -> str:
        """Return the name of the video that the clip was cut from. Clips of one original are in one split."""
        return self.group or self.name

    @property
    def has_place(self) -> bool:
        """Return whether the source gives the clip's location. A row that cannot be used gives none."""
        return not self.flaw or self.location != ""

    @property
    def clip_id(self) -> str:
        """Return the first 24 hexadecimal digits of the sha256 of identity and span."""
        return hashlib.sha256(f"{self.identity}\0{self.start_ms}\0{self.end_ms}".encode()).hexdigest()[:24]


def span_text(start_ms: int, end_ms: int) -> str:
    """Return a clip's span in its file, to write after the file's name; "" for the whole file."""
    if end_ms == OPEN_END:
        return f" from {start_ms / 1000:g} s" if start_ms else ""
    return f" {start_ms / 1000:g}–{end_ms / 1000:g} s"


def is_media(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in MEDIA_SUFFIXES


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True)
class Roots:
    """The roots of several sources that make one dataset, in their order."""

    storages: tuple[Storage, ...]

    @property
    def display_uri(self) -> str:
        return SEVERAL.join(storage.display_uri for storage in self.storages)


Root = Storage | Roots
"""The root of a source, or those of several."""

SEVERAL = " + "
"""The text between several sources in messages."""


def location_in(number: int, location: str) -> str:
    """Return the location of a file in the source of that number, the first being 0."""
    is_absolute = "://" in location or location.startswith("/")
    return f"{SEPARATOR}{number}{SEPARATOR}{location}" if number and location and not is_absolute else location


def first_file(location: str) -> str:
    """Return the location of the first piece of a file in pieces; of any other file, its location."""
    number, file = _split_number(location)
    return location_in(number, pieces_of(file)[0])


def locate(root: Root, location: str) -> tuple[Storage, str]:
    """Return the storage and path of a clip's `location`. Raise BadLocation.

    A relative location is below `root`, unless ".." leads out of it. An absolute path or URI does not depend on `root`.
    The location of a file in pieces (`common.joined_storage`) gives a storage that joins them.
    """
    if isinstance(root, Roots):
        number, location = _split_number(location)
        root = root.storages[number]
    if len(pieces := pieces_of(location)) > 1:
        return join_places([locate(root, piece) for piece in pieces])
    if "://" in location or location.startswith("/"):
        parent, name = split_location(location)
        return Storage.at(parent), name
    if ".." in PurePosixPath(location).parts:
        place, query = split_query(root.uri)
        scheme, slashes, path = place.rpartition("://")
        climbed = posixpath.normpath(posixpath.join(path, location))
        parent, name = split_location(f"{scheme}{slashes}{climbed}{query}")
        return Storage.at(parent), name
    return root, location


def _split_number(location: str) -> tuple[int, str]:
    """Return the number of the source that a file is in, and its location there."""
    if not location.startswith(SEPARATOR):
        return 0, location
    _, digits, file = location.split(SEPARATOR, 2)
    return int(digits), file


def split_location(uri: str) -> tuple[str, str]:
    """Return the URI of the parent folder and the last name. A query stays with the parent."""
    place, query = split_query(uri)
    parent, _, name = place.rpartition("/")
    return f"{parent or '/'}{query}", name
