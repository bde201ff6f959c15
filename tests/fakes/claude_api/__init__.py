"""The Anthropic Messages and Message Batches API on loopback: real HTTP, answers by rule, faults by script.

    with ClaudeApi(rules=AnswerRules(...), faults=FaultSchedule(...), limits=Limits(...)) as api:
        client = Anthropic(base_url=api.url, api_key=KEY, max_retries=0)

`answer_rules.py` lists the words in a caption that change the answers about its clip, `fault_schedule.py` the faults,
`account.py` the states of `api.account`, `routes.py` the faults of `api.create_faults`, `batches.py` the outcomes of
batch items. To serve a benchmark from a separate process: `python -m tests.fakes.claude_api --help`.
"""

from tests.fakes.claude_api.answer_rules import Answer, AnswerRules
from tests.fakes.claude_api.batches import Batch
from tests.fakes.claude_api.errors import ServerError
from tests.fakes.claude_api.fault_schedule import FaultSchedule
from tests.fakes.claude_api.limits import Limits
from tests.fakes.claude_api.question import Question, digest
from tests.fakes.claude_api.routes import KEY
from tests.fakes.claude_api.server import MODELS, ClaudeApi, Exchange

__all__ = [
    "KEY",
    "MODELS",
    "Answer",
    "AnswerRules",
    "Batch",
    "ClaudeApi",
    "Exchange",
    "FaultSchedule",
    "Limits",
    "Question",
    "ServerError",
    "digest",
]
