"""The metered chat model: the only place that spends on a language model.

Whatever is asked passes :meth:`MeteredChat.ask`, in this order:

1. the journal: a resumed run finds here what it asked before, failures included, and pays nothing;
2. the response cache, if one is used;
3. the service: wait for the rate limiter, reserve the upper bound in the ledger, write the intent
   to the journal, send, write the answer to the journal, settle, and only then hand it out.

So no cap is passed and nothing paid for is lost. A machine that dies between intent and answer
leaves an intent without one; the resumed run counts that call as lost, at its upper bound, and asks
again. A failure that the search reacts to (the conversation is too long, the content is refused) is
part of its course and is raised again on resume. Every other failure is only counted: on resume the
next try follows, so a run that ended with a bad key goes on with a good one.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmopt.errors import (
    BudgetExhausted,
    ContentRefused,
    LlmoptError,
    MalformedResponse,
    RetryableError,
    ServiceError,
    ServiceTimeout,
)
from llmopt.language import failures, records, wire
from llmopt.language.limits import RateLimiter
from llmopt.language.patience import TooLong, in_thread
from llmopt.language.prices import Bound, Price, call_bound
from llmopt.language.reasoning import strip_reasoning
from llmopt.language.records import Question
from llmopt.language.retry import AT_ONCE, CircuitBreaker, RetrySettings
from llmopt.language.scrub import Scrubber

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

    from llmopt.language.cache import ResponseCache
    from llmopt.language.llm import Llm
    from llmopt.spend.events import Watch
    from llmopt.spend.journal import Journal
    from llmopt.spend.ledger import Ledger

_TICK = 0.2
_WORTH_SAYING = 3.0


@dataclass(frozen=True)
class Reply:
    """An answer that is journaled and paid for.

    Attributes:
        text: what the model said, its thoughts cut away.
        finish_reason: ``stop``, or ``length`` where the reply was cut off.
        tokens_in, tokens_out: as charged.
        usd: as charged; None where the price is not known.
        estimated: the service did not count the tokens; the upper bound was charged.
        model: the model's own name for itself, which may be more exact than what was asked for.
        calls: calls it took, failed ones included.
    """

    text: str
    finish_reason: str
    tokens_in: int
    tokens_out: int
    usd: float | None
    estimated: bool = False
    model: str = ""
    calls: int = 1

    @property
    def truncated(self) -> bool:
        """The reply was cut off by the length limit."""
        return self.finish_reason == "length"


class MeteredChat:
    """A chat model whose every call is counted, capped, journaled and repeatable.

    Safe to share between threads: each conversation asks under a stream of its own.

    Args:
        model: any LangChain chat model, its own retries off.
        name: ``provider:model``, for people and for the journal's keys.
        ledger: counts and caps.
        journal: remembers.
        price: of the model; None where it is not known, then money is not counted.
        max_tokens: the most tokens one reply may take, as the model was told.
        limiter: shared pace; by default one that learns from the service's answers.
        retry: patience.
        cache: replies of earlier runs.
        sample: tells runs apart in the cache that ask the same; the run's seed.
        scrub: masks secrets in whatever is written or raised.
        notify: told what is worth a line: a long wait, a parameter left out, another model.
    """

    def __init__(
        self,
        model: BaseChatModel,
        *,
        name: str,
        ledger: Ledger,
        journal: Journal,
        price: Price | None = None,
        max_tokens: int = 4096,
        limiter: RateLimiter | None = None,
        retry: RetrySettings | None = None,
        cache: ResponseCache | None = None,
        sample: int = 0,
        scrub: Scrubber | None = None,
        notify: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name = name
        self.max_tokens = max_tokens
        self._model = model
        self._parameters = wire.parameters(model)
        self._ledger = ledger
        self._journal = journal
        self._price = price
        self._limiter = limiter or RateLimiter()
        self._retry = retry or RetrySettings()
        self._breaker = CircuitBreaker(self._retry.breaker)
        self._cache = cache
        self._sample = sample
        self._scrub = scrub or Scrubber(wire.secrets_of(model))
        self._notify = notify
        # Our own models run in this process: they cannot hang, and their errors are bugs to show.
        self._local = type(model).__module__.startswith("llmopt.")
        self._lock = threading.Lock()
        self._answering = ""
        self._asked: Counter[str] = Counter()
        self._seconds = 0.0
        ledger.price_known = ledger.price_known and price is not None

    @property
    def seconds(self) -> float:
        """Seconds spent waiting for answers, all conversations together."""
        return self._seconds

    def __repr__(self) -> str:
        return f"MeteredChat({self.name!r})"

    def close(self) -> None:
        """Close the model's connections; nothing can be asked afterwards."""
        for name in ("root_client", "_client", "client"):
            close = getattr(getattr(self._model, name, None), "close", None)
            if callable(close):
                close()
                return

    def __enter__(self) -> MeteredChat:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, messages: Sequence[BaseMessage], *, stream: str = "main", turn: int = 0) -> Reply:
        """The reply to a conversation.

        Args:
            messages: the whole conversation, last turn last.
            stream: which of the conversations of this run; order is kept within one.
            turn: where in that conversation.

        Raises:
            BudgetExhausted: the call might pass a cap; nothing was sent.
            ContextOverflow: the conversation is too long; make it shorter and ask again.
            ContentRefused: the service declines; ask differently.
            ServiceError: the service failed for good; the run can be resumed.
        """
        question = self._question(messages, stream, turn)
        number = 0
        while (record := self._recall(question, number)) is not None:
            number += 1
            if "error" not in record:
                return self._reply(record, calls=number)
            self._replay_failure(record["error"])
        if number == 0 and (record := self._from_cache(question)) is not None:
            return self._reply(record, calls=1)
        return self._ask_service(question, number)

    # ------------------------------------------------------------------ what is known already

    def _question(self, messages: Sequence[BaseMessage], stream: str, turn: int) -> Question:
        plain = wire.plain_messages(messages)
        text = wire.canonical([self.name, self._parameters, plain])
        place = wire.canonical([text, stream, turn])
        with self._lock:
            sample = self._asked[place]
            self._asked[place] += 1
        bound = call_bound(messages, self.max_tokens)
        return Question(messages, plain, stream, turn, sample, bound, text)

    def _recall(self, question: Question, number: int) -> dict[str, Any] | None:
        """What an earlier sitting wrote of a try, counted into the ledger."""
        key = question.key(number)
        answer: dict[str, Any] | None = self._journal.recall(records.REPLY, key, question.stream)
        intents = []
        while (intent := self._journal.recall(records.INTENT, key, question.stream)) is not None:
            intents.append(intent)
        # The last intent led to the answer; every other was cut short by the end of its sitting.
        for intent in intents if answer is None else intents[:-1]:
            lost = intent["bound"]
            self._ledger.record(
                llm_calls_lost=1,
                llm_tokens_lost=lost["llm_tokens_in"] + lost["llm_tokens_out"],
                llm_usd_lost=lost["llm_usd"],
            )
        if answer is not None:
            self._ledger.record(**answer["charged"])
        return answer

    def _replay_failure(self, error: dict[str, Any]) -> None:
        """React to a failure of an earlier sitting as that sitting did."""
        for kind in records.COURSE:
            if error["type"] == kind.__name__:
                raise kind(error["message"], service=self.name, status=error["status"])
        if error["dropped"]:
            self._drop(error["dropped"])

    def _from_cache(self, question: Question) -> dict[str, Any] | None:
        """A reply of an earlier run, charged like a call so that both runs spend the same."""
        if self._cache is None or not self._cacheable(question):
            return None
        record = self._cache.get(self._cache_key(question))
        if record is None or not records.is_answer(record):
            return None
        with self._ledger.reserve(**self._upper(question.bound)) as reservation:
            record["charged"]["llm_calls_cached"] = 1
            written = {**question.place(0), **record}
            self._pay(records.REPLY, question.key(0), question.stream, written)
            reservation.settle(**record["charged"])
        return record

    def _cacheable(self, question: Question) -> bool:
        # Headers may hold secrets and may change what the service does: not to be kept.
        headers = getattr(self._model, "default_headers", None)
        return not (self._local or headers or self._scrub.finds(question.text))

    def _cache_key(self, question: Question) -> str:
        place = [self._sample, question.stream, question.turn, question.sample]
        return wire.canonical([question.text, wire.base_url(self._model), place])

    # --------------------------------------------------------------------------- the service

    def _ask_service(self, question: Question, first: int) -> Reply:
        numbers = itertools.count(first)
        retrying = self._retry.retrying(self._pause)
        began = time.monotonic()
        try:
            record = retrying(lambda: self._attempt(question, next(numbers)))
        except RetryableError as error:
            tries = next(numbers) - first
            raise type(error)(
                f"{error}; gave up after {tries} {'try' if tries == 1 else 'tries'} in "
                f"{time.monotonic() - began:.0f} s: nothing paid for is lost, "
                "'llmopt resume' goes on from here",
                service=error.service,
                status=error.status,
                retry_after=error.retry_after,
            ) from None
        if self._cache is not None and self._cacheable(question):
            self._cache.put(
                self._cache_key(question), {name: record[name] for name in records.ANSWER}
            )
        return self._reply(record, calls=next(numbers))

    def _attempt(self, question: Question, number: int) -> dict[str, Any]:
        """One try: the record of its answer, journaled and settled; or the failure, likewise."""
        self._wait_for_turn(question.bound)
        upper = self._upper(question.bound)
        key, place = question.key(number), question.place(number)
        with self._ledger.reserve(**upper) as reservation:
            try:
                self._breaker.check()
                intent = {"model": self.name, "bound": upper, **place}
                if number == 0:
                    intent["messages"] = question.plain
                self._pay(records.INTENT, key, question.stream, intent)
            except LlmoptError:
                reservation.release()  # nothing was sent
                raise
            began = time.monotonic()
            record, error = self._try(question, number, upper)
            seconds = time.monotonic() - began
            record = {**place, **record, "seconds": round(seconds, 3)}
            record = self._pay(records.REPLY, key, question.stream, record)
            reservation.settle(**record["charged"])
        with self._lock:
            self._seconds += seconds
        used = record["charged"]
        spare = question.bound.tokens - used.get("llm_tokens_in", 0) - used.get("llm_tokens_out", 0)
        self._limiter.refund(max(0, spare))
        if error is None:
            self._breaker.succeeded()
            return record
        self._react(error)
        raise error

    def _try(
        self, question: Question, number: int, upper: dict[str, float]
    ) -> tuple[dict[str, Any], ServiceError | None]:
        """Send, and put what came back into a record."""
        try:
            message = self._send(question, number)
        except ServiceError as error:
            billed = failures.may_be_billed(error)
            return records.failure(error, upper if billed else records.spend(0, 0, 0.0)), error
        headers = (message.response_metadata or {}).get("headers")
        if isinstance(headers, Mapping):
            self._limiter.learn(headers)
        usage = wire.usage(message)
        charged = upper if usage is None else self._cost(usage)
        if fault := self._fault(message):
            return records.failure(fault, charged), fault
        metadata = message.response_metadata or {}
        return {
            "text": str(message.text),
            "finish_reason": wire.finish_reason(message),
            "model": str(metadata.get("model_name") or metadata.get("model") or ""),
            "fingerprint": str(metadata.get("system_fingerprint") or ""),
            "estimated": usage is None,
            "charged": charged,
        }, None

    def _send(self, question: Question, number: int) -> AIMessage:
        """Ask the model, and stop waiting after a while however slowly the answer drips in."""
        model = self._model
        place = {f"llmopt_{name}": value for name, value in question.place(number).items()}
        metadata = {**place, "llmopt_stream": question.stream}

        def call() -> AIMessage:
            return model.invoke(list(question.messages), config={"metadata": metadata})

        if self._local:
            return call()
        patience = min(self._retry.call_seconds, max(1.0, self._ledger.room("seconds")))
        try:
            return in_thread(call, patience)
        except TooLong:
            raise ServiceTimeout(
                f"{self.name}: did not answer within {patience:.0f} s", service=self.name
            ) from None
        except Exception as error:
            failure = failures.as_service_error(error, self.name, self._scrub)
            name = failures.refused_parameter(error, wire.optional_parameters(model))
        # Raised outside the handler: the cause may hold the request with its key.
        if name is None:
            raise failure
        self._drop(name)
        again = records.ParameterDropped(str(failure), service=self.name, status=failure.status)
        again.dropped, again.retry_after = name, 0.0
        raise again

    def _fault(self, message: AIMessage) -> ServiceError | None:
        """What is wrong with an answer that came, if anything."""
        reason = wire.finish_reason(message)
        text = str(message.text).strip()
        refusal = message.additional_kwargs.get("refusal")
        if reason == "content_filter" or (refusal and not text):
            said = self._scrub(f" ({str(refusal)[:200]})") if refusal else ""
            return ContentRefused(f"{self.name}: refuses the content{said}", service=self.name)
        if not text and reason != "length":
            return MalformedResponse(f"{self.name}: the answer is empty", service=self.name)
        return None

    def _drop(self, name: str) -> None:
        """Leave a parameter out of every further call."""
        with self._lock:
            change = wire.optional_parameters(self._model).get(name)
            if change is None:
                return  # another conversation met the same refusal
            self._model = self._model.model_copy(update=change)
        self._notify(f"{self.name} takes no {name}: asking without it")

    def _react(self, error: ServiceError) -> None:
        """What a failure means for the other conversations."""
        if isinstance(error, (*records.COURSE, records.ParameterDropped)):
            self._breaker.succeeded()  # the service is there
            return
        self._breaker.failed(error)
        if isinstance(error, RetryableError) and error.retry_after:
            self._limiter.pause(min(error.retry_after, self._retry.deadline))

    # -------------------------------------------------------------------------------- waiting

    def _wait_for_turn(self, bound: Bound) -> None:
        while (seconds := self._limiter.acquire(bound.tokens)) > 0:
            self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        """Wait, unless the run's time ends before, or is ended."""
        caps = self._ledger.caps
        if caps.seconds is not None and seconds >= self._ledger.room("seconds"):
            raise BudgetExhausted("seconds", caps.seconds)
        if seconds >= _WORTH_SAYING:
            self._notify(f"waiting {seconds:.0f} s for {self.name}")
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._ledger.stopped:
                raise BudgetExhausted("interrupted", 0)
            self._breaker.check()
            time.sleep(min(left, _TICK))

    # ------------------------------------------------------------------------------ accounting

    def _upper(self, bound: Bound) -> dict[str, float]:
        usd = self._price.bound(bound.tokens_in, bound.tokens_out) if self._price else 0.0
        return records.spend(bound.tokens_in, bound.tokens_out, usd)

    def _cost(self, usage: wire.Usage) -> dict[str, float]:
        counts = (usage.tokens_in, usage.tokens_out, usage.cached, usage.written)
        usd = self._price.cost(*counts) if self._price else 0.0
        return records.spend(usage.tokens_in, usage.tokens_out, usd)

    def _pay(self, kind: str, key: str, stream: str, data: dict[str, Any]) -> dict[str, Any]:
        """Journal a record without secrets; the record as it is written."""
        clean: dict[str, Any] = records.scrubbed(data, self._scrub)
        self._journal.pay(kind, key, stream, **clean)
        return clean

    def _watch_model(self, model: str) -> None:
        """Say so when the service begins to answer as another model than before."""
        with self._lock:
            before, self._answering = self._answering, model or self._answering
        if before and model and model != before:
            self._notify(f"{self.name} now answers as {model}, before as {before}")

    def _reply(self, record: dict[str, Any], calls: int) -> Reply:
        self._watch_model(record["model"])
        charged = record["charged"]
        text = strip_reasoning(record["text"])
        if not text and record["finish_reason"] == "length":
            self._notify(
                f"{self.name} spent all its {self.max_tokens} tokens on thoughts; allow more with "
                "--llm-set max_tokens=N, or ask for less with --llm-set reasoning_effort=low"
            )
        return Reply(
            text=text,
            finish_reason=record["finish_reason"],
            tokens_in=int(charged["llm_tokens_in"]),
            tokens_out=int(charged["llm_tokens_out"]),
            usd=charged["llm_usd"] if self._price else None,
            estimated=record["estimated"],
            model=record["model"],
            calls=calls,
        )


def open_metered(
    llm: Llm, seed: int, ledger: Ledger, journal: Journal, watch: Watch | None = None
) -> MeteredChat:
    """The metered chat model of a run.

    Args:
        llm: what is asked.
        seed: of the built-in rewriter, and what tells runs apart in the cache of replies.
        ledger, journal: where calls are counted and remembered.
        watch: told what is worth a line.
    """
    from llmopt.language.cache import ResponseCache
    from llmopt.language.prices import prices_date
    from llmopt.spend.files import default_cache_dir

    settings = llm.settings
    model = llm.open(seed)
    if llm.price is None and watch is not None:
        watch.warn(
            f"the price of '{llm.spec}' is not in the table of {prices_date()}: tokens are "
            "counted, money is not"
        )
    return MeteredChat(
        model,
        name=llm.spec,
        ledger=ledger,
        journal=journal,
        price=llm.price,
        max_tokens=settings.max_tokens,
        limiter=RateLimiter(settings.requests_per_minute, settings.tokens_per_minute),
        retry=AT_ONCE if llm.provider == "replay" else settings.retry,
        cache=ResponseCache(default_cache_dir() / "replies") if settings.cache else None,
        sample=seed,
        notify=watch.note if watch is not None else lambda text: None,
    )
