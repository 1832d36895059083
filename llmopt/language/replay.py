"""A chat model that answers from the journal of an earlier run.

``--llm replay:FILE`` runs a recorded conversation again, offline and for nothing: the same run
meets the same replies and the same failures, and ends in the same result.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from llmopt import errors
from llmopt.errors import ConfigError, ContextOverflow, RetryableError, ServiceError
from llmopt.language import wire
from llmopt.language.records import REPLY, checked
from llmopt.spend.journal import Record, read_journal

JOURNAL = "journal.jsonl"
# Failed calls that did answer, and were charged what they used.
_EMPTY = {"ContentRefused": "content_filter", "MalformedResponse": "stop"}
_Place = tuple[str, int, int, int, str]


def open_replay(file: str, **others: Any) -> ReplayChat:
    """The chat model of a journal, or of a run folder, as ``--llm replay:FILE`` names it.

    Raises:
        ConfigError: there is no such journal, or no reply in it.
        RunFolderError: the journal is damaged.
    """
    path = Path(file)
    journal = path / JOURNAL if path.is_dir() else path
    if not journal.is_file():
        raise ConfigError(
            f"--llm replay:{path}: there is no journal; name a run folder or its file"
        )
    chat = ReplayChat(read_journal(journal), journal)
    if not len(chat):
        raise ConfigError(f"--llm replay:{path}: this journal holds no reply of a chat model")
    return chat


class ReplayChat(BaseChatModel):
    """Finds what was answered, by the place in the run and the messages."""

    llmopt_local: ClassVar[bool] = True
    _records: dict[_Place, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _by_request: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    def __init__(self, records: Iterable[Record] = (), journal: Path = Path(JOURNAL)) -> None:
        super().__init__()
        for record in records:
            if record["kind"] == REPLY:
                data = checked(REPLY, record["data"], journal)
                self._records[_place(record["stream"], data)] = data
                if "text" in data:
                    self._by_request.setdefault(data["request"], data)

    def __len__(self) -> int:
        """Calls recorded."""
        return len(self._records)

    @property
    def _llm_type(self) -> str:
        return "llmopt-replay"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = wire.fingerprint(messages)
        told = (run_manager.metadata if run_manager else None) or {}
        if "llmopt_stream" in told:
            data = {name: told[f"llmopt_{name}"] for name in ("turn", "sample", "attempt")}
            place = _place(told["llmopt_stream"], {**data, "request": request})
            record = self._records.get(place)
        else:
            place, record = None, self._by_request.get(request)
        if record is None:
            raise ConfigError(
                "the recorded run never asked this: its settings, its data or the version of "
                "llmopt were different, or it ended before"
            )
        error = record.get("error")
        reason = record.get("finish_reason", "stop")
        if error is not None:
            reason = _EMPTY.get(error["type"], "")
            if not reason or not record["charged"]["llm_tokens_in"]:
                raise _recorded(error, again=place is not None and _next(place) in self._records)
        return ChatResult(generations=[ChatGeneration(message=_message(record, reason))])


def _message(record: dict[str, Any], reason: str) -> AIMessage:
    tokens_in = int(record["charged"]["llm_tokens_in"])
    tokens_out = int(record["charged"]["llm_tokens_out"])
    return AIMessage(
        record.get("text", ""),
        usage_metadata={
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
        response_metadata={
            "finish_reason": reason,
            "model_name": record.get("model", ""),
            "system_fingerprint": record.get("fingerprint", ""),
        },
    )


def _place(stream: str, data: dict[str, Any]) -> _Place:
    return (stream, data["turn"], data["sample"], data["attempt"], data["request"])


def _next(place: _Place) -> _Place:
    stream, turn, sample, attempt, request = place
    return (stream, turn, sample, attempt + 1, request)


def _recorded(error: dict[str, Any], again: bool) -> ServiceError:
    """A recorded failure.

    One that ended a sitting (a bad key, say) was followed by another try on resume; here it must
    not end the run.
    """
    kind: type[ServiceError] = getattr(errors, error["type"], ServiceError)
    if again and not issubclass(kind, (RetryableError, ContextOverflow)):
        kind = RetryableError
    return kind(error["message"], status=error["status"])
