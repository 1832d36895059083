"""What is known of a question already: the journal of this run, and the replies of earlier runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmopt.language import records, wire
from llmopt.language.records import Question

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from llmopt.language.cache import ResponseCache
    from llmopt.remote.scrub import Scrubber
    from llmopt.spend.journal import Journal
    from llmopt.spend.ledger import Ledger


class Recall:
    """Finds answers, counts what they cost, and writes new ones down.

    Args:
        ledger: counts what an earlier sitting spent.
        journal: of this run.
        cache: replies of earlier runs; None for none.
        model: whose replies they are.
        spec: what it is called.
        sample: tells runs apart in the cache that ask the same; the run's seed.
        scrub: masks secrets in whatever is written.

    Attributes:
        others: models that earlier sittings asked, in order of appearance.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        cache: ResponseCache | None,
        model: BaseChatModel,
        spec: str,
        sample: int,
        scrub: Scrubber,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._sample = sample
        self._scrub = scrub
        self._address = wire.base_url(model)
        # Headers may hold secrets and may change what the service does: not to be kept.
        headers = getattr(model, "default_headers", None)
        self._cache = None if wire.is_local(model) or headers else cache
        self._keys: dict[tuple[Any, ...], str] = {}
        asked = [str(one["data"].get("model", spec)) for one in journal.unrecalled(records.INTENT)]
        self.others = [name for name in dict.fromkeys(asked) if name != spec]
        # What another model was asked has other keys, but stands in the same place of the run.
        for kind in (records.INTENT, records.REPLY) if self.others else ():
            for record in journal.unrecalled(kind):
                place = records.checked(kind, record["data"], journal.path)
                self._keys[_where(record["stream"], place)] = record["key"]

    def journaled(self, question: Question, number: int) -> dict[str, Any] | None:
        """What an earlier sitting wrote of a try, counted into the ledger."""
        usual = question.key(number)
        key = self._keys.get(_where(question.stream, question.place(number)), usual)
        answer = self._journal.recall(records.REPLY, key, question.stream)
        if answer is not None:
            records.checked(records.REPLY, answer, self._journal.path)
        intents = []
        while (intent := self._journal.recall(records.INTENT, key, question.stream)) is not None:
            intents.append(records.checked(records.INTENT, intent, self._journal.path))
        # The last intent led to the answer; every other was cut short by the end of its sitting.
        for intent in intents if answer is None else intents[:-1]:
            self._ledger.record(**records.lost(intent["bound"]))
        if answer is not None:
            self._ledger.record(**answer["charged"])
        return answer

    def cached(self, question: Question) -> dict[str, Any] | None:
        """A reply of an earlier run, charged like a call so that both runs spend the same."""
        if self._cache is None or self._scrub.finds(question.text):
            return None
        record = self._cache.get(self._cache_key(question))
        if record is None or not records.is_answer(record):
            return None
        with self._ledger.reserve(**question.upper) as reservation:
            record["charged"]["llm_calls_cached"] = 1
            self.write(records.REPLY, question, 0, {**question.place(0), **record})
            reservation.settle(**record["charged"])
        return record

    def write(
        self, kind: str, question: Question, number: int, data: dict[str, Any]
    ) -> dict[str, Any]:
        """Journal a record of a try without secrets; the record as it is written."""
        clean: dict[str, Any] = records.scrubbed(data, self._scrub)
        self._journal.pay(kind, question.key(number), question.stream, **clean)
        return clean

    def keep(self, question: Question, record: dict[str, Any]) -> None:
        """Put an answer where later runs find it."""
        if self._cache is not None and not self._scrub.finds(question.text):
            answer = {name: record[name] for name in records.ANSWER}
            self._cache.put(self._cache_key(question), answer)

    def _cache_key(self, question: Question) -> str:
        place = [self._sample, question.stream, question.turn, question.sample]
        return wire.canonical([question.text, self._address, place])


def _where(stream: str, place: Mapping[str, Any]) -> tuple[Any, ...]:
    return (stream, place["turn"], place["sample"], place["attempt"], place["request"])
