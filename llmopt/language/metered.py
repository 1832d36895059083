"""The metered chat model: the only place that spends on a language model.

Whatever is asked passes :meth:`MeteredChat.ask`, in this order:

1. the journal: a resumed run finds here what it asked before, failures included, and pays nothing;
2. the response cache, if one is used;
3. the service: wait for the rate limiter, reserve the upper bound in the ledger, write the intent
   to the journal, send, write the answer to the journal, settle, and only then hand it out.

So no cap is passed, unless a service takes more than was reserved, after which nothing more is
sent; and nothing paid for is lost. A machine that dies between intent and answer leaves an intent
without one; the resumed run counts that call as lost, at its upper bound, and asks again. A call
that timed out or broke off is lost likewise. A failure that the search reacts to (the conversation
is too long, the content is refused) is part of its course and is raised again on resume. Every
other failure is only counted: on resume the next try follows, so a run that ended with a bad key
goes on with a good one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmopt.errors import CapBroken, ContextOverflow, LlmoptError, NotConnected, ServiceError
from llmopt.language import records, wire
from llmopt.language.billing import bill
from llmopt.language.caller import Caller
from llmopt.language.prices import call_bound, price_of
from llmopt.language.reasoning import strip_reasoning
from llmopt.language.recall import Recall
from llmopt.language.records import Question
from llmopt.remote import failures
from llmopt.remote.scrub import Scrubber

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from llmopt.language.cache import ResponseCache
    from llmopt.language.llm import Llm
    from llmopt.spend.events import Watch
    from llmopt.spend.journal import Journal
    from llmopt.spend.ledger import Ledger

_NO_MORE = "nothing more is asked of it"


@dataclass(frozen=True)
class Reply:
    """An answer that is journaled and paid for.

    Attributes:
        text: what the model said, without its reasoning.
        finish_reason: ``stop``, or ``length`` where the reply was cut off.
        tokens_in, tokens_out: as charged.
        usd: as charged; None where the price is not known.
        estimated: the service's count of tokens is missing or cannot be right (see
            :mod:`llmopt.language.billing`).
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


class MeteredChat:
    """A chat model whose every call is counted, capped, journaled and repeatable.

    Safe to share between threads: each conversation asks under a stream of its own.

    Args:
        llm: what is asked, at which price and how patiently.
        ledger: counts and caps.
        journal: remembers.
        seed: of the run; it tells runs apart in the cache that ask the same.
        cache: replies of earlier runs; none by default.
        notify: told what is worth a line: a long wait, a parameter left out, another model.
        warn: told where the service breaks what caps stand on.

    Attributes:
        remarks: what about the service is worth keeping with the result.
    """

    def __init__(
        self,
        llm: Llm,
        ledger: Ledger,
        journal: Journal,
        *,
        seed: int = 0,
        cache: ResponseCache | None = None,
        notify: Callable[[str], None] = lambda text: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        model = llm.open(seed)
        scrub = Scrubber(wire.secrets_of(model))
        self._llm = llm
        self._parameters = wire.parameters(model)
        self._ledger = ledger
        self._recall = Recall(ledger, journal, cache, model, llm.spec, seed, scrub)
        self._caller = Caller(llm, model, ledger, scrub, notify, self._remark)
        self._notify = notify
        self._warn = warn
        self.remarks: list[str] = []
        self._answered = False
        self._overflow: ContextOverflow | None = None
        self._lock = threading.Lock()
        self._answering = ""
        self._asked: Counter[str] = Counter()
        self._seconds = 0.0
        self._ours = wire.is_local(model)
        self._knows = getattr(type(model), "llmopt_knows", True) is True
        self._broken = ""
        self._raised = False
        if others := self._recall.others:
            self._remark(
                f"earlier sittings of this run asked {', '.join(others)}; what they were "
                f"answered is kept, and {llm.spec} is asked from there on"
            )
        known = [llm.price, *(price_of(name, llm.settings.price) for name in others)]
        ledger.price_known = ledger.price_known and None not in known

    @property
    def remote(self) -> bool:
        """Whether a service answers, which can be asked several things at the same time."""
        return self._llm.model is None and not self._ours

    @property
    def knows(self) -> bool:
        """Whether it can be asked what things look like, as the built-in rewriter cannot."""
        return self._knows

    @property
    def seconds(self) -> float:
        """Seconds spent waiting for answers, all conversations together."""
        return self._seconds

    def __repr__(self) -> str:
        return f"MeteredChat({self._llm.spec!r})"

    def __enter__(self) -> MeteredChat:
        return self

    def __exit__(self, *exception: object) -> None:
        self._caller.close()

    def ask(self, messages: Sequence[BaseMessage], *, stream: str = "main", turn: int = 0) -> Reply:
        """The reply to a conversation.

        Args:
            messages: the whole conversation, last turn last.
            stream: which of the conversations of this run; order is kept within one.
            turn: where in that conversation.

        Raises:
            BudgetExhausted: the call might pass a cap, or no cap can be kept any longer
                (:class:`~llmopt.errors.CapBroken`); nothing was sent.
            ContextOverflow: the conversation is too long; make it shorter and ask again.
            ContentRefused: the service declines; ask differently.
            ServiceError: the service failed for good; the run can be resumed.
        """
        try:
            reply = self._ask(self._question(messages, stream, turn))
        except ContextOverflow as error:
            self._overflow = error
            raise
        self._answered = True
        return reply

    def check_answered(self) -> None:
        """Raise if no question was short enough for the model, so that it contributed nothing.

        Raises:
            ContextOverflow: with what it said, and ways out.
        """
        if self._overflow is not None and not self._answered:
            raise ContextOverflow(
                f"{self._overflow}; it answered no question, so nothing of it was tried: serve the "
                "model with a longer context, or ask for less, such as --llm-set max_tokens=1024 "
                "or --set k=3, in another run",
                service=self._overflow.service,
                status=self._overflow.status,
            )

    def _ask(self, question: Question) -> Reply:
        tries = 0
        while (known := self._recall.journaled(question, tries)) is not None:
            tries += 1
            self._audit(known)
            if "error" not in known:
                return self._reply(known, tries)
            self._meet_again(known["error"])
        self._check_kept()
        if tries == 0 and (known := self._recall.cached(question)) is not None:
            return self._reply(known, 1)
        record, tries = self._caller.persist(lambda n: self._attempt(question, n), first=tries)
        if not record.get("broken"):
            self._recall.keep(question, record)
        return self._reply(record, tries)

    def _question(self, messages: Sequence[BaseMessage], stream: str, turn: int) -> Question:
        plain = wire.plain_messages(messages)
        text = wire.canonical([self._llm.spec, self._parameters, plain])
        place = wire.canonical([text, stream, turn])
        with self._lock:
            sample = self._asked[place]
            self._asked[place] += 1
        bound = call_bound(messages, self._llm.settings.max_tokens)
        price = self._llm.price
        usd = price.bound(bound.tokens_in, bound.tokens_out) if price else 0.0
        upper = records.spend(bound.tokens_in, bound.tokens_out, usd)
        return Question(messages, plain, stream, turn, sample, bound, upper, text)

    def _meet_again(self, error: dict[str, Any]) -> None:
        """React to a failure of an earlier sitting as that sitting did."""
        for kind in records.COURSE:
            if error["type"] == kind.__name__:
                raise kind(error["message"], service=self._llm.spec, status=error["status"])
        if error["dropped"] and not self._recall.others:  # another model may take it
            self._caller.adapt(error["dropped"])

    def _attempt(self, question: Question, number: int) -> dict[str, Any]:
        """One try: the record of its answer, journaled and settled; or the failure, likewise."""
        self._caller.line.wait(question.bound.tokens)
        with self._ledger.reserve(**question.upper) as reservation:
            try:
                self._check_kept()  # what others took is known only now
                self._caller.line.check()
                intent = {
                    "model": self._llm.spec,
                    "bound": question.upper,
                    **question.place(number),
                }
                if number == 0:
                    intent["messages"] = question.plain
                self._recall.write(records.INTENT, question, number, intent)
            except LlmoptError:
                reservation.release()  # nothing was sent
                raise
            began = time.monotonic()
            record, error = self._try(question, number)
            seconds = time.monotonic() - began
            record = {**question.place(number), **record, "seconds": round(seconds, 3)}
            record = self._recall.write(records.REPLY, question, number, record)
            self._audit(record)  # before it settles, for which others may wait
            reservation.settle(**record["charged"])
        with self._lock:
            self._seconds += seconds
        used = record["charged"]
        tokens = ("llm_tokens_in", "llm_tokens_out", "llm_tokens_lost")
        spare = question.bound.tokens - sum(used.get(name, 0) for name in tokens)
        self._caller.settled(error, max(0, spare))
        if error is not None and failures.never_came_back(error):
            self._notify(f"{error}: the call counts as lost{self._calls_used()}")
        if error is not None:
            raise error
        return record

    def _try(self, question: Question, number: int) -> tuple[dict[str, Any], ServiceError | None]:
        """Send, and put what came back into a record."""
        try:
            message = self._caller.send(question, number)
        except ServiceError as error:
            if isinstance(error, NotConnected):
                charged = records.spend(0, 0, 0.0, calls=0)
            elif failures.never_came_back(error):
                charged = records.spend(0, 0, 0.0, calls=0) | records.lost(question.upper)
            elif failures.may_be_billed(error):
                charged = question.upper
            else:
                charged = records.spend(0, 0, 0.0)
            return records.failure(error, charged), error
        due = bill(question, message, self._llm.price, ours=self._ours)
        odd = {name: told for name in ("raised", "broken") if (told := getattr(due, name))}
        if fault := self._caller.fault(message):
            return {**records.failure(fault, due.charged), **odd}, fault
        return {**records.answer(message, due.charged, due.estimated), **odd}, None

    def _audit(self, record: dict[str, Any]) -> None:
        """Say once what cannot be right about the count of a call, and remember a broken bound."""
        broken, raised = str(record.get("broken") or ""), bool(record.get("raised"))
        with self._lock:
            first = bool(broken) and not self._broken
            self._broken = self._broken or broken
            low = raised and not self._raised
            self._raised = self._raised or raised
        if low:
            self._remark(
                f"{self._llm.spec} counts fewer tokens than it is sent and sends: at least one a "
                "word is charged (a server that cuts prompts to its context counts so, too)"
            )
        if first:
            goes_on = "there is no cap on tokens or money to keep, so the run goes on"
            self._remark(
                f"{self._llm.spec} broke its bound: {broken}. What it says is counted, and "
                + (_NO_MORE if self._capped else goes_on),
                self._warn,
            )

    @property
    def cap_broken(self) -> bool:
        """Whether the service took more than was reserved, where there is a cap to be kept."""
        return bool(self._broken) and self._capped

    @property
    def _capped(self) -> bool:
        """Whether there is a cap that a service can break by what it counts."""
        caps = self._ledger.caps
        return caps.llm_tokens is not None or caps.llm_usd is not None

    def _calls_used(self) -> str:
        """How many calls are used of those allowed, where there is a cap."""
        cap, used = self._ledger.caps.llm_calls, self._ledger.spent("llm_calls")
        return "" if cap is None else f" ({used:.0f} of {cap} calls used)"

    def _check_kept(self) -> None:
        """Raise CapBroken once a service took more than was reserved, where a cap is to be kept."""
        if self.cap_broken:
            raise CapBroken(f"{self._llm.spec}: {self._broken}; {_NO_MORE}")

    def _remark(self, text: str, say: Callable[[str], None] | None = None) -> None:
        with self._lock:
            self.remarks.append(text)
        (say or self._notify)(text)

    def _watch_model(self, model: str) -> None:
        """Say so when the service begins to answer as another model than before."""
        with self._lock:
            before, self._answering = self._answering, model or self._answering
        if before and model and model != before:
            self._notify(f"{self._llm.spec} now answers as {model}, before as {before}")

    def _reply(self, record: dict[str, Any], calls: int) -> Reply:
        self._watch_model(record["model"])
        charged = record["charged"]
        text = strip_reasoning(record["text"])
        if not text and record["finish_reason"] == "length":
            self._notify(
                f"{self._llm.spec} spent all its {self._llm.settings.max_tokens} tokens on "
                "reasoning; allow more with --llm-set max_tokens=N, or ask for less with "
                "--llm-set reasoning_effort=low"
            )
        return Reply(
            text=text,
            finish_reason=record["finish_reason"],
            tokens_in=int(charged["llm_tokens_in"]),
            tokens_out=int(charged["llm_tokens_out"]),
            usd=charged["llm_usd"] if self._llm.price else None,
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

    chat = MeteredChat(
        llm,
        ledger,
        journal,
        seed=seed,
        cache=ResponseCache(default_cache_dir() / "replies") if llm.settings.cache else None,
        notify=watch.note if watch is not None else lambda text: None,
        warn=watch.warn if watch is not None else lambda text: None,
    )
    if llm.price is None and watch is not None:
        watch.warn(
            f"the price of '{llm.spec}' is not in the table of {prices_date()}: tokens are "
            "counted, money is not"
        )
    return chat
