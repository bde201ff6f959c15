"""Error responses of the API."""

from __future__ import annotations

import json
from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class ServerError(Exception):
    """A response other than 200. `cause` is a fault, a limit or the account's state; "" if the request is invalid."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, retry_after: float | None = None, cause: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after = retry_after
        self.cause = cause

    def body(self, request_id: str | None) -> dict[str, Any]:
        error: dict[str, Any] = {"type": _TYPES[self.status], "message": self.message}
        if self.code is not None:
            error["details"] = {"error_code": self.code}
        return {"type": "error", "error": error, "request_id": request_id}

    def payload(self, request_id: str) -> bytes:
        return json.dumps(self.body(request_id)).encode()

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}


class ForeignResponse(Exception):
    """A response from something between the API and the client. `cause` as in ServerError."""

    def __init__(self, status: int, cause: str, location: str = "") -> None:
        super().__init__(cause)
        self.status = status
        self.cause = cause
        self.location = location


class Hangup(Exception):
    """The end of a connection that is closed without a response."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause
