"""Rows from text files side by side: line N of each is row N.

Tested in tests/curation/sources/tables/test_line_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import PurePosixPath

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.sources.tables.table_file import Row, TableFile, cut_lines


def line_rows(root: Storage, paths: Sequence[str]) -> Iterator[Row]:
    """Yield the rows, whose columns have the files' names without suffix. Lines that are empty in all are left out.

    Longer lines than a text may have are cut to one character more. Raise UsageError if a file ends before another:
    then nothing says which lines belong together. Raise FileNotFoundError.
    """
    names = [PurePosixPath(path).stem for path in paths]
    with ExitStack() as stack:
        texts = [stack.enter_context(TableFile(root, path, MAX_TEXT_BYTES).text(newline="\n")) for path in paths]
        for number, lines in enumerate(zip_longest(*(cut_lines(text, MAX_TEXT_BYTES) for text in texts)), 1):
            cells = [(line or "").strip() for line in lines]
            if any(cells) and None in lines:
                short, long = (paths[[line is None for line in lines].index(ended)] for ended in (True, False))
                raise UsageError(
                    f"{root.display_uri}/{short} has {number - 1} lines, and {long} more; line N of each belongs to"
                    " clip N, so give them equally many"
                )
            if any(cells):
                yield f"line {number}", dict(zip(names, cells, strict=True))
