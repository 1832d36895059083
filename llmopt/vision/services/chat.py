"""A chat model that sees, as a black box: ``chat:PROVIDER:MODEL``.

It gets a picture, a sentence with a gap and the class names, and answers with the name that belongs
into the gap, or with several, the likeliest first (access level ``labels``). The sentence is the
template, so that whatever searches for templates searches for the best way to ask this model.
Every picture is a call of its own, of which several are in progress at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import string
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval

from llmopt.errors import BadRequest, ConfigError, ContentRefused, FormRefused
from llmopt.images import Image
from llmopt.language import wire
from llmopt.language.asking import Asker
from llmopt.language.billing import MOST, at_least
from llmopt.language.llm import DEFAULT_MAX_USD, Llm
from llmopt.language.prices import require_price, text_bound
from llmopt.language.providers import split_spec
from llmopt.language.settings import SHAPE_REPLIES, LlmSettings
from llmopt.remote.failures import BOX
from llmopt.remote.line import Line
from llmopt.remote.retry import RetrySettings
from llmopt.remote.scrub import Scrubber
from llmopt.resources import read_prompt
from llmopt.spend.ledger import Ledger
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.services.gaps import gap
from llmopt.vision.services.pictures import packed, picture_tokens
from llmopt.vision.services.reading import read
from llmopt.vision.spoken import RANKS

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

LONGEST: Final = 600
"""Bytes of a prompt, at most: a sentence, and no essay, is what is asked about a picture."""
_ENUM: Final = 500
"""Options that OpenAI's schemas may list, less what may be added to them."""
_WRAPPING: Final = 512
"""Tokens that a service may put around the text: its chat template, a default system text."""
_LETTERS: Final = 4
"""Letters of English in a token, usually."""
_FORM: Final = 16
"""Letters of ``{"answer": ""}`` and the like around an answer."""
_OURS: Final = ("builtin", "replay")
_SHAPED: Final = ("anthropic", "google_genai")
"""Providers that hold answers to a schema in ways of their own, which LangChain knows."""


@dataclass(frozen=True)
class ChatBoxSettings(LlmSettings):
    """How the model is asked: as any chat model, and besides how pictures are shown to it.

    Attributes:
        base_url: of a server that speaks OpenAI's protocol.
        ranked: answers to ask for, the likeliest first.
        side: pixels of the longer side of a picture; larger ones are made smaller.
        at_once: calls in progress at a time.
    """

    temperature: Annotated[float, Interval(ge=0, le=2)] | None = 0.0
    max_tokens: Annotated[int, Ge(1)] = 1024
    structured: bool = True
    base_url: str = ""
    ranked: Annotated[int, Interval(ge=1, le=RANKS)] = 1
    side: Annotated[int, Interval(ge=32, le=4096)] = 512
    at_once: Annotated[int, Interval(ge=1, le=64)] = 8


class ChatBox(BlackBox):
    """A chat model that sees. Making it opens and sends nothing.

    Args:
        spec: ``PROVIDER:MODEL``, as ``--llm`` takes it.
        settings: of :class:`ChatBoxSettings`.

    Raises:
        ConfigError: an unknown provider or setting; when it is used, a key or package is missing.
    """

    Settings = ChatBoxSettings
    gives_gradients = False
    reads_capitals = True
    images_per_call = 1

    def __init__(self, spec: str, settings: Mapping[str, Any] | None = None) -> None:
        where = "the settings of the black box"
        self._settings = ChatBoxSettings.make(settings or {}, where)
        with _our_options():
            provider, _ = split_spec(spec, self._settings.base_url)
        if provider in _OURS:
            raise ConfigError(f"--blackbox chat:{spec} sees nothing; name a model that does")
        self._llm = Llm(spec, self._settings.base_url, self._settings)
        self.at_once, self.paid = self._settings.at_once, self._settings.cache
        there = f"@{self._settings.base_url}" if self._settings.base_url else ""
        self.address = f"chat:{spec}{there}"
        self._bill = threading.local()
        self._shaped = self._settings.structured and provider in _SHAPED

    @cached_property
    def info(self) -> BoxInfo:
        """The model's name, and a hash of all that decides what it answers."""
        decides = {*SHAPE_REPLIES, "ranked", "side"}
        shape = {k: v for k, v in asdict(self._settings).items() if k in decides}
        said = [self.address, shape, *map(read_prompt, _PROMPTS)]
        identity = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        detail = "a chat model that sees"
        return BoxInfo(self.address, "", Access.LABELS, identity, detail=detail)

    @property
    def retry(self) -> RetrySettings:
        """The patience of its settings."""
        return self._settings.retry

    def line(self, ledger: Ledger) -> Line:
        """Paced as its settings say."""
        pace = self._settings
        requests, tokens = pace.requests_per_minute, pace.tokens_per_minute
        return Line(self.address, self.retry, ledger, self.tell, requests=requests, tokens=tokens)

    def ready(self) -> None:
        """Open the model, which sends nothing.

        Raises:
            ConfigError: a key or package is missing.
        """
        _ = self._asker
        if self._llm.price is None:
            self.tell(f"the price of {self.address} is not known: tokens are counted, money is not")

    def token_excess(self, prompt: str) -> int:
        """Bytes over the limit of a prompt."""
        return text_bound(prompt) - LONGEST

    def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) index of the prompt that the model names first; the first one if it names none."""
        places = {prompt: n for n, prompt in reversed(list(enumerate(prompts)))}
        said = self.answers(images, prompts)
        first = [next((places[one] for one in row if one in places), 0) for row in said]
        return np.array(first, dtype=np.int64)

    def answers(self, images: Sequence[Image], prompts: Sequence[str]) -> list[list[str]]:
        """What the model says of each picture: prompts, or other words; nothing if it declines."""
        return [self._answer(image, prompts) for image in images]

    def dues(self, images: int, prompts: Sequence[str], calls: int = 1) -> dict[str, float]:
        """Tokens and money of a call for each picture."""
        options, words = _question(prompts, self._settings.ranked)
        schema = json.dumps(_schema(options, self._settings.ranked))
        tokens_in = _WRAPPING + text_bound(words) + text_bound(schema) + self._picture[1]
        return self._due(images, tokens_in, self._settings.max_tokens)

    def usual(self, images: int, prompts: Sequence[str]) -> dict[str, float]:
        """The same at what is usual: four letters a token, and a reply that is just the answer."""
        options, words = _question(prompts, self._settings.ranked)
        schema = json.dumps(_schema(options, self._settings.ranked))
        answer = _FORM + self._settings.ranked * max(map(len, options))
        tokens_in = (len(words) + len(schema)) // _LETTERS + self._picture[0]
        return self._due(images, tokens_in, -(-answer // _LETTERS))

    def took(self) -> Mapping[str, float] | None:
        """What the service counted of the last call of this thread."""
        told: Mapping[str, float] | None = getattr(self._bill, "told", None)
        return told

    def cap_on_usd(self, max_usd: float | None) -> float | None:
        """The cap on money, or the default where the price is known."""
        price = self._llm.price
        known = price is not None
        require_price(self.address, known, max_usd, "--blackbox-set", instead="--max-box-calls")
        return DEFAULT_MAX_USD if max_usd is None and price is not None else max_usd

    def notes(self) -> list[str]:
        """What its dues are counted from."""
        notes = [
            f"A picture of {self._settings.side} pixels a side is counted at {self._picture[1]:,} "
            "tokens, a byte of text as one, and every reply at its full length "
            f"(max_tokens={self._settings.max_tokens}): the real figure is far lower."
        ]
        if self._llm.price is None:
            notes.append(
                f"The price of '{self.address}' is not known; give it as --blackbox-set "
                "price=INPUT,OUTPUT in US dollars per million tokens."
            )
        return notes

    @cached_property
    def _picture(self) -> tuple[int, int]:
        """Tokens of a picture: as a rule, and at most."""
        known = "" if self._settings.base_url else self._llm.spec
        return picture_tokens(known, self._settings.side)

    @cached_property
    def _asker(self) -> Asker:
        with _our_options():
            model = self._llm.open(0)
        weakref.finalize(self, wire.close, model)  # a run opens it and just lets it go
        scrub = Scrubber(wire.secrets_of(model))
        return Asker(self.address, model, scrub, lambda text: self.tell(text), BOX)

    def _answer(self, image: Image, prompts: Sequence[str]) -> list[str]:
        options, words = _question(prompts, self._settings.ranked)
        kind, content = packed(image, self._settings.side)
        self._bill.told = None
        try:
            reply = self._ask(words, kind, content, options)
        except ContentRefused:  # paid for, perhaps, and nothing is said of this picture
            return []
        self._bill.told = self._taken(words, reply)
        spelled = dict(zip(options, prompts, strict=True))
        return [spelled.get(one, one) for one in read(str(reply.text), options)]

    def _ask(self, words: str, kind: str, content: str, options: Sequence[str]) -> AIMessage:
        from langchain_core.messages import HumanMessage

        picture = {"type": "image", "base64": content, "mime_type": kind}
        message = HumanMessage(content=[{"type": "text", "text": words}, picture])
        form = self._form(options)
        try:
            return self._asker.ask([message], self.retry.call_seconds, **form)
        except BadRequest as error:  # of the schema, perhaps
            if "schema" not in form:
                raise
            if self._shaped:
                self._shaped = False
                self.tell(f"{self.address} takes no schema of answers: asking without it")
            raise FormRefused(str(error), service=self.address, status=error.status) from None

    def _form(self, options: Sequence[str]) -> dict[str, Any]:
        """What holds an answer to the options, as the model takes it."""
        extra = dict(getattr(self._asker.model, "extra_body", None) or {})
        schema = _schema(options, self._settings.ranked) if len(options) <= _ENUM else None
        if extra.pop("response_format", None):
            return {"extra_body": extra | ({"response_format": schema} if schema else {})}
        if self._shaped and schema:
            return {"schema": {"title": "answer", **schema["json_schema"]["schema"]}}
        return {}

    def _taken(self, words: str, reply: AIMessage) -> dict[str, float] | None:
        """What a reply took, as the service counts it; None where it does not, or cannot be so."""
        from langchain_core.messages import HumanMessage

        usage = wire.usage(reply)
        if usage is None or max(usage.tokens_in, usage.tokens_out) > MOST:
            return None
        usage, price = at_least(usage, [HumanMessage(words)], reply), self._llm.price
        sizes = usage.tokens_in, usage.tokens_out, usage.cached, usage.written
        return _billed(*sizes[:2], price.cost(*sizes) if price else 0.0)

    def _due(self, calls: int, tokens_in: int, tokens_out: int) -> dict[str, float]:
        price = self._llm.price
        usd = price.bound(tokens_in, tokens_out) if price else 0.0
        return {name: calls * due for name, due in _billed(tokens_in, tokens_out, usd).items()}


_PROMPTS: Final = ("look/gap.txt", "look/sentences.txt", "look/one.txt", "look/ranked.txt")


@contextlib.contextmanager
def _our_options() -> Iterator[None]:
    """Name the options of black boxes where the room of language models names its own."""
    try:
        yield
    except ConfigError as error:
        said = str(error).partition("; set it,")[0].partition("; write ")[0]
        said = said.replace("--llm-set", "--blackbox-set").replace("--llm ", "--blackbox chat:")
        raise ConfigError(said) from error


def _billed(tokens_in: float, tokens_out: float, usd: float) -> dict[str, float]:
    return {"box_tokens_in": tokens_in, "box_tokens_out": tokens_out, "box_usd": usd}


def _question(prompts: Sequence[str], ranked: int) -> tuple[list[str], str]:
    """The options, and the words that go with a picture."""
    sentence, options = gap(prompts) or ("", list(prompts))
    name = "look/gap.txt" if sentence else "look/sentences.txt"
    several = min(ranked, len(options))
    answer = read_prompt("look/ranked.txt" if several > 1 else "look/one.txt")
    marks = {
        "sentence": sentence,
        "options": "\n".join(f"- {option}" for option in options),
        "answer": string.Template(answer).substitute(ranked=several),
    }
    return options, string.Template(read_prompt(name)).substitute(marks).strip()


def _schema(options: Sequence[str], ranked: int) -> dict[str, Any]:
    """The form of an answer, for services that can hold a model to it."""
    one: dict[str, Any] = {"type": "string", "enum": list(dict.fromkeys(options))}
    answer = one if min(ranked, len(options)) == 1 else {"type": "array", "items": one}
    schema = {
        "type": "object",
        "properties": {"answer": answer},
        "required": ["answer"],
        "additionalProperties": False,
    }
    named = {"name": "answer", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}
