"""The API as a program, which serves until stdin ends.

The first line of output is the URL; the last, after the end, says what was served. Stderr has the lines to paste into a
shell, so that its commands use this API.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.fakes.claude_api import AnswerRules, ClaudeApi, FaultSchedule, Limits


def main() -> None:
    asked = _parser().parse_args()
    rules = AnswerRules(
        seed=asked.seed, scene_words=asked.scene_words, pass_rate=asked.pass_rate, thinking_tokens=asked.thinking_tokens
    )
    limits = Limits(
        latency=asked.latency,
        concurrent=asked.concurrent,
        requests_per_minute=asked.requests_per_minute,
        input_tokens_per_minute=asked.input_tokens_per_minute,
        output_tokens_per_minute=asked.output_tokens_per_minute,
        burst=asked.burst,
    )
    faults = FaultSchedule(seed=asked.seed, rates=dict(asked.fault), retry_after=asked.retry_after)
    with ClaudeApi(
        rules=rules, faults=faults, limits=limits, batch_seconds=asked.batch_seconds, port=asked.port, remember=False
    ) as api:
        print(api.url, flush=True)
        for name, value in api.env.items():
            print(f"export {name}={value}", file=sys.stderr, flush=True)
        sys.stdin.read()
    print(json.dumps({"statuses": dict(sorted(api.tally.items())), "max_in_flight": api.max_in_flight}), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.claude_api", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds an answer takes")
    parser.add_argument("--concurrent", type=int)
    parser.add_argument("--requests-per-minute", type=int)
    parser.add_argument("--input-tokens-per-minute", type=int)
    parser.add_argument("--output-tokens-per-minute", type=int)
    parser.add_argument("--burst", type=float, help="requests; default: one second's worth")
    parser.add_argument("--scene-words", type=int, default=12)
    parser.add_argument("--pass-rate", type=float, default=1.0)
    parser.add_argument("--thinking-tokens", type=int, default=0)
    parser.add_argument("--batch-seconds", type=float, default=0.0)
    parser.add_argument("--retry-after", type=float, default=0.2)
    parser.add_argument("--fault", type=_rate, action="append", default=[], metavar="NAME=RATE", help="e.g. 529=0.05")
    return parser


def _rate(text: str) -> tuple[str, float]:
    name, _, rate = text.partition("=")
    return name, float(rate)


if __name__ == "__main__":
    main()
