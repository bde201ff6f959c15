"""Samples in an archive: members that share a name up to the first dot belong together, as WebDataset has it.

A video whose own name has dots (`Movie.2019.1080p.mp4`) is a sample of its own, named up to the last dot.

Tested in tests/curation/sources/test_sources.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from nextscene.common.errors import UsageError
from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.sources.caption import (
    NO_TEXT,
    ClipText,
    Meaning,
    bad_text,
    clip_text,
    first_flawed,
    read_caption,
    too_long,
)
from nextscene.curation.sources.caption_files import caption_name, is_text
from nextscene.curation.sources.cell_values import WrongType, text_of
from nextscene.curation.sources.clip import Clip, is_image, is_media
from nextscene.curation.sources.columns import SCENE, likely_column, or_scene
from nextscene.curation.sources.members.member import Member
from nextscene.curation.sources.members.unpacking import Packing
from nextscene.curation.sources.skipped_files import SkippedFiles

MAX_JSON_BYTES = 4 * MAX_TEXT_BYTES


Captions = Callable[[Mapping[str, Any]], ClipText]
"""A function that returns the caption in the object of a `.json`."""


class NoSample(UsageError):
    """An archive without a video or an image."""


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A file in an archive. `text` may have the caption: as many bytes of the file as can be of use.

    `member` is without a flaw, or else with one: then its clip fails, or the caption in it cannot be used.
    """

    member: Member
    text: bytes = b""

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def size(self) -> int:
        """Return the number of the file's own bytes."""
        return Packing.parse(self.member.packed).size if self.member.packed else self.member.length

    @property
    def group(self) -> str:
        """Return the file's path up to the first dot of its name."""
        folder, slash, base = self.name.rpartition("/")
        return f"{folder}{slash}{base.partition('.')[0]}"

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def is_dotted(self) -> bool:
        return self.stem != self.group

    @property
    def sample(self) -> str:
        """Return the sample that the file belongs to, as its path without suffix; `clip.mp4.txt` belongs to `clip`."""
        of_video = _is_clip(self.stem) and not _is_clip(self.name)
        return self.stem.rpartition(".")[0] if of_video else self.stem


def clips_of_samples(
    where: str,
    files: Iterable[SampleFile],
    skipped: SkippedFiles,
    scenes: bool = False,
    captions: Captions | None = None,
) -> Iterator[Clip]:
    """Yield a clip for each video or image among an archive's files, in their order; count all else in `skipped`.

    With `scenes` they have those of the source. `captions` reads the caption in a `.json`; by default it is the key
    `caption`, and a name that was probably meant for it is an error. Raise NoSample if there is none, UsageError if the
    files of a sample are not together. `where` names the archive in messages.
    """
    seen_video = False
    samples: set[str] = set()
    for _, grouped in groupby(files, key=lambda file: file.group):
        group = list(grouped)
        keys = {member.sample for member in group}
        if apart := keys & samples:
            raise UsageError(f"{where}: the members of sample {min(apart)!r} stand apart; write them together")
        samples |= keys
        used: set[str] = set()
        texts = _captions_by_stem(group)
        for video in _videos(group, where):
            seen_video = True
            caption, beside = _caption(video, texts, where, captions)
            scene, described = _scene(video, texts, where) if scenes else (NO_TEXT, "")
            member = video.member
            flawed = first_flawed(ClipText(flaw=member.flaw, flaw_detail=member.flaw_detail), caption, scene)
            used |= {video.name, beside, described}
            name = f"{member.location}/{video.stem}.{video.name.rpartition('.')[2].lower()}"
            yield Clip(
                name=name,
                identity=name,
                location=member.location,
                offset=member.offset,
                length=member.length,
                packed=member.packed,
                caption=caption.text,
                flaw=flawed.flaw,
                flaw_detail=flawed.flaw_detail,
                scene=scene.text,
            )
        for file in group:
            if file.name not in used:
                skipped.add(file.name)
    if not seen_video:
        raise NoSample(f"{where}: no sample with a video or an image")


def _videos(group: Sequence[SampleFile], where: str) -> list[SampleFile]:
    """Return the members that become clips. An image with a further dot (`a.thumb.jpg`) does so only if no other does,
    and an image of the same name as a video is its thumbnail.

    Raise UsageError if a sample has two of them.
    """
    media = [member for member in group if _is_clip(member.name)]
    with_video = {member.stem for member in media if not is_image(member.name)}
    media = [member for member in media if not (is_image(member.name) and member.stem in with_video)]
    videos = [member for member in media if not (member.is_dotted and is_image(member.name))] or media
    stems: dict[str, str] = {}
    for video in videos:
        if other := stems.get(video.stem):
            raise UsageError(
                f"{where}: sample {video.stem!r} holds {other} and {video.name}; one video a sample can be used"
            )
        stems[video.stem] = video.name
    return videos


def _is_clip(name: str) -> bool:
    """Return whether a member is a video or an image; some tools write videos as members `.video`."""
    return is_media(name) or name.lower().endswith(".video")


def is_sidecar(name: str) -> bool:
    """Return whether a name is that of a file that may have a caption or a scene."""
    return is_text(name) or name.lower().endswith(".json")


def _captions_by_stem(group: Sequence[SampleFile]) -> dict[str, list[SampleFile]]:
    """Return the members that may have captions, by their names up to the last dot, in small letters."""
    texts: dict[str, list[SampleFile]] = {}
    for member in group:
        if is_sidecar(member.name):
            texts.setdefault(member.stem.lower(), []).append(member)
    return texts


def _caption(
    video: SampleFile, texts: Mapping[str, Sequence[SampleFile]], where: str, captions: Captions | None
) -> tuple[ClipText, str]:
    """Return a video's caption and the name of the member that has it.

    It is taken from the `.txt`, else from the `.json`, else from another text file of the video.
    """
    of_stem, of_name = (texts.get(name.lower(), ()) for name in (video.stem, video.name))
    near = {member.name: member for member in (*of_stem, *of_name) if is_text(member.name)}
    beside = caption_name(video.name, near)
    if beside.lower() != f"{video.stem}.txt".lower():
        for member in of_stem:
            if not is_text(member.name):
                alone = not beside
                caption = _json_text(member, f"{where}: {member.name}", "caption", alone, captions)
                if caption != NO_TEXT:
                    return caption, member.name
    if not beside:
        return NO_TEXT, ""
    text = near[beside]
    if text.member.flaw:
        return bad_text(f"{beside}: {text.member.flaw_detail}"), beside
    return too_long(text.size) if text.size > MAX_TEXT_BYTES else read_caption(text.text), beside


def _scene(video: SampleFile, texts: Mapping[str, Sequence[SampleFile]], where: str) -> tuple[ClipText, str]:
    """Return the scene before a video, from `scene` in its `.json`, and the name of that member."""
    for member in texts.get(video.stem.lower(), ()):
        if not is_text(member.name):
            scene = _json_text(member, f"{where}: {member.name}", SCENE, alone=True)
            if scene != NO_TEXT:
                return scene, member.name
    return NO_TEXT, ""


def _json_text(member: SampleFile, where: str, meaning: Meaning, alone: bool, read: Captions | None = None) -> ClipText:
    """Return the caption or the scene in a JSON member, by `read` if it is given.

    `alone` means that no other member could have the text. Without `read`, a name that is probably meant for it is then
    a mistake: raise UsageError.
    """
    if member.member.flaw:
        return bad_text(f"{member.name}: {member.member.flaw_detail}", meaning)
    if member.size > MAX_JSON_BYTES:
        return too_long(member.size, meaning)
    try:
        value = json.loads(member.text.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return bad_text(f"{member.name} is not JSON: {error}", meaning)
    if not isinstance(value, dict):
        return NO_TEXT
    if read:
        return read(value)
    try:
        text = clip_text(text_of(value.get(meaning)), meaning)
    except WrongType as mistake:
        raise UsageError(f"{where}: `{meaning}` {mistake}") from mistake
    if alone and text == NO_TEXT and (near := likely_column(meaning, list(value))):
        more = or_scene(near) if meaning == "caption" else ""
        raise UsageError(f"{where}: {near!r} is not known, and there is no `{meaning}`; rename it to `{meaning}`{more}")
    return text
