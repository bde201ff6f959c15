"""Prices: figures worked out by hand, and a table that is right or refused in one line."""

from __future__ import annotations

import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.judge.errors import JudgeUsageError
from nextscene.judge.spending.prices import Price, Prices, Usage

TABLE = Prices.load()
CUSTOM = """
date = 2027-01-02
batch = 0.25
cache_write_5m = 1.5
cache_write_1h = 3
cache_read = 0.2
[model.ours]
input = 0.3
output = 1.7
effort = false
[retired]
theirs = 2026-12-31
"""

counts = st.integers(0, 10**9)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
models = st.sampled_from(sorted(TABLE.models))

# Of each model: $ for 1,000,000 tokens of input, output, cache read, 5-minute write, 1-hour write. Below the long tier
# of Haiku, 80,000 tokens at a time.
BY_HAND = {
    "claude-haiku-5-5": ("0.10", "0.50", "0.01", "0.125", "0.20"),
    "claude-sonnet-5-5": ("2", "10", "0.20", "2.50", "4"),
    "claude-opus-5-5": ("4", "20", "0.40", "5", "8"),
    "claude-fable-5-1": ("10", "50", "1", "12.50", "20"),
    "claude-sonnet-5": ("2", "10", "0.20", "2.50", "4"),
    "claude-opus-5": ("5", "25", "0.50", "6.25", "10"),
    "claude-haiku-4-5": ("1", "5", "0.10", "1.25", "2"),
}


def test_every_model_of_the_table_is_checked_by_hand() -> None:
    assert set(BY_HAND) == set(TABLE.models)
    assert TABLE.dated == date(2026, 11, 22)


@pytest.mark.parametrize("model", BY_HAND)
def test_80_000_tokens_of_each_kind_cost_what_the_price_list_says(model: str) -> None:
    price, share = TABLE.for_model(model), Decimal("0.08")
    into, out, read, five, hour = (Decimal(usd) * share for usd in BY_HAND[model])
    assert price.cost(Usage(80_000, 0), False) == into
    assert price.cost(Usage(0, 80_000), False) == out
    assert price.cost(Usage(0, 0, cache_read=80_000), False) == read
    assert price.cost(Usage(0, 0, cache_write_5m=80_000), False) == five
    assert price.cost(Usage(0, 0, cache_write_1h=80_000), False) == hour
    assert price.cost(Usage(80_000, 80_000), True) == (into + out) / 2


def test_a_prompt_has_a_million_tokens_at_most_and_of_the_oldest_model_200_000() -> None:
    contexts = {name: TABLE.for_model(name).context for name in BY_HAND}
    assert contexts == dict.fromkeys(BY_HAND, 1_000_000) | {"claude-haiku-4-5": 200_000}


@pytest.mark.parametrize(("line", "context"), [("", 1_000_000), ("context = 8000", 8000)])
def test_a_table_may_tell_the_context(line: str, context: int, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(CUSTOM.replace("effort = false", f"effort = false\n{line}"))
    assert Prices.load(file).for_model("ours").context == context


@pytest.mark.parametrize("context", ["0", "-1", "1.5", "true", "'many'"])
def test_a_context_that_is_no_number_of_tokens_is_refused(context: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(CUSTOM.replace("effort = false", f"effort = false\ncontext = {context}"))
    with pytest.raises(JudgeUsageError, match="context of ours must be a whole number of tokens"):
        Prices.load(file)


def test_one_answer_worked_out_by_hand() -> None:
    # 321 × $2 + 45 × $10 + 1,000 × $0.20 + 200 × $2.50 + 30 × $4, a million tokens each
    usage = Usage(321, 45, cache_read=1000, cache_write_5m=200, cache_write_1h=30, thinking_tokens=20)
    assert TABLE.for_model("claude-sonnet-5-5").cost(usage, False) == Decimal("0.001912")
    assert TABLE.for_model("claude-sonnet-5-5").cost(usage, True) == Decimal("0.000956")


@pytest.mark.parametrize("parts", [(100_001, 0, 0, 0), (1, 50_000, 50_000, 0), (0, 0, 0, 100_001), (1, 0, 1, 99_999)])
def test_a_haiku_prompt_above_100_000_tokens_costs_five_times_cached_or_not(parts: tuple[int, ...]) -> None:
    into, read, five, hour = parts
    haiku = TABLE.for_model("claude-haiku-5-5")
    short = Decimal("0.0000001") * (into + read * Decimal("0.1") + five * Decimal("1.25") + hour * 2)
    assert haiku.cost(Usage(into, 1000, read, five, hour), False) == 5 * (short + Decimal("0.0005"))
    assert haiku.cost(Usage(100_000, 1000), False) == Decimal("0.0105")
    assert haiku.cost(Usage(1, 10**9), False) == Decimal("500.0000001"), "a long answer is no long prompt"


def test_no_other_model_of_the_table_has_a_long_tier() -> None:
    for name in set(BY_HAND) - {"claude-haiku-5-5"}:
        price = TABLE.for_model(name)
        assert price.cost(Usage(900_000, 0), False) == 9 * price.cost(Usage(100_000, 0), False)


@given(models, usages, usages, st.booleans())
def test_more_tokens_never_cost_less(model: str, one: Usage, other: Usage, in_batch: bool) -> None:
    both = added(one, other)
    price = TABLE.for_model(model)
    assert 0 <= price.cost(one, in_batch) <= price.cost(both, in_batch)


@given(models.filter(lambda name: name != "claude-haiku-5-5"), usages, usages, st.booleans())
def test_two_answers_cost_exactly_their_sum(model: str, one: Usage, other: Usage, in_batch: bool) -> None:
    price = TABLE.for_model(model)
    assert price.cost(added(one, other), in_batch) == price.cost(one, in_batch) + price.cost(other, in_batch)


@given(models, usages, st.integers(0, 10**6))
def test_thinking_is_part_of_the_output_and_a_batch_costs_half(model: str, usage: Usage, thinking: int) -> None:
    price = TABLE.for_model(model)
    thoughtful = Usage(
        usage.input_tokens, usage.output_tokens, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, thinking
    )
    assert price.cost(thoughtful, False) == price.cost(usage, False) == 2 * price.cost(usage, True)


def added(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cache_read + other.cache_read,
        one.cache_write_5m + other.cache_write_5m,
        one.cache_write_1h + other.cache_write_1h,
    )


# ---- names -----------------------------------------------------------------------------------------------------


def test_a_retired_model_is_refused_with_its_date_and_what_there_is() -> None:
    with pytest.raises(JudgeUsageError, match="claude-3-7-sonnet-20250219 was retired on 2026-02-19") as raised:
        TABLE.for_model("claude-3-7-sonnet-20250219")
    assert all(model in str(raised.value) for model in BY_HAND)


@pytest.mark.parametrize(
    ("asked", "remedy"), [("claude-sonet-5-5", "is claude-sonnet-5-5 meant?"), ("gpt", "there are claude-haiku-5-5, ")]
)
def test_an_unknown_model_is_refused_with_the_nearest_one_and_the_remedy(asked: str, remedy: str) -> None:
    with pytest.raises(JudgeUsageError, match=f"`model` {asked}: no price known for it on 2026-11-22") as raised:
        TABLE.for_model(asked)
    assert remedy in str(raised.value) and "a file of your own" in str(raised.value)


# ---- files -----------------------------------------------------------------------------------------------------


def load(text: str | bytes) -> Prices:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prices.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Prices.load(file)


def test_another_table_takes_the_place_of_ours() -> None:
    prices = load(CUSTOM)
    ours = prices.for_model("ours")
    assert prices.dated == date(2027, 1, 2) and not ours.takes_effort
    assert ours.cost(Usage(1_000_000, 1_000_000), False) == Decimal("2.0")
    assert ours.cost(Usage(0, 0, 10**6, 10**6, 10**6), True) == Decimal("0.3") * Decimal("4.7") / 4
    with pytest.raises(JudgeUsageError, match="theirs was retired on 2026-12-31"):
        prices.for_model("theirs")
    with pytest.raises(JudgeUsageError, match="no price known for it on 2027-01-02"):
        prices.for_model("claude-sonnet-5-5")


def test_a_model_may_cost_nothing() -> None:
    free = load(CUSTOM.replace("0.3", "0").replace("1.7", "0")).for_model("ours")
    assert free.cost(Usage(10**9, 10**9, 10**9, 10**9, 10**9), False) == 0
    half = load(CUSTOM.replace("0.3", "0")).for_model("ours")
    assert half.cost(Usage(1_000_000, 1_000_000), False) == Decimal("1.7")


def test_a_table_without_retired_models_is_one() -> None:
    assert load(CUSTOM.partition("[retired]")[0]).retired == {}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "date = ",
        "\ufeff",
        "[model]\n",
        "model = 5\n",
        CUSTOM.replace("date =", "dated ="),
        CUSTOM.replace("2027-01-02", '"soon"'),
        CUSTOM.replace("2026-12-31", "true"),
        CUSTOM.replace("[retired]\ntheirs = 2026-12-31", "").replace("batch", "retired = 3\nbatch"),
        CUSTOM.replace("batch = 0.25", ""),
        CUSTOM.replace("batch = 0.25", "batch = -1"),
        CUSTOM.replace("batch = 0.25", "batch = nan"),
        CUSTOM.replace("0.2\n", "-0.2\n"),
        CUSTOM.replace("cache_write_1h = 3", "cache_write_1h = inf"),
        CUSTOM.replace("input = 0.3", ""),
        CUSTOM.replace("0.2\n", "0\n"),
        CUSTOM.replace("input = 0.3", "input = nan"),
        CUSTOM.replace("input = 0.3", "input = -1"),
        CUSTOM.replace("input = 0.3", "input = inf"),
        CUSTOM.replace("output = 1.7", "output = nan"),
        CUSTOM.replace("output = 1.7", 'output = "much"'),
        CUSTOM.replace("output = 1.7", "output = [1]"),
        CUSTOM.replace("effort = false", ""),
        CUSTOM.replace("[model.ours]", "[[model.ours]]"),
        CUSTOM.replace("effort = false", 'effort = "no"'),
        CUSTOM.replace("effort = false", "effort = false\nlong = 5"),
        CUSTOM.replace("effort = false", "effort = false\nlong = { tokens = 5 }"),
        CUSTOM.replace("effort = false", "effort = false\nlong = { tokens = 5, factor = -2 }"),
        "x = " + "[" * 5000,
        b"\xff\xfe",
    ],
)
def test_a_damaged_table_is_refused_in_one_line_that_names_it(damage: str | bytes) -> None:
    with pytest.raises(JudgeUsageError, match=r"prices\.toml") as raised:
        load(damage)
    assert "\n" not in str(raised.value)


values = st.recursive(
    st.one_of(
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["true", "2026-01-01", "12:00:00", '"text"', "'0.5'", "inf", "-nan", "1e999999999", "1e-99"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.dictionaries(st.sampled_from(["input", "output", "effort", "long", "tokens", "factor", "x"]), inner).map(
            lambda parts: "{" + ", ".join(f"{name} = {value}" for name, value in parts.items()) + "}"
        ),
    ),
    max_leaves=6,
)
LINES = [line for line in CUSTOM.splitlines() if line]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.integers(0, len(LINES) - 1), st.one_of(values, st.none()), max_size=3), st.binary(max_size=8))
def test_whatever_a_table_holds_it_is_refused_or_gives_sound_prices(
    changes: dict[int, str | None], tail: bytes
) -> None:
    lines = list(LINES)
    for at, value in changes.items():
        lines[at] = "" if value is None else f"{lines[at].partition('=')[0]}= {value}"
    try:
        prices = load("\n".join(lines).encode() + b"\n#" + tail)
    except JudgeUsageError as mistake:
        assert "\n" not in str(mistake)
        return
    for price in prices.models.values():
        assert sound(price)


def sound(price: Price) -> bool:
    usage = Usage(1000, 1000, 1000, 1000, 1000)
    cost = price.cost(usage, False)
    return cost.is_finite() and cost > 0 and 0 <= price.cost(usage, True) < Decimal("Infinity")


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(JudgeUsageError, match=str(path)):
            Prices.load(path)
