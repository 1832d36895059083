"""Who may use a server, how much and how fast.

A file holds names and SHA-256 hashes of keys, never a key: keys are random and long, so that a
plain hash is enough. Beside it lies what each has spent, in the currencies of the ledger.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)

from llmopt.errors import ConfigError
from llmopt.spend.files import replace_atomically
from llmopt.spend.ledger import Caps, Ledger
from llmopt.vision.base import Access

QUOTAS: Final = ("queries", "image_encodings", "pairs_scored", "black_box_calls")
"""Caps that a key can have."""

CALLER: Final = "llmopt.caller"
"""Where the scope of a request names who asks."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Level = Annotated[Access, BeforeValidator(lambda said: level(said)), PlainSerializer(str)]


class Key(BaseModel):
    """An entry of the file.

    Attributes:
        name: in logs and metrics.
        sha256: of the key.
        access: the most it is given.
        per_minute: requests; None is no limit.
        quotas: by cap (see :data:`QUOTAS`), over the key's whole life.
        metrics: it may read what all keys have spent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    access: Level = Access.SOFT
    per_minute: Annotated[int, Field(ge=1, le=10**6)] | None = None
    quotas: dict[str, Count] = Field(default_factory=dict)
    metrics: bool = False

    def caps(self) -> Caps:
        """Its quotas as the caps of a ledger."""
        return Caps(**self.quotas)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[Key]


class _Usage(BaseModel):
    spent: dict[str, dict[str, Annotated[float, Field(ge=0, le=2**53)]]]


class Caller:
    """Somebody who was let in.

    Attributes:
        name: of the key, or of the client where none is asked for.
        access: the most this caller is given.
        ledger: what was spent, held by the quotas.
        metrics: may read what all have spent.
    """

    def __init__(
        self,
        name: str,
        access: Access = Access.SOFT,
        caps: Caps | None = None,
        per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        metrics: bool = False,
    ) -> None:
        self.name, self.access, self.metrics = name, access, metrics
        self.ledger = Ledger(caps)
        self._per_minute, self._clock = per_minute, clock
        self._tokens, self._since = float(per_minute or 0), clock()

    def wait(self) -> float:
        """Seconds until the next request may come; 0 lets this one pass (a token bucket)."""
        if self._per_minute is None:
            return 0.0
        now, rate = self._clock(), self._per_minute / 60
        self._tokens = min(self._per_minute, self._tokens + (now - self._since) * rate)
        self._since = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / rate


class Keys:
    """Those who may come in.

    Args:
        file: of the keys; None where there is none.
        token: one more key, without quotas, called ``token``.

    Attributes:
        entries: their keys.
        asked_for: whether a key is needed; also where a file holds none, and nobody is let in.

    Raises:
        ConfigError: the file or what was spent cannot be read.
    """

    def __init__(self, file: Path | None = None, token: str | None = None) -> None:
        self.entries = read(file) if file else []
        self._usage = usage_file(file) if file else None
        if token:
            self.entries.append(Key(name="token", sha256=digest(token)))
        self.asked_for = file is not None or token is not None
        alone = len(self.entries) == 1
        self._callers = [
            (
                key.sha256,
                Caller(
                    key.name, key.access, key.caps(), key.per_minute, metrics=key.metrics or alone
                ),
            )
            for key in self.entries
        ]
        self._guests: dict[str, Caller] = {}
        if self._usage and self._usage.is_file():
            spent = _parse(self._usage, _Usage).spent
            for _, caller in self._callers:
                caller.ledger.set_state(_known(self._usage, spent.get(caller.name, {})))
        self._saved = self._state()

    def caller(self, key: str | None, client: str) -> Caller | None:
        """Who presents a key, or comes from ``client`` where none is asked for; None: nobody."""
        if not self.asked_for:
            if len(self._guests) > 10_000:
                self._guests.clear()
            return self._guests.setdefault(client, Caller(client, metrics=True))
        given, found = digest(key or ""), None
        for sha256, caller in self._callers:  # all of them, so that time tells nothing
            if hmac.compare_digest(sha256, given):
                found = caller
        return found

    def spent(self, key: Key) -> dict[str, dict[str, int]]:
        """What was spent against each quota of a key."""
        (ledger,) = [caller.ledger for caller in self.callers() if caller.name == key.name]
        return {"spent": {cap: int(ledger.spent(cap)) for cap in key.quotas}}

    def callers(self) -> list[Caller]:
        """All who have a key."""
        return [caller for _, caller in self._callers]

    def save(self) -> None:
        """Keep what was spent, if anything was."""
        if self._usage and (state := self._state()) != self._saved:
            with replace_atomically(self._usage) as path:
                path.write_text(json.dumps({"spent": state}, indent=1))
            self._saved = state

    def _state(self) -> dict[str, dict[str, float]]:
        return {
            caller.name: {name: count for name, count in caller.ledger.state().items() if count}
            for _, caller in self._callers
        }


def digest(key: str) -> str:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def usage_file(file: Path) -> Path:
    """Where what was spent is kept."""
    return file.with_name(f"{file.stem}.usage.json")


def read(file: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        ConfigError: it cannot be read, or two of them are called the same.
    """
    found: list[Key] = _parse(file, _File).keys
    if len({key.name for key in found}) < len(found):
        raise ConfigError(f"two keys of {file} have the same name; remove one")
    for key in found:
        if wrong := set(key.quotas) - set(QUOTAS):
            raise ConfigError(
                f"{file}: '{min(wrong)}' of key '{key.name}' is no quota "
                f"(there are: {', '.join(QUOTAS)})"
            )
    return found


def add(
    file: Path,
    name: str,
    access: Access,
    per_minute: int | None,
    quotas: dict[str, int],
    metrics: bool = False,
) -> str:
    """Add a key to a file, which is made if need be; gives the key, which is kept nowhere.

    Raises:
        ConfigError: the name is taken or no name, or the file cannot be read.
    """
    known = read(file) if file.is_file() else []
    if name in {key.name for key in known}:
        raise ConfigError(f"{file} has a key '{name}' already; remove it or choose another name")
    key = f"llmopt-{secrets.token_urlsafe(32)}"
    try:
        entry = Key(
            name=name,
            sha256=digest(key),
            access=access,
            per_minute=per_minute,
            quotas=quotas,
            metrics=metrics,
        )
    except ValidationError as error:
        raise ConfigError(f"the key cannot be called '{name}': {_first(error)}") from error
    write(file, [*known, entry])
    return key


def write(file: Path, keys: list[Key]) -> None:
    """Write a file of keys, for its owner's eyes only."""
    said = _File(keys=keys).model_dump_json(indent=1, exclude_none=True)
    with replace_atomically(file) as path:
        path.touch(mode=0o600)
        path.write_text(said)


def level(said: str | Access) -> Access:
    """An access level by its name.

    Raises:
        ValueError: there is none.
    """
    levels = {str(one): one for one in Access}
    if str(said) not in levels:
        raise ValueError(f"'{said}' is no access level (there are: {', '.join(levels)})")
    return levels[str(said)]


def _parse(file: Path, model: type[Any]) -> Any:
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(f"{file} is not a file of keys: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def _known(file: Path, spent: dict[str, float]) -> dict[str, float]:
    try:
        Ledger().set_state(spent)
    except ValueError as error:
        raise ConfigError(f"{file} is damaged ({error}); delete it to begin at 0") from error
    return spent
