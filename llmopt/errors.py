"""Everything that can go wrong, in one tree.

    LlmoptError
    ├── UserError                 the caller's mistake                                  exit code 2
    │   ├── ConfigError           an option, setting or config file
    │   ├── DatasetError          a dataset, split, image or class-name list
    │   ├── TemplateError         a template that cannot be used
    │   ├── ModelError            a model or its weights cannot be had
    │   ├── AccessError           the black box does not offer what the optimizer needs
    │   └── RunFolderError        a run folder is missing, unwritable or damaged
    │       └── RunFolderInUse    another process lives in it
    ├── BudgetExhausted           a cap would be passed; ends a search normally
    │   └── CapBroken             a service took more than was reserved; so does that
    ├── BudgetTooSmall            the caps do not pay for any result                    exit code 3
    └── ServiceError              a service failed; the run can be resumed              exit code 4
        ├── RetryableError        worth another try after a pause
        │   ├── RateLimited       429 (``retry_after`` seconds when the service says)
        │   ├── ServiceUnavailable  408, 409, 425, 5xx
        │   ├── ServiceTimeout    no answer in time
        │   ├── ConnectionLost    reset or half-closed
    │   │   └── NotConnected  no connection was made, so nothing was sent
        │   └── MalformedResponse  HTML with status 200, no choices, wrong JSON types
        ├── AuthenticationFailed  bad or missing key, no permission
        ├── QuotaExhausted        out of credit (also when it comes as a 429)
        ├── ServiceModelNotFound  the service does not know the model
        ├── Redirected        the service sends to another address, which is not followed
        ├── ContextOverflow       the conversation is too long for the model
        ├── ContentRefused        the service refuses the content
        ├── FormRefused           the form of a request, which is another by now: ask again
        ├── BadRequest            any other request the service rejects
        └── CircuitOpen           too many failures in a row; nothing more was sent

Messages name the thing, the value and the way out. Nothing here ever holds a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

INTERRUPTED = 130
"""Exit code of a run stopped by Ctrl-C or SIGTERM; it can be resumed."""
UNFINISHED = 5
"""Exit code of a look at a grid that is not whole yet."""
CAP_BROKEN = "cap broken by the service"
"""Why a search ended whose service took more than was reserved for a call."""
UNHEARD = 1
"""Exit code where the output cannot be written: its reader left, or the disk is full."""
FAULT = 70
"""Exit code of a fault of llmopt itself; a file holds its trace."""


class LlmoptError(Exception):
    """Base of every error llmopt raises on purpose.

    Attributes:
        exit_code: of the command that it ends.
        docs: the page of ``llmopt docs`` that says more, where one does.
    """

    exit_code = 1
    docs = ""

    def __init__(self, *args: object, docs: str = "") -> None:
        super().__init__(*args)
        if docs:
            self.docs = docs


class UserError(LlmoptError):
    """A mistake the caller can correct."""

    exit_code = 2


class ConfigError(UserError):
    """An option, a setting or a config file is wrong."""


class DatasetError(UserError):
    """A dataset, split, image or class-name list is missing or wrong."""


class TemplateError(UserError):
    """A text is not a usable template (see :class:`llmopt.template.Template`)."""


class ModelError(UserError):
    """A model is unknown, or its weights are missing, unreadable or truncated."""


class AccessError(UserError):
    """The black box offers less than is asked of it."""

    docs = "the-wall"


class RunFolderError(UserError):
    """A run folder is missing, in use, not writable or damaged."""


class RunFolderInUse(RunFolderError):
    """Another process lives in the run folder."""


class BudgetExhausted(LlmoptError):
    """The next spend would pass a cap. Optimizers catch it and return their best so far.

    Attributes:
        currency: the cap that was reached (``llm_calls``, ``queries``, ``seconds`` …), or
            ``interrupted``.
        cap: its value.
    """

    def __init__(self, currency: str, cap: float) -> None:
        what = f"the cap of {cap:g} {currency.replace('_', ' ')} is reached"
        super().__init__("interrupted" if currency == "interrupted" else what)
        self.currency = currency
        self.cap = cap

    @property
    def stop_reason(self) -> str:
        """Why the search ended, as results say it: ``budget: llm_calls``, ``interrupted`` …"""
        return "interrupted" if self.currency == "interrupted" else f"budget: {self.currency}"


class CapBroken(BudgetExhausted):
    """A service reported more than a call may take, so no cap on it can be kept any longer."""

    def __init__(self, message: str) -> None:
        super().__init__("llm_tokens", 0)
        self.args = (message,)

    @property
    def stop_reason(self) -> str:
        """As results say it."""
        return CAP_BROKEN


class BudgetTooSmall(LlmoptError):
    """The caps do not pay for a single result."""

    exit_code = 3
    docs = "budget"


class ServiceError(LlmoptError):
    """A remote service failed. The run folder can be resumed.

    Attributes:
        status: HTTP status where there was one.
        service: what was asked, for people (never with credentials).
        unpaid: the service called its own answer an error, so that no work was done for it.
    """

    exit_code = 4
    unpaid = False

    def __init__(self, message: str, *, service: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.service = service
        self.status = status


class RetryableError(ServiceError):
    """A fault that may pass.

    Attributes:
        retry_after: seconds the service asks to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        service: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, service=service, status=status)
        self.retry_after = retry_after


class RateLimited(RetryableError):
    """The service asks for fewer requests."""


class ServiceUnavailable(RetryableError):
    """The service could not answer now."""


class ServiceTimeout(RetryableError):
    """The service did not answer in time."""


class ConnectionLost(RetryableError):
    """No connection, or it broke."""


class NotConnected(ConnectionLost):
    """No connection was made: nothing left this machine."""


class MalformedResponse(RetryableError):
    """The service answered with something that is not an answer."""


class AuthenticationFailed(ServiceError):
    """The key is missing, wrong or lacks permission."""


class QuotaExhausted(ServiceError):
    """The account is out of credit; waiting does not help."""


class ServiceModelNotFound(ServiceError):
    """The service does not know the model asked for."""


class Redirected(ServiceError):
    """The service sends requests on to another address, and nobody here has named that."""


class ContextOverflow(ServiceError):
    """The conversation is longer than the model accepts."""


class ContentRefused(ServiceError):
    """The service declined to answer this content."""


class FormRefused(ServiceError):
    """The service refuses the form of a request, and what it refuses is changed by now.

    Attributes:
        dropped: what is left out from now on, as journals name it.
    """

    dropped = ""


class BadRequest(ServiceError):
    """The service rejects the request for another reason."""


class CircuitOpen(ServiceError):
    """Too many failures in a row: the run stopped asking."""


def nearest(value: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known word nearest to ``value``, else ``""``."""
    match = difflib.get_close_matches(value, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def seen_from(path: Path) -> str:
    """``", looked for in /the/current/folder"`` for a relative path, else ``""``."""
    return "" if path.is_absolute() else f", looked for in {Path.cwd()}"
