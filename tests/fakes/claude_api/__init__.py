"""The Anthropic Messages and Message Batches API on loopback: real HTTP, answers by rule, faults by script.

    with ClaudeApi(mind=Mind(...), weather=Weather(...), limits=Limits(...)) as api:
        client = Anthropic(base_url=api.url, api_key=KEY, max_retries=0)

`mind.py` lists the words in a caption that change what happens to its clip, `weather.py` the faults, `account.py` the
states of `api.account`, `routes.py` the faults of `api.create_faults`, `batches.py` the fates of items. To serve a
benchmark from a process of its own: `python -m tests.fakes.claude_api --help`.
"""

from tests.fakes.claude_api.batches import Batch
from tests.fakes.claude_api.errors import ServerError
from tests.fakes.claude_api.limits import Limits
from tests.fakes.claude_api.mind import Answer, Mind
from tests.fakes.claude_api.question import Question, digest
from tests.fakes.claude_api.routes import KEY
from tests.fakes.claude_api.server import MODELS, ClaudeApi, Exchange
from tests.fakes.claude_api.weather import Weather

__all__ = [
    "KEY",
    "MODELS",
    "Answer",
    "Batch",
    "ClaudeApi",
    "Exchange",
    "Limits",
    "Mind",
    "Question",
    "ServerError",
    "Weather",
    "digest",
]
