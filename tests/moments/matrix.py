"""The matrix: each container with each stream that it holds, and files that begin or count in ways of their own."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from tests.moments.files import FPS, MILLISECONDS, Container, Stream, Video
from tests.moments.oracle import Span


def _drop_idx1(path: Path) -> None:
    data = path.read_bytes()
    at = data.rfind(b"idx1")
    assert at > len(data) // 2, f"{path.name} has no index to drop"
    path.write_bytes(data[:at])


_UNSEEKABLE = ("-seekable", "0")
_FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"

MP4 = Container("mp4", ".mp4", ("-movflags", "+faststart"))
MP4_TAIL = Container("mp4_tail", ".mp4")
MOV = Container("mov", ".mov")
FMP4 = Container("fmp4", ".mp4", ("-movflags", f"{_FRAGMENTS}+skip_trailer"))
FMP4_MFRA = Container("fmp4_mfra", ".mp4", ("-movflags", _FRAGMENTS))
FMP4_SIDX = Container("fmp4_sidx", ".mp4", ("-movflags", f"{_FRAGMENTS}+global_sidx"))
FMP4_SECOND = Container("fmp4_1s", ".mp4", ("-movflags", "empty_moov+default_base_moof", "-frag_duration", "1000000"))
MKV = Container("mkv", ".mkv", rounding=MILLISECONDS)
MKV_NO_CUES = Container("mkv_pipe", ".mkv", _UNSEEKABLE, rounding=MILLISECONDS)
WEBM = Container("webm", ".webm", sound=("libopus",), rounding=MILLISECONDS)
WEBM_NO_CUES = Container("webm_pipe", ".webm", _UNSEEKABLE, ("libopus",), MILLISECONDS)
AVI = Container("avi", ".avi", ("-r", str(FPS)), ("mp2",))
AVI_NO_INDEX = Container("avi_noidx", ".avi", ("-r", str(FPS)), ("mp2",), finish=_drop_idx1)
# Left to itself ffmpeg copies into ticks of 1/600 s, with empty frames in those that have none.
AVI_TICKS = Container("avi_ticks", ".avi", sound=("mp2",))
FLV = Container("flv", ".flv", ("-flvflags", "add_keyframe_index"), rounding=MILLISECONDS)
FLV_NO_INDEX = Container("flv_pipe", ".flv", ("-flvflags", "no_duration_filesize"), rounding=MILLISECONDS)
TS = Container("ts", ".ts")
M2TS = Container("m2ts", ".m2ts", ("-mpegts_m2ts_mode", "1"), ("ac3",))
MPG = Container("mpg", ".mpg", ("-f", "mpeg"), ("mp2",))
VOB = Container("vob", ".vob", ("-f", "vob"), ("ac3",))
MXF = Container("mxf", ".mxf", sound=("pcm_s16le",))
OGV = Container("ogv", ".ogv", sound=("libvorbis",))
WMV = Container("wmv", ".wmv", ("-f", "asf"), ("wmav2",), MILLISECONDS)


def x264(gop: int, style: str = "b2", more: str = "bframes=2", **other: object) -> Stream:
    parameters = f"scenecut=0:{more}"
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-keyint_min", str(gop), "-x264-params", parameters]
    return Stream("h264", gop, style, encoding, **other)  # type: ignore[arg-type]


def x265(gop: int, style: str = "open", more: str = "bframes=3") -> Stream:
    parameters = f"log-level=error:scenecut=0:keyint={gop}:min-keyint={gop}:{more}"
    return Stream("hevc", gop, style, ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", parameters])


def mpeg(codec: str, gop: int, style: str, *arguments: str) -> Stream:
    # Above 600 frames the encoder refuses; the whole file is shorter.
    quality = ["-q:v", "4", "-sc_threshold", "1000000000"]
    return Stream(codec, gop, style, ["-c:v", codec, *quality, *arguments])


def vp9(gop: int) -> Stream:
    return Stream("vp9", gop, "", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M"])


ONE = 600
"""A GOP longer than any file."""
H264 = [
    x264(12),
    x264(48),
    x264(250),
    x264(ONE),
    x264(48, "b0", "bframes=0"),
    x264(48, "open", "bframes=3:open-gop=1"),
    x264(250, "open", "bframes=3:b-adapt=0:open-gop=1"),
]
HEVC = [x265(48), x265(250), x265(ONE), x265(48, "closed", "bframes=3:open-gop=0")]
MPEG2 = [
    mpeg("mpeg2video", 12, "open", "-bf", "2"),
    mpeg("mpeg2video", 12, "closed", "-bf", "2", "-flags", "+cgop"),
    mpeg("mpeg2video", 48, "open", "-bf", "2"),
    mpeg("mpeg2video", 250, "open", "-bf", "2"),
    mpeg("mpeg2video", ONE, "b0", "-bf", "0"),
    mpeg("mpeg2video", 48, "b0", "-bf", "0"),
]
MPEG4 = [
    mpeg("mpeg4", 12, "b2", "-bf", "2"),
    mpeg("mpeg4", 48, "b0"),
    mpeg("mpeg4", 250, "b0"),
    mpeg("mpeg4", ONE, "b0"),
]
VP9 = [vp9(48), vp9(250), vp9(ONE)]
VP8 = Stream("vp8", 48, "", ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M"])
AV1 = Stream("av1", 48, "", ["-c:v", "libsvtav1", "-preset", "12", "-crf", "28"])
MJPEG = Stream("mjpeg", 1, "", ["-c:v", "mjpeg", "-q:v", "6"])
PRORES = Stream("prores", 1, "", ["-c:v", "prores_ks", "-profile:v", "0"])
THEORA = [Stream("theora", gop, "", ["-c:v", "libtheora", "-q:v", "7"]) for gop in (48, 250)]
WMV2 = [mpeg("wmv2", 48, ""), mpeg("wmv2", 250, "")]

HELD: list[tuple[list[Container], list[Stream]]] = [
    ([MP4, MP4_TAIL, MOV, FMP4, FMP4_MFRA, FMP4_SIDX, FMP4_SECOND], H264),
    ([MP4, FMP4], HEVC),
    ([MP4], [*MPEG4, MPEG2[0], *VP9, AV1]),
    ([FMP4], [VP9[0]]),
    ([MOV], [MJPEG, PRORES]),
    ([MKV, MKV_NO_CUES], [*H264, *HEVC, MPEG2[0], VP9[1]]),
    ([WEBM, WEBM_NO_CUES], [*VP9, VP8, AV1]),
    ([AVI, AVI_NO_INDEX], [H264[1], H264[4], H264[3], *MPEG4, MJPEG]),
    ([AVI_TICKS], [H264[4], MPEG4[1]]),
    ([FLV, FLV_NO_INDEX], H264),
    ([TS, M2TS], [*H264, *HEVC, *MPEG2]),
    ([MPG, VOB], MPEG2),
    # ffmpeg writes no longer GOPs into MXF.
    ([MXF], [*(stream for stream in MPEG2 if stream.gop < 128), mpeg("mpeg2video", 120, "open", "-bf", "2")]),
    ([OGV], THEORA),
    ([WMV], WMV2),
]


def ordinary() -> Iterator[Video]:
    """Each container with each stream; every other stream has sound beside it."""
    for containers, streams in HELD:
        for container in containers:
            for stream in streams:
                sound = () if stream.gop in (48, ONE) else None
                yield Video(container, stream, sound=sound, spans=spans_of(stream))


def spans_of(stream: Stream) -> list[Span]:
    """Eight kinds of spans of a file of twelve seconds."""
    gops = max(1, min(stream.frames - 1, 4 * FPS + stream.gop - 1) // stream.gop)
    key = round(1000 * gops * stream.gop / stream.fps) if stream.gop < stream.frames else 4000
    return [
        Span(),
        Span(0, 1000),
        Span(1500, 2500),
        Span(1510, 2510),
        Span(3337, 4337),
        Span(key + 30, key + 1030),
        Span(key - 70, key + 930),
        Span(10900, 11900),
    ]


_LATE = [
    Span(),
    Span(0, 1000),
    Span(200, 800),
    Span(990, 2000),
    Span(500, 1500),
    Span(1000, 2000),
    Span(3337, 4337),
    Span(11900, 12900),
]
_USUAL = [
    Span(),
    Span(0, 1000),
    Span(1500, 2500),
    Span(3337, 4337),
    Span(7010, 8010),
    Span(10500, 11500),
    Span(9000, None),
]
_SHORT = [Span(), Span(0, 1000), Span(1500, 2500), Span(2337, 3337), Span(3600, 4500), Span(4000, None)]
_LONG = [Span(), Span(0, 1000), Span(12300, 13300), Span(24337, 25337), Span(27500, 28500), Span(26000, None)]
_TINY = [Span(), Span(0, 80), Span(0, 1000), Span(40, None), Span(500, 1500)]

# Sixty frames of each hundred, and none of three seconds in the middle.
_VFR = x264(48, "b2vfr", edit="select='not(eq(mod(n\\,7)\\,3)+eq(mod(n\\,11)\\,5)+eq(mod(n\\,11)\\,6))'")
_STILL = x264(48, "b2still", edit="select='not(between(n\\,96\\,167))'")
_STILL_LONG = x264(250, "b2still", edit="select='not(between(n\\,96\\,167))'")


def special() -> Iterator[Video]:
    """Files that begin, pause or count in ways of their own."""
    for stream in (H264[1], H264[2], HEVC[0], HEVC[1], MPEG2[2], MPEG2[3]):
        yield Video(TS, stream, "cut_head", cut_head=0.12, spans=_USUAL)
    # What is copied from QuickTime into an open GOP has no parameter sets of its own.
    headers = ("-bsf:v", "h264_mp4toannexb,dump_extra")
    yield Video(TS, H264[5], "cut_head", muxing=headers, cut_head=0.12, spans=_USUAL)
    yield Video(M2TS, H264[5], "cut_head", muxing=headers, cut_head=0.29, spans=_USUAL)
    yield Video(TS, H264[1], "cut_head_sound", sound=(), cut_head=0.12, spans=_USUAL)
    yield Video(MPG, MPEG2[2], "cut_head", cut_head=0.12, spans=_USUAL)
    late = ("-itsoffset", "1")
    for container, stream in [
        (MP4, H264[1]),
        (MOV, H264[2]),
        (FMP4, H264[1]),
        (MKV, H264[1]),
        (MKV_NO_CUES, H264[1]),
        (FLV, H264[1]),
        (TS, H264[1]),
        (TS, H264[2]),
        (TS, HEVC[0]),
        (M2TS, MPEG2[2]),
        (MPG, MPEG2[2]),
        (VOB, MPEG2[2]),
    ]:
        yield Video(container, stream, "late_video", before=late, sound=(), spans=_LATE)
        yield Video(container, stream, "late_sound", sound=late, spans=_USUAL)
    yield Video(WEBM, VP9[0], "late_video", before=late, sound=(), spans=_LATE)
    yield Video(AVI, MPEG4[1], "late_video", before=late, sound=(), spans=_LATE)
    offset = [(TS, H264[3]), (M2TS, HEVC[0]), (MPG, MPEG2[2])]
    for container, stream in [*offset, *((container, H264[1]) for container in (TS, MKV, MP4, FMP4, FLV))]:
        yield Video(container, stream, "offset1000", muxing=("-output_ts_offset", "1000"), spans=_USUAL)
    # 2³³ ticks of 1/90,000 s are 95,443.7 s: the clock starts anew four seconds into the file.
    for stream in (H264[1], HEVC[0], MPEG2[2]):
        yield Video(TS, stream, "wrap", muxing=("-output_ts_offset", "95438"), spans=_USUAL)
    for container in (MP4, FMP4, MKV, MKV_NO_CUES, TS, FLV):
        for stream in (_VFR, _STILL, _STILL_LONG):
            yield Video(container, stream, spans=[*_USUAL, Span(4500, 5500), Span(5010, 7510)])
    for container in (MP4, MKV, TS, MPG):
        codec = MPEG2[2] if container is MPG else H264[1]
        for rate, frames in [("60", 288), ("10", 120), ("30000/1001", 288), ("24000/1001", 288)]:
            if container is MPG and rate == "10":
                continue  # MPEG-2 has no such rate
            name = f"{codec.style}r{round(float(Fraction(rate)))}"
            other = Stream(codec.codec, 48, name, codec.encoding, frames, rate)
            yield Video(container, other, spans=_SHORT)
    # Farther from its keyframe than the ten seconds that ffmpeg takes for a break in the clock.
    for container in (MP4, FMP4, MKV, MKV_NO_CUES, TS, M2TS, FLV, AVI_NO_INDEX):
        yield Video(container, x264(ONE, "b2long", rate="10"), muxing=("-r", "10"), spans=_LONG)
    yield Video(OGV, Stream("theora", ONE, "long", THEORA[0].encoding, rate="10"), spans=_LONG)
    for container in (MP4, FMP4, MKV, TS, FLV):
        yield Video(container, x264(48, "b0two", "bframes=0", frames=2), spans=_TINY)
    yield Video(MXF, Stream("mpeg2video", ONE, "b0short", MPEG2[4].encoding, 120), spans=_SHORT)
    yield Video(MPG, Stream("mpeg2video", 48, "two", MPEG2[5].encoding, 2), spans=_TINY)
    yield Video(AVI, Stream("mpeg4", 48, "two", MPEG4[1].encoding, 2), spans=_TINY)
    yield Video(MP4, H264[1], "no_edits", muxing=("-use_editlist", "0"), spans=_USUAL)
    yield Video(MP4, H264[1], "trimmed", before=("-ss", "3.2"), spans=[span for span in _USUAL if span.start < 8000])
    yield Video(MKV, H264[1], "trimmed", before=("-ss", "3.2"), spans=[span for span in _USUAL if span.start < 8000])
