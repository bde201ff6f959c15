"""Validation of request bodies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fakes.claude_api.errors import ServerError

_REMOVED = ("temperature", "top_p", "top_k")
_COUNTABLE = frozenset(
    "cache_control container diagnostics inference_geo messages metadata model output_config service_tier speed "
    "system thinking tool_choice tools".split()
)
_KNOWN = _COUNTABLE | {"max_tokens", "stop_sequences", "stream"}
_BLOCKS = frozenset({"text", "image", "thinking"})


def check_message(body: dict[str, Any], models: frozenset[str]) -> None:
    """Raise ServerError if the body of a POST /v1/messages, or the params of a batch item, are invalid."""
    _check(body, models, _KNOWN)
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or limit < 1:
        raise ServerError(400, "max_tokens: Field required, at least 1")
    if body.get("stream"):
        raise ServerError(400, "stream: not spoken here")
    if body["messages"][-1]["role"] != "user":
        raise ServerError(400, "This model does not support assistant message prefill.")


def check_countable(body: dict[str, Any], models: frozenset[str]) -> None:
    """Raise ServerError if the body of a POST /v1/messages/count_tokens is invalid."""
    _check(body, models, _COUNTABLE)


def _check(body: dict[str, Any], models: frozenset[str], known: frozenset[str]) -> None:
    for field in body:
        if field in _REMOVED:
            raise ServerError(400, f"{field}: sampling parameters are not supported by this model")
        if field not in known:
            raise ServerError(400, f"{field}: Extra inputs are not permitted")
    model = body.get("model")
    if not isinstance(model, str):
        raise ServerError(400, "model: Field required")
    if model not in models:
        raise ServerError(404, f"model: {model}")
    _check_turns(body.get("messages"))
    if body.get("system") is not None:
        _check_content(body["system"], "system", frozenset({"text"}))
    _check_format(body.get("output_config") or {})


def _check_turns(turns: Any) -> None:
    if not isinstance(turns, list) or not turns:
        raise ServerError(400, "messages: at least one message is required")
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant"):
            raise ServerError(400, "messages: Input should be a turn of 'user' or 'assistant'")
        if not turn.get("content"):
            raise ServerError(400, "messages: content must be non-empty")
        _check_content(turn["content"], "messages", _BLOCKS)


def _check_content(content: Any, where: str, kinds: frozenset[str]) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise ServerError(400, f"{where}: Input should be a text or a list of content blocks")
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in kinds:
            raise ServerError(400, f"{where}: Input should be a content block")
        if kind == "text" and not (isinstance(block.get("text"), str) and block["text"]):
            raise ServerError(400, f"{where}: text content blocks must be non-empty")
        if kind == "image" and not _is_base64(block.get("source")):
            raise ServerError(400, f"{where}: image.source: only base64 is spoken here")


def _is_base64(source: Any) -> bool:
    return isinstance(source, dict) and source.get("type") == "base64" and isinstance(source.get("data"), str)


def _check_format(output_config: Any) -> None:
    form = output_config.get("format") if isinstance(output_config, dict) else "none"
    if form is None:
        return
    schema = form.get("schema") if isinstance(form, dict) and form.get("type") == "json_schema" else None
    if not isinstance(schema, dict):
        raise ServerError(400, "output_config.format: Input should be a json_schema with a schema")
    for inner in (schema, *_objects(schema)):
        if inner.get("additionalProperties") is not False:
            raise ServerError(
                400, "output_config.format.schema: 'additionalProperties' must be explicitly set to false"
            )


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for inner in schema:
            yield from _objects(inner)
