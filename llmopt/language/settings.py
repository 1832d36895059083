"""The settings of a chat model: ``--llm-set KEY=VALUE`` and ``[llm_settings]`` in a config file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from llmopt.errors import ConfigError
from llmopt.remote.retry import RetrySettings
from llmopt.remote.scrub import looks_secret
from llmopt.settings import Settings

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
SHAPE_REPLIES = frozenset(
    {"temperature", "top_p", "seed", "max_tokens", "reasoning_effort", "structured"}
)
"""Settings that decide what is answered; the others, how it is fetched."""


@dataclass(frozen=True)
class LlmSettings(Settings):
    """How the chat model is asked.

    Attributes:
        temperature: 1.0 as in the paper; none is the model's own. Left out where it is refused.
        top_p: share of the probability to sample from; none is the model's own.
        seed: sent along where the service takes one; it promises nothing.
        max_tokens: the most tokens of one reply, reasoning included. Every call reserves this much.
        reasoning_effort: for models that take one (``low``, ``medium`` …).
        structured: ask for JSON by schema (OpenAI and compatible servers, and of black boxes
            Anthropic and Google too; dropped where refused).
        headers: extra ones, as ``Name: value; Other: value``. ``$NAME`` is read from the
            environment, and a header that holds a secret must be given so.
        key_env: the environment variable that holds the key, where it is not the provider's usual.
        timeout: seconds without a byte before a connection is given up.
        call_seconds: seconds for one call in all.
        attempts: tries for one question.
        deadline: seconds for one question, pauses included.
        first_pause: seconds before the second try.
        breaker: failures in a row that end the run.
        requests_per_minute, tokens_per_minute: limits to keep; learned from the service if none.
        price: ``INPUT,OUTPUT`` in US dollars per million tokens, over the table's.
        cache: use replies of earlier runs that asked the same.
    """

    temperature: Annotated[float, Interval(ge=0, le=2)] | None = 1.0
    top_p: Annotated[float, Interval(gt=0, le=1)] | None = None
    seed: int | None = None
    max_tokens: Annotated[int, Ge(1)] = 4096
    reasoning_effort: str = ""
    structured: bool = False
    headers: str = ""
    key_env: str = ""
    timeout: Annotated[float, Gt(0)] = 120.0
    call_seconds: Annotated[float, Gt(0)] = 300.0
    attempts: Annotated[int, Ge(1)] = 6
    deadline: Annotated[float, Gt(0)] = 600.0
    first_pause: Annotated[float, Ge(0)] = 1.0
    breaker: Annotated[int, Ge(1)] = 12
    requests_per_minute: Annotated[float, Gt(0)] | None = None
    tokens_per_minute: Annotated[float, Gt(0)] | None = None
    price: str = ""
    cache: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.header_values({})
        # A key put here by mistake would be printed, and kept in the run folder.
        if self.key_env and not (_VARIABLE.fullmatch(self.key_env) or self.key_env in os.environ):
            raise ConfigError(
                "setting key_env of the chat model is the name of an environment variable, in "
                "capital letters; it is not the key, and what was given is no such name"
            )

    @classmethod
    def out_of_range(cls, name: str, value: object, wanted: str) -> str:
        """Says whose setting it is."""
        return f"setting {name}={value} of the chat model must be {wanted}"

    @property
    def retry(self) -> RetrySettings:
        """The patience these settings ask for."""
        return RetrySettings(
            attempts=self.attempts,
            deadline=self.deadline,
            call_seconds=self.call_seconds,
            first_pause=self.first_pause,
            breaker=self.breaker,
        )

    def header_values(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """The extra headers, secrets filled in from the environment.

        Raises:
            ConfigError: not of the form ``Name: value``, or a secret written out: settings are
                kept in the run folder.
        """
        environ = os.environ if environ is None else environ
        headers: dict[str, str] = {}
        for name, value in self._headers():
            if value.startswith("$"):
                value = environ.get(value[1:], "")
            elif looks_secret(name):
                raise ConfigError(
                    f"the header '{name}' holds a secret, and settings are written to the run "
                    f"folder: put it into an environment variable and write '{name}: $VARIABLE'"
                )
            if value:
                headers[name] = value
        return headers

    def header_variables(self) -> list[str]:
        """The environment variables that the headers name."""
        return [value[1:] for _, value in self._headers() if value.startswith("$")]

    def _headers(self) -> Iterator[tuple[str, str]]:
        for part in filter(None, (part.strip() for part in self.headers.split(";"))):
            name, colon, value = (piece.strip() for piece in part.partition(":"))
            if not colon or not name or not value:
                raise ConfigError(f"the header {name!r} is not of the form 'Name: value'")
            yield name, value
