"""A run's calls to the service: wait for its pace, send, try again, and learn from the outcome."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from llmopt.errors import RetryableError, ServiceError
from llmopt.language import records
from llmopt.language.asking import Asker
from llmopt.language.records import Question
from llmopt.remote.line import Line

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

    from llmopt.language.llm import Llm
    from llmopt.remote.scrub import Scrubber
    from llmopt.spend.ledger import Ledger

R = TypeVar("R")


class Caller(Asker):
    """Sends questions to one chat model. Shared by all conversations of a run.

    Args:
        llm: whose pace and patience are kept.
        model: what is called; its own retries are off.
        ledger: for reading only: the time that is left, and whether the run was interrupted.
        scrub: masks secrets in what is raised.
        notify: told of long waits.
        remark: told of what is asked in another form.

    Attributes:
        line: to the service.
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
        super().__init__(llm.spec, model, scrub, remark)
        self._ledger = ledger
        self.line = Line(
            llm.spec,
            llm.retry,
            ledger,
            notify,
            requests=llm.settings.requests_per_minute,
            tokens=llm.settings.tokens_per_minute,
        )

    def persist(self, attempt: Callable[[int], R], first: int) -> tuple[R, int]:
        """Try until one try succeeds, and say how many there were with the ``first`` before.

        Args:
            attempt: makes the try of a number.
            first: the number to begin with.

        Raises:
            RetryableError: the last failure, once patience is at its end.
        """
        numbers = itertools.count(first)
        began = time.monotonic()

        try:
            result = self.line.persist(lambda: attempt(next(numbers)))
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

    def send(self, question: Question, number: int) -> AIMessage:
        """Ask the model, and stop waiting after a while however slowly the answer drips in."""
        place = {f"llmopt_{name}": value for name, value in question.place(number).items()}
        metadata = {**place, "llmopt_stream": question.stream}
        patience = min(self.line.retry.call_seconds, max(1.0, self._ledger.room("seconds")))
        message = self.ask(question.messages, patience, metadata)
        headers = (message.response_metadata or {}).get("headers")
        if isinstance(headers, Mapping):
            self.line.learn(headers)
        return message

    def settled(self, error: ServiceError | None, spare: int) -> None:
        """What the outcome of a call means for the other conversations.

        Args:
            error: how it failed, if it did.
            spare: tokens of its upper bound that it did not take.
        """
        if error is None or isinstance(error, records.COURSE):
            self.line.answered(spare)  # the service is there
        else:
            self.line.failed(error, spare)
