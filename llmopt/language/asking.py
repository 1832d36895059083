"""One question to a chat model: send it, stop waiting in time, and judge what came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmopt.errors import (
    ContentRefused,
    FormRefused,
    MalformedResponse,
    ServiceError,
    ServiceTimeout,
)
from llmopt.language import remedies, room, wire
from llmopt.remote import failures
from llmopt.remote.patience import TooLong, in_thread

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

    from llmopt.remote.scrub import Scrubber


class Asker:
    """A chat model that is asked once at a time, in the form that it takes. Shared by threads.

    Args:
        name: of the model, for people.
        model: what is called; its own retries are off.
        scrub: masks secrets in what is raised.
        remark: told of what is asked in another form.
        ways: the options that say what is asked and where.

    Attributes:
        model: as it is asked by now.
    """

    def __init__(
        self,
        name: str,
        model: BaseChatModel,
        scrub: Scrubber,
        remark: Callable[[str], None],
        ways: failures.Ways = failures.CHAT,
    ) -> None:
        self._name = name
        self.model = model
        self._scrub = scrub
        self._remark = remark
        self._ways = ways
        self._lock = threading.Lock()
        self._two_roles = False

    def close(self) -> None:
        """Close the model's connections; nothing can be asked afterwards."""
        wire.close(self.model)

    def ask(
        self,
        messages: Sequence[BaseMessage],
        patience: float,
        metadata: Mapping[str, Any] | None = None,
        schema: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AIMessage:
        """What the model answers, however slowly it drips in within ``patience`` seconds.

        Args:
            messages: the whole conversation.
            patience: seconds.
            metadata: told to LangChain.
            schema: of a JSON object that is answered, in the way that LangChain knows of the model.
            options: of this call.

        Raises:
            FormRefused: another form is taken from now on; ask again.
            ServiceError: anything else.
        """
        model = self.model
        if self._two_roles:
            messages = remedies.two_roles(messages)
        config: Any = {"metadata": dict(metadata or {})}

        def call() -> AIMessage:
            if schema is None:
                return model.invoke(list(messages), config=config, **options)
            shaped = model.with_structured_output(
                dict(schema), method="json_schema", include_raw=True
            )
            told: Any = shaped.invoke(list(messages), config=config)
            answer: AIMessage = told["raw"]
            return answer

        return call() if wire.is_local(model) else self._in_time(model, messages, call, patience)

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
                before = room.limit_of(self.model)
                if before is None or not 0 < int(most[:9]) < before:
                    return
                self.model = self.model.model_copy(update=room.limited(self.model, int(most[:9])))
                doing = f"has no room for replies of {before} tokens: asking for at most {most}"
            elif name == remedies.SYSTEM_ROLE:
                if self._two_roles:
                    return
                self._two_roles = True
                doing = remedies.REMEDIES[name].doing
            elif change := remedies.changes(self.model).get(name):
                self.model = self.model.model_copy(update=change)
                doing = remedies.REMEDIES[name].doing
            else:
                return
        self._remark(f"{self._name} {doing}")

    def _in_time(
        self,
        model: BaseChatModel,
        messages: Sequence[BaseMessage],
        call: Callable[[], AIMessage],
        patience: float,
    ) -> AIMessage:
        try:
            return in_thread(call, patience)
        except TooLong:
            raise ServiceTimeout(
                f"{self._name}: did not answer within {patience:.3g} s", service=self._name
            ) from None
        except Exception as error:
            failure = failures.as_service_error(error, self._name, self._scrub, self._ways)
            possible = set(remedies.changes(model))
            if remedies.two_roles(messages) != list(messages):
                possible.add(remedies.SYSTEM_ROLE)
            remedy = _room(error, model) or remedies.find(error, possible)
        # Raised outside the handler: the cause may hold the request with its key.
        if remedy is None:
            raise failure
        self.adapt(remedy)
        again = FormRefused(str(failure), service=self._name, status=failure.status)
        again.dropped = remedy
        raise again


def _room(error: BaseException, model: BaseChatModel) -> str | None:
    """The limit of replies to keep from now on, where the one that was sent left no room."""
    asked = room.limit_of(model)
    if asked is None or failures.status_of(error) not in room.STATUSES:
        return None
    most = room.for_reply(failures.words_of(error), asked)
    return None if most is None else f"{room.LIMIT}={most}"
