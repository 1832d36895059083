"""What the boxes of services have in common: one request at a time, its failure by kind, its bill.

A service is a row of ``services.toml``, which holds addresses, limits and prices, and a class that
says what its requests and answers look like. Making a box opens and sends nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import time
import tomllib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Final, TypeVar
from urllib.parse import urlsplit

import httpx
from annotated_types import Ge, Gt, Interval

from llmopt.errors import ConfigError, MalformedResponse, ServiceTimeout
from llmopt.language.llm import DEFAULT_MAX_USD
from llmopt.language.prices import require_price, text_bound
from llmopt.remote import failures
from llmopt.remote.line import Line
from llmopt.remote.retry import RetrySettings
from llmopt.remote.scrub import Scrubber
from llmopt.settings import Settings
from llmopt.spend.ledger import Ledger
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.services.bounded import read_bounded
from llmopt.vision.services.rates import UNITS, Rates, parse_rates
from llmopt.vision.temperature import USUAL

T = TypeVar("T")
_MOST: Final = 64 * 2**20
"""Bytes of an answer."""
_MOST_TOKENS: Final = 10_000_000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PIECES = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Service:
    """A row of ``services.toml``, which says what each field is."""

    at: str
    key: tuple[str, ...]
    header: str
    model: str
    texts: int
    images: int
    source: str
    read: str
    words: int | None = None
    image_tokens: int = 0
    pixels_per_token: int = 0
    least: int = 0
    unit: str = "token"
    text_usd: float | None = None
    image_usd: float | None = None
    second_usd: float | None = None
    usual_seconds: float | None = None


@cache
def services() -> dict[str, Service]:
    """What is known of each service, by kind."""
    source = files("llmopt.vision.services").joinpath("services.toml").read_text(encoding="utf-8")
    table = tomllib.loads(source)
    return {name: Service(**{**row, "key": tuple(row["key"])}) for name, row in table.items()}


@dataclass(frozen=True)
class ServiceSettings(Settings):
    """How a service is asked.

    Attributes:
        base_url: where, in place of the service's own address.
        key_env: the environment variable that holds the key, where it is not the usual one.
        price: in US dollars: ``TEXT,IMAGE`` per million tokens of each, or per million characters
            and per million pictures where a service counts those; ``SECOND`` where it counts time.
        billed_seconds: put aside for each call where a service counts time. A call that takes
            longer is the last one where there is a cap on money.
        side: pixels of the longer side of a picture; larger ones are made smaller.
        batch: pictures or texts in a call, if fewer than the service takes.
        at_once: calls in progress at a time.
        logit_scale: factor from cosine to logit; fitted on the shots at the beginning of a run if
            none is given.
        dialect: of several that go by one name; found out at the beginning of a run if none is
            given.
        timeout: seconds for one request, however slowly its answer drips in.
        attempts: tries for one call.
        deadline: seconds for one call, pauses included.
        first_pause: seconds before the second try.
        breaker: failures in a row that end the run.
        requests_per_minute: a limit to keep.
        cache: take what earlier runs were answered, and keep what is answered for later ones.
    """

    base_url: str = ""
    key_env: str = ""
    price: str | float = ""
    billed_seconds: Annotated[float, Interval(gt=0, le=86_400)] = 5.0
    side: Annotated[int, Interval(ge=16, le=4096)] = 512
    batch: Annotated[int, Ge(1)] | None = None
    at_once: Annotated[int, Interval(ge=1, le=64)] = 4
    logit_scale: Annotated[float, Interval(gt=0, le=1e6)] | None = None
    dialect: str = ""
    timeout: Annotated[float, Gt(0)] = 120.0
    attempts: Annotated[int, Ge(1)] = 6
    deadline: Annotated[float, Gt(0)] = 600.0
    first_pause: Annotated[float, Ge(0)] = 1.0
    breaker: Annotated[int, Ge(1)] = 12
    requests_per_minute: Annotated[float, Gt(0)] | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base_url and urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ConfigError("base_url of the black box must begin with http:// or https://")
        if self.key_env and not _VARIABLE.fullmatch(self.key_env):
            raise ConfigError(
                "setting key_env of the black box is the name of an environment variable; what was "
                "given is no such name"
            )


class WebBox(BlackBox):
    """A service behind HTTP.

    Args:
        address: what follows ``KIND:``, a model's name; empty for the usual one.
        settings: of :class:`ServiceSettings`.

    Raises:
        ConfigError: a setting is refused; when it is used, the key is missing.
    """

    Settings = ServiceSettings
    gives_gradients = False
    reads_capitals = True
    kind: ClassVar[str]
    level: ClassVar[Access] = Access.FEATURES

    def __init__(self, address: str = "", settings: Mapping[str, Any] | None = None) -> None:
        self.settings = ServiceSettings.make(settings or {}, "the settings of the black box")
        self.service = services()[self.kind]
        self.model, places = self.split(address)
        self.paid, self.at_once = self.settings.cache, self.settings.at_once
        self.images_per_call = min(self.settings.batch or 10**9, self.service.images)
        self.prompts_per_call = min(self.settings.batch or 10**9, self.service.texts)
        self._url = (self.settings.base_url or self.service.at).rstrip("/")
        for name, value in {**places, "model": self.model}.items():
            self._url = self._url.replace(f"{{{name}}}", value)
        if not self._url:
            raise ConfigError(
                f"--blackbox {self.kind}:{address} needs to know where it is asked: give "
                "--blackbox-set base_url=http://HOST:PORT/v1",
                docs="hosted-model",
            )
        where = f"@{self._url}" if self.settings.base_url else ""
        self.address = f"{self.kind}:{address or self.model}{where}"
        self._bill = threading.local()
        self._late = False

    def split(self, address: str) -> tuple[str, dict[str, str]]:
        """The model, and what else is filled into the service's address."""
        return address or self.service.model, {}

    @property
    def scale_known(self) -> bool:
        """Whether its factor from cosine to logit need not be fitted."""
        return self.level < Access.FEATURES or self.settings.logit_scale is not None

    @property
    def info(self) -> BoxInfo:
        """Its address, and a hash of all that decides its features."""
        said = [self.address, self.settings.side, self.settings.dialect]
        identity = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        scale = 1.0 if self.level < Access.FEATURES else self.settings.logit_scale or USUAL
        return BoxInfo(self.address, "", self.level, identity, scale, detail="a service")

    @property
    def retry(self) -> RetrySettings:
        """The patience of its settings."""
        s = self.settings
        return RetrySettings(
            attempts=s.attempts,
            deadline=s.deadline,
            call_seconds=s.timeout,
            first_pause=s.first_pause,
            breaker=s.breaker,
        )

    def line(self, ledger: Ledger) -> Line:
        """Paced as its settings say."""
        pace = self.settings.requests_per_minute
        return Line(self.address, self.retry, ledger, self.tell, requests=pace)

    def ready(self) -> None:
        """Look for the key.

        Raises:
            ConfigError: it is missing.
        """
        _ = self._client
        if self._rates is None:
            counted = "tokens" if self.service.unit == "token" else "calls"
            self.tell(
                f"the price of {self.address} is not known: {counted} are counted, money is not"
            )

    def token_excess(self, prompt: str) -> int:
        """Words and marks over the limit, 0 where none is known."""
        most = self.service.words
        return 0 if most is None else len(_PIECES.findall(prompt)) - most

    def dues(self, images: int, prompts: Sequence[str], calls: int = 1) -> dict[str, float]:
        """Tokens and money of so much, at most."""
        texts = 0 if self.level < Access.FEATURES else sum(map(text_bound, prompts))
        return self._due(texts, images * self._image_tokens, calls * self.settings.billed_seconds)

    def took(self) -> Mapping[str, float] | None:
        """What the service counted of the last call of this thread, or the time it took."""
        told: Mapping[str, float] | None = getattr(self._bill, "told", None)
        return told

    def cap_on_usd(self, max_usd: float | None) -> float | None:
        """The cap on money, or the default where the price is known."""
        form, known = UNITS[self.service.unit], self._rates is not None
        require_price(self.address, known, max_usd, "--blackbox-set", form, "--max-box-calls")
        return DEFAULT_MAX_USD if max_usd is None and known else max_usd

    def notes(self) -> list[str]:
        """What its dues are counted from."""
        unit = self.service.unit
        if self._rates is None:
            return [
                f"The price of '{self.address}' is not known; give it as --blackbox-set "
                f"price={UNITS[unit]}."
            ]
        given = "as given" if self.settings.price != "" else f"read on {self.service.read}"
        if unit == "second":
            usual = self.service.usual_seconds
            lower = "real figures are lower" if usual is None else f"{usual:g} is usual"
            return [
                f"It is paid by its time, at {self._rates.second:g} US dollars a second, {given}; "
                f"each call is counted at {self.settings.billed_seconds:g} seconds "
                f"(--blackbox-set billed_seconds=N): {lower}."
            ]
        counted = f"and a picture of {self.settings.side} pixels a side as {self._image_tokens:,}"
        if unit == "character":
            counted = "and pictures as they are"
        return [
            f"Prices {given}; a byte of text is counted as a {unit}, {counted}: "
            "real figures are lower."
        ]

    def ask(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T], kind: str) -> T:
        """What is read from the answer to one request.

        Args:
            path: below the service's address.
            body: of a POST.
            read: of the JSON that comes; raises any of the errors of a wrong form.
            kind: what its tokens are of, ``text`` or ``image``.

        Raises:
            ServiceError: as :mod:`llmopt.remote.failures` says.
        """
        self._bill.told = None
        begun = time.monotonic()
        failure: Exception | None = None
        try:
            with self._client.stream("POST", f"{self._url}{path}", json=body) as answer:
                content = read_bounded(answer, _MOST, self.settings.timeout)
                if answer.status_code != 200:
                    raise _Refused(answer, content)
        except TimeoutError:
            failure = ServiceTimeout(f"{self.address}: did not answer in time")
        except ValueError as error:
            failure = MalformedResponse(f"{self.address}: its answer {error}")
        except (httpx.HTTPError, _Refused) as error:
            failure = failures.as_service_error(error, self.address, self._scrub, failures.BOX)
        waited = time.monotonic() - begun
        if self.service.unit == "second":
            took = waited if failure is not None else self._seconds(answer.headers, waited)
            self._bill.told = self._due(0, 0, took)
        if failure is not None:
            raise failure  # outside the handler: the cause holds the request with its key
        try:
            told = json.loads(content)
            found = read(told)
        except (ValueError, RecursionError, LookupError, TypeError, OverflowError) as error:
            raise MalformedResponse(
                f"{self.address}: its answer is not what was asked for ({type(error).__name__})",
                service=self.address,
            ) from None
        tokens = self.tokens(told)
        if tokens is not None and 0 < tokens <= _MOST_TOKENS:
            self._bill.told = self._due(*((tokens, 0) if kind == "text" else (0, tokens)), 0)
        return found

    def tokens(self, told: Any) -> int | None:
        """What an answer says of the tokens it took; None where it says nothing."""
        return None

    def seconds(self, told: Mapping[str, float]) -> float | None:
        """What an answer's headers say of the time that is charged; None where they say nothing.

        Args:
            told: those headers that are amounts of time, by their names in small letters.
        """
        return None

    @cached_property
    def _client(self) -> httpx.Client:
        name, prefix = self.service.header.split(": ")
        headers = {"Accept-Encoding": "identity"}
        if key := self._key:
            headers[name] = prefix + key
        client = httpx.Client(headers=headers, timeout=self.settings.timeout)
        weakref.finalize(self, client.close)  # a run opens it and just lets it go
        return client

    @cached_property
    def _key(self) -> str:
        """The key; a server of one's own gets none unless one is named for it."""
        names = (self.settings.key_env,) if self.settings.key_env else self.service.key
        if self.settings.base_url and not self.settings.key_env:
            return ""
        found = next((value for name in names if (value := os.environ.get(name))), "")
        if not found:
            said = f"{' or '.join(names)} is not set; --blackbox {self.kind}: needs it"
            raise ConfigError(said, docs="hosted-model")
        return found

    @cached_property
    def _scrub(self) -> Scrubber:
        return Scrubber({self._key} - {""})

    @cached_property
    def _rates(self) -> Rates | None:
        """As given, or known of its own address: for its time, or its own model; None if not."""
        known = self.service
        if self.settings.price != "":
            return parse_rates(str(self.settings.price), known.unit)
        if self.settings.base_url:
            return None
        if known.second_usd is not None:
            return Rates(second=known.second_usd)
        if known.text_usd is None or known.image_usd is None or self.model != known.model:
            return None
        return Rates(known.text_usd, known.image_usd)

    @property
    def _image_tokens(self) -> int:
        """Of a picture, at most."""
        if not self.service.pixels_per_token:
            return self.service.image_tokens
        return max(self.service.least, -(-(self.settings.side**2) // self.service.pixels_per_token))

    def _seconds(self, headers: httpx.Headers, waited: float) -> float:
        """That an answer took, as its headers say; no longer than it was waited for."""
        told = {}
        for name, value in headers.items():
            with contextlib.suppress(ValueError):
                if name.endswith("-time") and 0 <= float(value) <= waited:
                    told[name] = float(value)
        said, most = self.seconds(told), self.settings.billed_seconds
        took = waited if said is None else said
        if took > most and not self._late:
            self._late = True
            self.tell(
                f"{self.address} took {took:g} seconds for a call, where {most:g} were put aside; "
                "in a new run, --blackbox-set billed_seconds=N puts more aside"
            )
        return took

    def _due(self, texts: float, images: float, seconds: float) -> dict[str, float]:
        usd = self._rates.cost(texts, images, seconds) if self._rates else 0.0
        tokens = {"box_tokens_in": texts + images} if self.service.unit == "token" else {}
        return {**tokens, "box_usd": usd}


class _Refused(Exception):
    """An answer with another status than 200, for :mod:`llmopt.remote.failures`."""

    def __init__(self, answer: httpx.Response, content: bytes) -> None:
        self.response, self.status_code = answer, answer.status_code
        self.body: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            self.body = json.loads(content)
        told = self.body.get("error") if isinstance(self.body, Mapping) else None
        if isinstance(told, Mapping):
            self.body = told
        super().__init__(content[:2000].decode("utf-8", "replace"))
