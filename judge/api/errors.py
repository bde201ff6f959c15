"""Classification of API errors: what each means for its call, for the other calls, and for the account."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import anthropic
import httpx2

from nextscene.common.text import readable_text
from nextscene.judge.api.answer import InvalidResponse, NotFromModel
from nextscene.judge.api.rate_limiter import MAX_PAUSE_SECONDS
from nextscene.judge.errors import CAPTION_TOO_LONG, JUDGE_ERROR

Kind = Literal["mistake", "stop", "item", "denied", "pause", "busy", "server", "lost", "unreadable"]
"""`mistake` and `stop` end the run, `item` ends one question, `denied` does either (see `shared_errors.py`). The others
are retried: `pause` after the time that the server asks for, `busy` with fewer calls, `server` after a backoff, `lost`,
where an answer may have been made and charged for, and, a few times only, `unreadable`, where one was received."""

_SPEND_CODES = frozenset(
    [
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
    ]
)
_SPEND_WORDS = "specified API usage limits"
_CREDIT_WORDS = "credit balance is too low"
_TOO_LONG_WORDS = "prompt is too long"
_NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
_BROKEN_OFF = (json.JSONDecodeError, RecursionError, httpx2.TransportError, httpx2.DecodingError)
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@dataclass(frozen=True)
class ApiError:
    """An error of the API: `message` is one line without secrets, `retry_after` is 0 to 120 seconds, 0 if not given."""

    kind: Kind
    message: str
    retry_after: float = 0.0
    reached: bool = True
    """True if the server sent a response."""
    reason: str = JUDGE_ERROR
    """The reason that an `item` is counted under."""
    rejects_key: bool = False
    may_be_done: bool = False
    """True if the server may have done the operation in spite of the error. An answer with such a status is not charged
    for, but a batch may have been created."""


def classify_exception(error: Exception, redact: Callable[[str], str]) -> ApiError:
    """Return the meaning of an exception of the SDK or the network. Raise any other exception again."""
    if isinstance(error, anthropic.APIStatusError):
        return _classify_status_error(error, redact)
    if isinstance(error, anthropic.APIConnectionError):
        cause = error.__cause__
        message = readable_text(redact(f"{type(cause or error).__name__}: {cause or error}".strip(": ")))
        sent = not isinstance(cause, _NOT_SENT)
        return ApiError("lost" if sent else "server", message, reached=False, may_be_done=sent)
    if isinstance(error, TimeoutError):
        return ApiError("lost", "no whole answer within the time of one call", reached=False, may_be_done=True)
    if isinstance(error, NotFromModel):
        return ApiError("server", readable_text(redact(str(error))))
    if isinstance(error, InvalidResponse):
        return ApiError("unreadable", readable_text(redact(str(error))), may_be_done=True)
    if isinstance(error, _BROKEN_OFF):
        message = readable_text(redact(f"the answer broke off: {error or type(error).__name__}"))
        return ApiError("lost", message, may_be_done=True)
    raise error


def _classify_status_error(error: anthropic.APIStatusError, redact: Callable[[str], str]) -> ApiError:
    words = redact(" ".join(str(error.api_message or error.message).split()))  # the SDK checks no types
    headers = error.response.headers
    if 300 <= error.status_code < 400:
        words = f"to {_host(headers.get('location', ''))}"
    return classify_status(
        error.status_code, str(error.error_code or ""), words, _retry_after_seconds(headers.get("retry-after"))
    )


def classify_status(status: int, code: str, words: str, retry_after: float = 0.0) -> ApiError:
    """Return the meaning of an HTTP status with the error code and message of the API."""
    message = readable_text(f"HTTP {status}{f' {code}' if code else ''}: {words}")
    if _CREDIT_WORDS in words:
        status = 402
    if code in _SPEND_CODES or _SPEND_WORDS in words:
        return ApiError(
            "stop", f"a spend limit of the account is reached ({message}); raise it, or wait until it is renewed"
        )
    if 300 <= status < 400:
        remedy = "sign in where that is a login page, or set ANTHROPIC_BASE_URL to the address of the Claude API"
        return ApiError("stop", f"the address of the Claude API leads elsewhere ({message}); {remedy}")
    if status == 401:
        wrong = f"the API does not accept the key ({message}); set ANTHROPIC_API_KEY to a valid one"
        return ApiError("mistake", wrong, rejects_key=True)
    if status in (402, 403):
        return ApiError(
            "stop", f"the account may not ask this ({message}); see its billing and permissions in the console"
        )
    if status == 404 and "model" in words.lower():
        remedy = "choose another model, and another output folder where a dataset was begun with this one"
        return ApiError("mistake", f"the API does not know the model, or not any more ({message}); {remedy}")
    if status == 404:
        return ApiError("mistake", f"there is no Claude API at this address ({message}); see ANTHROPIC_BASE_URL")
    if status == 429:
        return ApiError("pause", message, retry_after) if retry_after else ApiError("busy", message)
    if status == 529:
        return ApiError("busy", message, retry_after)
    if status in (408, 409) or status >= 500:
        return ApiError("server", message, retry_after, may_be_done=status != 503)
    if status == 413 or (status == 400 and _TOO_LONG_WORDS in words):
        return ApiError("item", message, reason=CAPTION_TOO_LONG)
    return ApiError("denied", message)


def status_of_type(error_type: str) -> int:
    """Return the HTTP status of an error type of the API, since batch items have no status."""
    return _STATUS.get(error_type, 500)


def _retry_after_seconds(header: str | None) -> float:
    """Return the seconds in a `retry-after` header, which has seconds or a date."""
    with suppress(ValueError, TypeError, OverflowError):
        return min(MAX_PAUSE_SECONDS, max(0.0, float(header or 0)))
    with suppress(ValueError, TypeError, OverflowError):
        then = parsedate_to_datetime(header or "")
        left = then.replace(tzinfo=then.tzinfo or UTC).timestamp() - time.time()
        return min(MAX_PAUSE_SECONDS, max(0.0, left))
    return 0.0


def _host(location: str) -> str:
    """Return scheme and host of a redirect, without parts that may be secret."""
    with suppress(ValueError):
        parts = urlsplit(location)
        if parts.hostname:
            return f"{parts.scheme}://{parts.hostname}"
    return "another place"
