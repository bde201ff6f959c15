"""Extraction of the frames of a span from a source, by a run of ffmpeg that also makes the output from them.

Decoding begins early enough that the span's first frame is whole. If the decoder complains, the span is checked for
damage. Each frame of a clip is the last source frame that is due, with times rounded to the clip's frame rate.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import ffmpeg as ffmpeg_line

from nextscene.common import child_process, ffmpeg
from nextscene.common.storage import StorageFault
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.color import over_white, scaled
from nextscene.curation.media.crop import without_edges
from nextscene.curation.media.damage import DecodedSpan, damage_outcome
from nextscene.curation.media.image_reader import convert_image
from nextscene.curation.media.probe import UNKNOWN_DURATION, Measured
from nextscene.curation.media.seek import CONTAINERS, ClockOptions, Span, clock_options, starting_points
from nextscene.curation.outcome import ClipOutcome

_CRASHES_ALLOWED = 3
_EVIDENCE_CHARACTERS = 2000
_MICROSECONDS = 1_000_000
"""The time base that ffmpeg is set to, in ticks per second."""
# Codecs whose decoders show pictures before the first keyframe, though these are predicted from missing ones.
_WITHOUT_SYNC = frozenset(["MPEG-4 Visual", "H.263", "Sorenson Spark", "MS-MPEG4 V2", "MS-MPEG4 V3", "WMV1", "WMV2"])
# Ffmpeg's message if pictures have another size or format than earlier ones.
_CHANGED = "Avoiding reinit"
_LEVEL = re.compile(r"\[(?:info|warning|error|fatal|panic)\] ")
_TROUBLE = re.compile(r"\[(?:error|fatal|panic)\]|corrupt")
# A failure that is caused by the file's headers, not by lack of memory.
_NOT_OPENED = re.compile(r"Error opening input: (?!Cannot allocate memory)(.+)")
_TIME = re.compile(r"pts:(-?\d+)")

OutputBuilder = Callable[[ffmpeg_line.nodes.Stream, int], ffmpeg_line.nodes.OutputStream]
"""Makes the output, the end of ffmpeg's command line, from a stream of pictures and their highest number."""


@dataclass(frozen=True)
class Extracted:
    """A finished run of ffmpeg. `stderr` has its messages; `first` is the time in seconds of the first frame shown."""

    cpu_seconds: float
    stderr: str
    first: float = 0.0

    @property
    def last_words(self) -> str:
        """Return ffmpeg's last message as the end of a sentence; "" if there is none."""
        return f"; {said}" if (said := _last_line(self.stderr)) else ""


def extract(
    source: Path, span: Span, measured: Measured, config: BuildConfig, scratch: Path, finish: OutputBuilder
) -> Extracted | ClipOutcome:
    """Decode a span and make the output that `finish` defines from its frames.

    Return an outcome if the file makes the decoder fail, in whatever way. Raise StorageFault if the scratch disk is
    full.
    """
    if measured.is_image:
        return _extract_image(source, measured, config, scratch, finish)
    ticks = clock_options(source, measured, config.limits)
    if ticks is None:
        return ClipOutcome("rejected", "unreadable", "ffmpeg does not tell when its streams begin")
    most = max_frames(span, measured, config)
    found = _decoded(_FfmpegRuns(source, span, measured, ticks, config, scratch, finish), span, config, most)
    if isinstance(found, ClipOutcome) or not _TROUBLE.search(found.stderr):
        return found
    part = DecodedSpan(source, measured.stream, found.first, most / config.encode.fps)
    return damage_outcome(part, config, scratch) or found


def _decoded(attempts: _FfmpegRuns, span: Span, config: BuildConfig, most: int) -> Extracted | ClipOutcome:
    """Begin decoding earlier and earlier, until the frame that the span begins with is decoded."""
    for begin in attempts.starting_points():
        done = attempts.run(begin, most)
        if isinstance(done, ClipOutcome):
            return done
        first = _first_shown(attempts.times, span, config)
        if first is None:
            continue
        if _CHANGED in done.stderr and attempts.times[-1] + 2 / config.encode.fps < first + most / config.encode.fps:
            return ClipOutcome("failed", "format_change", f"its pictures are others after {attempts.times[-1]:.3f} s")
        if back := _going_back(attempts.times, first + most / config.encode.fps):
            return ClipOutcome("failed", "damaged", f"its time stamps go back from {back[0]:.3f} s to {back[1]:.3f} s")
        if span.start == 0 and span.length is not None and (left := _frame_count(span.length - first, config)) < most:
            done = attempts.run(begin, left)  # the video begins late, and nothing may be shown after the span's end
            if isinstance(done, ClipOutcome):
                return done
        return Extracted(attempts.cpu_seconds, done.stderr, first)
    attempts.raise_if_disk_full()
    times = attempts.times
    found = f"the first frame is shown at {times[0]:.3f} s" if times else "no frame was decoded"
    return ClipOutcome("failed", "short_decode", f"{found}, the span begins at {span.start:.3f} s")


class _FfmpegRuns:
    """Runs of ffmpeg on one span. `times` are those of the frames that the last run decoded, in seconds."""

    def __init__(
        self,
        source: Path,
        span: Span,
        measured: Measured,
        ticks: ClockOptions,
        config: BuildConfig,
        scratch: Path,
        finish: OutputBuilder,
    ) -> None:
        self._source = source
        self._span = span
        self._measured = measured
        self._config = config
        self._scratch = scratch
        self._finish = finish
        self._clock = ticks
        self.times: list[float] = []
        self.cpu_seconds = 0.0

    def starting_points(self) -> Iterator[float]:
        limits = self._config.limits
        return starting_points(self._source, self._span, self._measured, self._clock, limits, self._scratch)

    def run(self, begin: float, most: int) -> child_process.ChildResult | ClipOutcome:
        """Decode from the time `begin` in seconds, and make at most `most` frames."""
        noted = self._scratch / "times.txt"
        noted.unlink(missing_ok=True)
        options = self._clock | ({"ss": f"{begin:.3f}", "noaccurate_seek": None} if begin > 0 else {})
        picture = _picture(self._source, self._span, options, self._measured, self._config, noted)
        done = _run(arguments(self._finish(picture, most)), self._config, self._scratch)
        self.times = _decoded_times(noted)
        self.cpu_seconds += 0.0 if isinstance(done, ClipOutcome) else done.cpu_seconds
        return done

    def raise_if_disk_full(self) -> None:
        raise_if_disk_full("", self._scratch)


def _extract_image(
    source: Path, measured: Measured, config: BuildConfig, scratch: Path, finish: OutputBuilder
) -> Extracted | ClipOutcome:
    """Extract the picture of an image. Pillow decodes it in a child process.

    Pillow handles color profiles, orientation and transparency, and reports damage.
    """
    plain = scratch / "still.ppm"
    seconds = convert_image(source, plain, None, config.limits, measured.crop)
    if isinstance(seconds, ClipOutcome):
        return seconds
    stream = ffmpeg_line.input(f"file:{plain}", format="ppm_pipe", threads=1, protocol_whitelist="file")["v:0"]
    side = config.encode.image_side
    stream = scaled(stream, measured.color, "gbr", _covering_size(side, side), (side, side))
    done = _run(arguments(finish(stream, 1)), config, scratch)
    return done if isinstance(done, ClipOutcome) else Extracted(seconds + done.cpu_seconds, done.stderr)


def _run(line: list[str], config: BuildConfig, scratch: Path) -> child_process.ChildResult | ClipOutcome:
    """Run ffmpeg. Repeat it if it crashes, since the machine may have been short of memory."""
    cpu_seconds = 0.0
    for _ in range(_CRASHES_ALLOWED):
        done = ffmpeg.run(line, config.limits)
        cpu_seconds += done.cpu_seconds
        if done.code is None or done.code >= 0:
            break
    if done.code != 0:
        raise_if_disk_full(done.stderr, scratch)
        return failure_outcome(done, config)
    return child_process.ChildResult(0, done.stderr, cpu_seconds)


def _picture(
    source: Path, span: Span, options: dict[str, str | None], measured: Measured, config: BuildConfig, noted: Path
) -> ffmpeg_line.nodes.Stream:
    """Return the clip's frames at the configured rate and size, in square pixels.

    The time of each decoded frame is written to the file `noted`.
    """
    # Without drop_changed, a picture of another size would make the clip begin again in the middle.
    options = {**options, "format_whitelist": CONTAINERS, "drop_changed": "1"}
    if measured.decoder:
        options["c:v"] = measured.decoder
    if measured.codec == "HEVC":
        options["err_detect:v"] = "explode"  # else its decoder does not report a picture that is cut off
    stream = ffmpeg_line.input(f"file:{source}", threads=1, protocol_whitelist="file", **options)
    stream = stream[measured.stream]
    if measured.codec in _WITHOUT_SYNC:
        stream = stream.filter("select", "key+gt(selected_n,0)")
    # Only frames that are flagged interlaced are touched.
    stream = stream.filter("bwdif", mode="send_frame", deint="interlaced").filter("settb", "AVTB")
    if span.end is not None:
        stream = stream.filter("trim", end=f"{span.end:.3f}")
    stream = stream.filter("metadata", mode="add", key="seen", value="1")
    stream = stream.filter("metadata", mode="print", file=str(noted))
    # From here on, times count from the span's start; from the first frame if the span has no start.
    stream = stream.filter("setpts", f"PTS-{round(span.start * _MICROSECONDS)}" if span.start > 0 else "PTS-STARTPTS")
    stream = without_edges(stream.filter("fps", fps=config.encode.fps, round="near", start_time=0), measured)
    matrix = measured.color.matrix_of(max(measured.width, measured.height))
    if measured.may_have_alpha:
        stream, matrix = over_white(stream, matrix), "gbr"
    if config.resolution == "native":
        return scaled(stream, measured.color, matrix, {"w": "round(iw*sar/2)*2", "h": "round(ih/2)*2"}, None)
    width, height = config.encode.width, config.encode.height
    return scaled(stream, measured.color, matrix, _covering_size(width, height), (width, height))


def _covering_size(width: int, height: int) -> dict[str, str]:
    """Return the smallest size in square pixels that covers a box, for the filter `scale`."""
    return {"w": f"max({width},ceil({height}*iw*sar/ih/2)*2)", "h": f"max({height},ceil({width}*ih/(iw*sar)/2)*2)"}


def arguments(line: ffmpeg_line.nodes.OutputStream) -> list[str]:
    """Return ffmpeg's arguments for one output: single-threaded, logging only warnings, tolerating bad packets."""
    quiet = ["-hide_banner", "-nostdin", "-loglevel", "level+warning", "-max_error_rate", "1"]
    threads = ["-filter_threads", "1", "-filter_complex_threads", "1"]
    return [*quiet, *threads, *ffmpeg_line.get_args(line, overwrite_output=True)]


def _decoded_times(path: Path) -> list[float]:
    """Return the time of each decoded frame on the clock of the file, in seconds, in the order of display."""
    if not path.exists():
        return []
    return [int(found[1]) / _MICROSECONDS for found in map(_TIME.search, path.read_text().splitlines()) if found]


def _first_shown(times: Sequence[float], span: Span, config: BuildConfig) -> float | None:
    """Return the time of the frame with which the clip begins: the last one due by then. None if there is none.

    If the span begins at 0, it is the first frame.
    """
    if span.start == 0:
        return next(iter(times), None)
    begin = span.start + 0.5 / config.encode.fps
    return max((time for time in times if time <= begin), default=None)


def _going_back(times: Sequence[float], end: float) -> tuple[float, float] | None:
    """Return two times between which time stamps go back in the clip, as where two recordings are joined; else None."""
    return next(((one, other) for one, other in pairwise(times) if other < one <= end), None)


def expected_frames(span: Span, measured: Measured, config: BuildConfig, first: float = 0.0) -> int:
    """Return how many frames span and duration promise if the first frame is shown at `first` seconds.

    Return 1 for an unknown duration.
    """
    if measured.is_image or measured.duration == UNKNOWN_DURATION:
        return 1
    if measured.seeking != "index" and span.length is not None:
        return max_frames(span, measured, config)  # headers of such files do not give their end reliably
    left = measured.duration - span.start
    if span.start == 0 and span.length is None:
        left = min(left, measured.end - first)
    return max(1, min(max_frames(span, measured, config), round(left * config.encode.fps)))


def max_frames(span: Span, measured: Measured, config: BuildConfig) -> int:
    """Return the highest number of frames of a clip. The last source frame of a span may last longer than the span."""
    if measured.is_image:
        return 1
    most = config.encode.max_frames
    return most if span.length is None else min(most, _frame_count(span.length, config))


def _frame_count(seconds: float, config: BuildConfig) -> int:
    return max(1, round(seconds * config.encode.fps))


def failure_outcome(done: child_process.ChildResult, config: BuildConfig) -> ClipOutcome:
    """Return the clip's outcome for a run of ffmpeg that failed."""
    said = _last_line(done.stderr) or "no message"
    if done.code is None:
        return ClipOutcome("failed", "cut_timeout", f"ffmpeg not done in {config.limits.clip_seconds:g} s: {said}")
    if opening := _NOT_OPENED.search(done.stderr):
        return ClipOutcome("rejected", "unreadable", opening[1])
    if done.code < 0:
        return ClipOutcome("failed", "cut_crashed", f"ffmpeg died of {signal.Signals(-done.code).name}: {said}")
    return ClipOutcome("failed", "cut_error", f"ffmpeg ended with status {done.code}: {said}")


def _last_line(stderr: str) -> str:
    """Return the last message without its log level, cut to a length; "" if there is none."""
    return _LEVEL.sub("", stderr.splitlines()[-1])[:_EVIDENCE_CHARACTERS] if stderr else ""


def raise_if_disk_full(stderr: str, scratch: Path) -> None:
    """Raise StorageFault if the scratch disk is full, since that is not the clip's fault."""
    # At the end of a line the words are ffmpeg's; elsewhere they may be part of a file's name.
    said = any(line.endswith(f": {os.strerror(errno.ENOSPC)}") for line in stderr.splitlines())
    if said or shutil.disk_usage(scratch).free < 1 << 20:
        raise StorageFault(
            f"no space left in the scratch folder {scratch.parent}; free some, or set TMPDIR to a larger disk"
        )
