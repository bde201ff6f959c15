"""Prices of tokens: a dated table, with exact arithmetic."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from nextscene.judge.errors import JudgeUsageError

_MILLION = Decimal(1_000_000)
_MOST = Decimal(1_000_000)
_RELEASE = re.compile(r"-\d{8}$")
_CONTEXT = 1_000_000
"""The context of a model for which the table gives none: too large reserves too much, too small too little."""


@dataclass(frozen=True)
class Usage:
    """The tokens of one answer, as the API counts them: `input_tokens` excludes cache reads and writes."""

    input_tokens: int
    output_tokens: int
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    thinking_tokens: int = 0
    """Part of `output_tokens`."""

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_read + self.cache_write_5m + self.cache_write_1h


@dataclass(frozen=True)
class Price:
    """The prices of one model, in US dollars per token, and its limits in tokens: `context` bounds the prompt.

    `table` holds the prices of all models by name.
    """

    model: str
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    batch: Decimal
    takes_effort: bool
    long_prompt: int
    long_factor: Decimal
    context: int
    table: Mapping[str, Price] = field(default_factory=dict, repr=False, compare=False)

    def served_by(self, model: str) -> Price:
        """Return the price of the model that served an answer, this one if that is not in the table.

        A dated release, as in `claude-sonnet-5-5-20261001`, costs as much as its model.
        """
        return self.table.get(model) or self.table.get(_RELEASE.sub("", model)) or self

    def cost(self, usage: Usage, in_batch: bool) -> Decimal:
        """Return the cost of one answer in US dollars."""
        usd = (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write_5m * self.cache_write_5m
            + usage.cache_write_1h * self.cache_write_1h
        )
        if usage.prompt_tokens > self.long_prompt:
            usd *= self.long_factor
        return usd * self.batch if in_batch else usd


@dataclass(frozen=True)
class Prices:
    """The price table of the day `dated`. `text` is its source."""

    dated: date
    models: dict[str, Price]
    retired: dict[str, date]
    text: str = field(default="", repr=False, compare=False)

    @staticmethod
    def load(file: Path | None = None) -> Prices:
        """Return the table beside this module, or that of a file of the same form. Raise JudgeUsageError."""
        shown = str(file or "judge/spending/prices.toml")
        try:
            data = (file or resources.files(__package__).joinpath("prices.toml")).read_bytes()
        except OSError as error:
            raise JudgeUsageError(
                f"{shown} is not a table of prices: {error}; see judge/spending/prices.toml for the form"
            ) from error
        return Prices.parse(data, shown)

    @staticmethod
    def parse(data: bytes, shown: str) -> Prices:
        """Return the table in a TOML text. `shown` names it in errors. Raise JudgeUsageError."""
        try:
            text = data.decode()
            table = tomllib.loads(text, parse_float=Decimal)
            models: dict[str, Price] = {}
            models |= {name: _price(name, entry, table, models) for name, entry in table["model"].items()}
            retired = table.get("retired", {})
            if not (isinstance(table["date"], date) and all(isinstance(day, date) for day in retired.values())):
                raise ValueError("a date is not a date")
            return Prices(table["date"], models, retired, text)
        except KeyError as error:
            raise JudgeUsageError(
                f"{shown}: {error} is missing; see judge/spending/prices.toml for the form"
            ) from error
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            reason = "a value is of another type" if isinstance(error, (TypeError, AttributeError)) else error
            raise JudgeUsageError(
                f"{shown} is not a table of prices: {reason}; see judge/spending/prices.toml for the form"
            ) from error

    def for_model(self, model: str, setting: str = "model") -> Price:
        """Return a model's price. Raise JudgeUsageError if it is retired or not in the table.

        `setting` is the argument or setting that names the model, for the message.
        """
        if model in self.retired:
            raise JudgeUsageError(
                f"`{setting}` {model} was retired on {self.retired[model]}: requests for it fail;"
                f" there are {self._known()}"
            )
        if model not in self.models:
            near = difflib.get_close_matches(model, self.models, n=1)
            hint = f"is {near[0]} meant?" if near else f"there are {self._known()}"
            raise JudgeUsageError(
                f"`{setting}` {model}: no price known for it on {self.dated}; {hint} Or give its"
                " prices in a file of your own (`prices` FILE)"
            )
        return self.models[model]

    def _known(self) -> str:
        return ", ".join(self.models)


def _price(name: str, entry: dict[str, Any], table: dict[str, Any], models: Mapping[str, Price]) -> Price:
    into, out = (_price_of(kind, entry) / _MILLION for kind in ("input", "output"))
    long = entry.get("long", {"tokens": 2**63, "factor": 1})
    if not isinstance(entry["effort"], bool):
        raise ValueError(f"effort of {name} must be true or false")
    context = entry.get("context", _CONTEXT)
    if type(context) is not int or context < 1:
        raise ValueError(f"context of {name} must be a whole number of tokens")
    return Price(
        name,
        into,
        out,
        into * _above_0("cache_read", table),
        into * _above_0("cache_write_5m", table),
        into * _above_0("cache_write_1h", table),
        _above_0("batch", table),
        entry["effort"],
        int(long["tokens"]),
        _above_0("factor", long),
        context,
        models,
    )


def _price_of(kind: str, entry: dict[str, Any]) -> Decimal:
    """Return US dollars per million tokens; 0 for a model that costs nothing, such as one on a machine of one's own."""
    value = Decimal(entry[kind])
    if not 0 <= value <= _MOST:
        raise ValueError(f"{kind} = {value} must lie between 0 and {_MOST:,}")
    return value


def _above_0(name: str, entry: dict[str, Any]) -> Decimal:
    value = Decimal(entry[name])
    if not 0 < value <= _MOST:
        raise ValueError(f"{name} = {value} must lie above 0 and not above {_MOST:,}")
    return value
