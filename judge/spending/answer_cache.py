"""The cache of answers: a question that was paid for is never paid for again.

An answer counts once it is on the local journal, which survives a SIGKILL. It is stored in a segment within a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from nextscene.judge.api.answer import Answer
from nextscene.judge.spending.answer_index import INDEX
from nextscene.judge.spending.answer_segments import AnswerFiles, write_segments
from nextscene.judge.spending.call_journal import CallJournal, discard, recover
from nextscene.judge.spending.stored_answers import StoredAnswers

_INDEX_AFTER = 512
"""The number of new segments after which the index is written."""


class AnswerCache:
    """All answers that were ever paid for on some files. For one event loop, and one process at a time on the same
    files.

    `spent` (US dollars) and `answers` count everything that is stored or on the journal, each answer once. `recovered`
    are the journals of dead runs, whose answers are included.
    """

    def __init__(self, files: AnswerFiles, journals: Path) -> None:
        """Read the segments newer than the index. Raise JudgeStopped for a damaged segment, OSError."""
        self._files = files
        self._journals = journals
        # This comes first: the judge of a killed run may live a moment longer, and store answers until then.
        self.recovered = recover(journals)
        self._stored = StoredAnswers(files)
        self._new_segments = self._stored.newly_indexed
        self.spent, self.answers = self._stored.spent, self._stored.count
        self._unstored: dict[str, Answer] = {}
        self._unstored_by_name: dict[str, Answer] = {}
        self._storing = asyncio.Lock()
        self.journal = CallJournal(journals)
        for found in self.recovered:
            for answer in found.answers:
                if not self._contains(answer):
                    self.add(answer)

    async def get(self, key: str) -> Answer | None:
        """Return the answer to a question, or None. Raise JudgeStopped."""
        if answer := self._unstored_by_name.get(key):
            return answer
        if locations := self._stored.locations(key):
            return await asyncio.to_thread(self._stored.read, key, locations)
        return None

    def look_up(self, key: str) -> Answer | None:
        """Return the answer to a question as `get` does, but synchronously: for single questions."""
        return self._unstored_by_name.get(key) or self._stored.get(key)

    def add(self, answer: Answer, call: str = "") -> None:
        """Add a new answer, that of `call` on the journal.

        Raise JudgeStopped if the journal cannot be written; the answer is stored nevertheless.
        """
        self._unstored[f"{answer.key} {answer.message_id}"] = answer
        for name in answer.names:
            self._unstored_by_name.setdefault(name, answer)
        self.spent += answer.usd
        self.answers += 1
        if call:
            self.journal.record_answer(call, answer)
        else:
            self.journal.record_stray_answer(answer)

    def add_new(self, answers: Iterable[Answer]) -> None:
        """Add the answers that are not in the cache yet, as when a batch is collected a second time."""
        for answer in answers:
            if not self._contains(answer):
                self.add(answer)

    async def store(self) -> None:
        """Return once all answers added before are in segments. Raise what prevents that."""
        async with self._storing:
            answers = list(self._unstored.values())
            if not answers:
                return
            for path, lines in await asyncio.to_thread(write_segments, self._files, answers):
                self._stored.add_segment(path, lines)
                self._new_segments += 1
            for answer in answers:
                del self._unstored[f"{answer.key} {answer.message_id}"]
                for name in answer.names:
                    if self._unstored_by_name.get(name) is answer:
                        del self._unstored_by_name[name]
            if not self._unstored:
                self.journal.mark_all_stored()
            if self._new_segments >= _INDEX_AFTER:
                await self._write_index()

    async def close(self) -> None:
        """Store the remaining answers and the index. The journal is deleted."""
        await self.store()
        if self._new_segments:
            await self._write_index()
        self.journal.delete()

    def delete_recovered_journals(self) -> None:
        """Delete the journals of dead runs, once their content is stored and accounted for."""
        for found in self.recovered:
            discard(self._journals, found)

    async def _write_index(self) -> None:
        self._new_segments = 0
        await asyncio.to_thread(self._files.write, INDEX, self._stored.index.to_bytes())

    def _contains(self, answer: Answer) -> bool:
        return f"{answer.key} {answer.message_id}" in self._unstored or self._stored.contains(answer)
