"""The states of an account, and the response that every POST then gets.

In the states `page` and `redirect` the API is not reached: the response is a login page, or a redirect to one.
"""

from __future__ import annotations

from tests.fakes.claude_api.errors import ForeignResponse, Hangup, ServerError

GOOD = "good"
DEAF = "deaf"
PAGE = "page"
REDIRECT = "redirect"

LOGIN = "https://login.example/start?session=5ec2e7"

_TROUBLES: dict[str, tuple[int, str, str | None]] = {
    "spend_limit": (429, "You have crossed the monthly API usage threshold.", "enforced_spend_limit_reached"),
    "user_limit": (
        400,
        "You have reached your specified API usage limits. You will regain access on 2099-01-01 at 00:00 UTC.",
        None,
    ),
    "no_credit": (402, "Your credit balance is too low to access the API.", None),
    "forbidden": (403, "Your API key does not have permission to use the specified resource.", None),
    "disabled": (400, "This organization has been disabled.", None),
    "overloaded": (529, "Overloaded", None),
    "down": (503, "The service is unavailable.", None),
}
STATES = frozenset({GOOD, DEAF, PAGE, REDIRECT, *_TROUBLES})


def check_account(account: str) -> None:
    if account == GOOD:
        return
    if account == DEAF:
        raise Hangup(account)
    if account == PAGE:
        raise ForeignResponse(200, account)
    if account == REDIRECT:
        raise ForeignResponse(302, account, LOGIN)
    status, message, code = _TROUBLES[account]
    raise ServerError(status, message, code=code, cause=account)
