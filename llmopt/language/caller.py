"""One call to the service: wait for its pace, send, stop waiting in time, and judge what came."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from llmopt.errors import (
    BudgetExhausted,
    ContentRefused,
    MalformedResponse,
    RetryableError,
    ServiceError,
    ServiceTimeout,
)
from llmopt.language import failures, records, remedies, room, waits, wire
from llmopt.language.limits import RateLimiter
from llmopt.language.patience import TooLong, in_thread
from llmopt.language.records import Question
from llmopt.language.retry import CircuitBreaker

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

    from llmopt.language.llm import Llm
    from llmopt.language.scrub import Scrubber
    from llmopt.spend.ledger import Ledger

R = TypeVar("R")

_TICK = 0.2
_WORTH_SAYING = 3.0


class Caller:
    """Sends questions to one chat model. Shared by all conversations of a run.

    Args:
        llm: whose pace and patience are kept.
        model: what is called; its own retries are off.
        ledger: for reading only: the time that is left, and whether the run was interrupted.
        scrub: masks secrets in what is raised.
        notify: told of long waits.
        remark: told of what is asked in another form.
    """

    def __init__(
        self,
        llm: Llm,
        model: BaseChatModel,
        ledger: Ledger,
        scrub: Scrubber,
        notify: Callable[[str], None],
        remark: Callable[[str], None],
    ) -> None:
        settings = llm.settings
        self._name = llm.spec
        self._model = model
        self._ledger = ledger
        self._scrub = scrub
        self._notify = notify
        self._remark = remark
        self._retry = llm.retry
        self._breaker = CircuitBreaker(self._retry.breaker)
        self._limiter = RateLimiter(settings.requests_per_minute, settings.tokens_per_minute)
        self._lock = threading.Lock()
        self._two_roles = False

    def close(self) -> None:
        """Close the model's connections; nothing can be asked afterwards."""
        wire.close(self._model)

    def persist(self, attempt: Callable[[int], R], first: int) -> tuple[R, int]:
        """Try until one try succeeds, and say how many there were with the ``first`` before.

        A try in a form that the service refuses is made again at once in another.

        Args:
            attempt: makes the try of a number.
            first: the number to begin with.

        Raises:
            RetryableError: the last failure, once patience is at its end.
        """
        numbers = itertools.count(first)
        began = time.monotonic()

        def once() -> R:
            while True:
                with contextlib.suppress(records.FormRefused):
                    return attempt(next(numbers))

        try:
            result = self._retry.retrying(self._pause)(once)
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
        return result, next(numbers)

    def wait(self, tokens: int) -> None:
        """Wait until the service's pace allows a call of that many tokens."""
        while (seconds := self._limiter.acquire(tokens)) > 0:
            self._pause(seconds)

    def check(self) -> None:
        """Raise CircuitOpen when nothing more is to be sent."""
        self._breaker.check()

    def send(self, question: Question, number: int) -> AIMessage:
        """Ask the model, and stop waiting after a while however slowly the answer drips in."""
        model, messages = self._model, question.messages
        if self._two_roles:
            messages = remedies.two_roles(messages)
        place = {f"llmopt_{name}": value for name, value in question.place(number).items()}
        metadata = {**place, "llmopt_stream": question.stream}

        def call() -> AIMessage:
            return model.invoke(list(messages), config={"metadata": metadata})

        message = call() if wire.is_local(model) else self._in_time(model, messages, call)
        headers = (message.response_metadata or {}).get("headers")
        if isinstance(headers, Mapping):
            self._limiter.learn(headers)
        return message

    def fault(self, message: AIMessage) -> ServiceError | None:
        """What is wrong with an answer that came, if anything."""
        reason = wire.finish_reason(message)
        text = str(message.text).strip()
        refusal = message.additional_kwargs.get("refusal")
        if reason == "content_filter" or (refusal and not text):
            said = self._scrub(f" ({str(refusal)[:200]})") if refusal else ""
            return ContentRefused(f"{self._name}: refuses the content{said}", service=self._name)
        if not text and reason != "length":
            why = self._scrub(wire.why_empty(message))
            return MalformedResponse(f"{self._name}: the answer is empty{why}", service=self._name)
        return None

    def adapt(self, name: str) -> None:
        """Ask in another form from now on; no change if another conversation did that already.

        Args:
            name: of a remedy, or the limit of a reply as ``max_tokens=NUMBER``.
        """
        most = name.removeprefix(f"{room.LIMIT}=")
        with self._lock:
            if most != name and most.isdecimal():
                before = room.limit_of(self._model)
                if before is None or not 0 < int(most[:9]) < before:
                    return
                self._model = self._model.model_copy(
                    update=room.limited(self._model, int(most[:9]))
                )
                doing = f"has no room for replies of {before} tokens: asking for at most {most}"
            elif name == remedies.SYSTEM_ROLE:
                if self._two_roles:
                    return
                self._two_roles = True
                doing = remedies.REMEDIES[name].doing
            elif change := remedies.changes(self._model).get(name):
                self._model = self._model.model_copy(update=change)
                doing = remedies.REMEDIES[name].doing
            else:
                return
        self._remark(f"{self._name} {doing}")

    def settled(self, error: ServiceError | None, spare: int) -> None:
        """What the outcome of a call means for the other conversations.

        Args:
            error: how it failed, if it did.
            spare: tokens of its upper bound that it did not take.
        """
        self._limiter.refund(spare)
        if error is None or isinstance(error, (*records.COURSE, records.FormRefused)):
            self._breaker.succeeded()  # the service is there
            return
        self._breaker.failed(error)
        wait = error.retry_after if isinstance(error, RetryableError) else None
        if wait and wait <= self._retry.deadline:
            # Longer than anyone waits ends one conversation; the others see for themselves.
            self._limiter.pause(wait)

    def _in_time(
        self, model: BaseChatModel, messages: Sequence[BaseMessage], call: Callable[[], AIMessage]
    ) -> AIMessage:
        patience = min(self._retry.call_seconds, max(1.0, self._ledger.room("seconds")))
        try:
            return in_thread(call, patience)
        except TooLong:
            raise ServiceTimeout(
                f"{self._name}: did not answer within {patience:.3g} s", service=self._name
            ) from None
        except Exception as error:
            failure = failures.as_service_error(error, self._name, self._scrub)
            possible = set(remedies.changes(model))
            if remedies.two_roles(messages) != list(messages):
                possible.add(remedies.SYSTEM_ROLE)
            remedy = _room(error, model) or remedies.find(error, possible)
        # Raised outside the handler: the cause may hold the request with its key.
        if remedy is None:
            raise failure
        self.adapt(remedy)
        again = records.FormRefused(str(failure), service=self._name, status=failure.status)
        again.dropped = remedy
        raise again

    def _pause(self, seconds: float) -> None:
        """Wait, unless the run's time ends before, or is ended."""
        caps = self._ledger.caps
        if caps.seconds is not None and seconds >= self._ledger.room("seconds"):
            raise BudgetExhausted("seconds", caps.seconds)
        if seconds >= _WORTH_SAYING:
            self._notify(f"waiting {waits.human(seconds)} for {self._name}")
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._ledger.stopped:
                raise BudgetExhausted("interrupted", 0)
            self._breaker.check()
            time.sleep(min(left, _TICK))


def _room(error: BaseException, model: BaseChatModel) -> str | None:
    """The limit of replies to keep from now on, where the one that was sent left no room."""
    asked = room.limit_of(model)
    if asked is None or failures.status_of(error) not in room.STATUSES:
        return None
    most = room.for_reply(failures.words_of(error), asked)
    return None if most is None else f"{room.LIMIT}={most}"
