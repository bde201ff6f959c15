"""Key and address of two processes are compared, and neither can be read from what is sent for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from nextscene.judge.api.api_identity import ApiIdentity

KEY, TOKEN, URL = "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"
SET = {KEY: "sk-one", TOKEN: "", URL: "https://api.example/v1"}


def identity(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> ApiIdentity:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return ApiIdentity.current()


@pytest.mark.parametrize(
    ("there", "different"),
    [
        ({}, []),
        ({URL: "https://api.example/v1/"}, []),
        ({KEY: " sk-one\n"}, []),
        ({TOKEN: "not used beside a key"}, []),
        ({KEY: "sk-two"}, [f"{KEY}/{TOKEN}"]),
        ({KEY: "", TOKEN: "sk-one"}, [f"{KEY}/{TOKEN}"]),  # it goes into another header
        ({URL: ""}, [URL]),
        ({KEY: "", URL: "http://proxy"}, [f"{KEY}/{TOKEN}", URL]),
    ],
)
def test_what_differs_is_named(monkeypatch: pytest.MonkeyPatch, there: Mapping[str, str], different: list[str]) -> None:
    mine = identity(monkeypatch, SET)
    identity(monkeypatch, SET | there)
    assert mine.differences() == different


def test_neither_key_nor_address_is_carried_and_each_time_the_hashes_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = identity(monkeypatch, SET), identity(monkeypatch, SET)
    assert not any(secret in repr(one) for secret in ("sk-one", "api.example"))
    assert all(
        one_value != other_value for one_value, other_value in zip(*map(dataclasses.astuple, (one, other)), strict=True)
    )
