"""What Ray raises, as Ray itself raises it where that can be had, is one line and a mistake or a stop."""

from __future__ import annotations

import pytest
from ray._private.utils import check_version_info

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.ray_cluster.start_errors import StartFault, check_address, cluster_error, start_error

HERE = "head:6379"


def test_another_version_is_a_mistake_that_names_all_four() -> None:
    with pytest.raises(RuntimeError) as raised:
        check_version_info({"ray_version": "2.51.0", "python_version": "3.12.9"}, "node 10.0.0.7")
    ended = cluster_error(HERE, StartFault("RuntimeError", str(raised.value)))
    assert isinstance(ended, UsageError)
    assert f"{HERE} has Ray 2.51.0 on Python 3.12.9, and this command Ray 2." in str(ended)
    assert "install the same versions" in str(ended)
    assert "\n" not in str(ended)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (StartFault("ConnectionRefusedError", "[Errno 111] Connection refused"), UsageError, "ray start --head"),
        (StartFault("gaierror", "[Errno -2] Name or service not known"), UsageError, "Name or service not known"),
        (StartFault("ConnectionError", "Could not find any running Ray instance."), UsageError, "ray start --head"),
        (StartFault("TimeoutError", "nothing within 25 s"), RunStopped, "nothing within 25 s; check the address"),
        (StartFault("OSError", "[Errno 113] No route to host"), RunStopped, "No route to host"),
        (StartFault("RpcError", "Timed out while waiting for GCS"), RunStopped, "check the address"),
        (
            StartFault("AuthenticationError", "WrongClusterToken: the token\nis invalid"),
            UsageError,
            "does not accept this command's token; set RAY_AUTH_MODE",
        ),
        (
            StartFault("ConnectionError", "Failed to connect", "No node info found matching attributes: ''"),
            UsageError,
            "is not a node of the Ray cluster",
        ),
        (StartFault("ChildProcessError", "its process ended with -6"), RunStopped, "ended with -6"),
        (StartFault("SomethingNew", "of two\nlines"), RunStopped, "of two lines"),
        (StartFault("KeyError", ""), RunStopped, "KeyError"),
    ],
)
def test_a_fault_is_one_line_that_names_the_address_and_a_remedy(
    fault: StartFault, kind: type[Exception], words: str
) -> None:
    ended = cluster_error(HERE, fault)
    assert type(ended) is kind
    assert HERE in str(ended)
    assert words in str(ended)
    assert "\n" not in str(ended)


def test_a_start_that_fails_says_where_the_logs_are() -> None:
    assert "its logs are in /tmp/x" in str(
        start_error(StartFault("Exception", "The current node\ntimed out"), "/tmp/x")
    )


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.7:6379", "[::1]:6379", "a-b.c_d:1"])
def test_an_address_of_a_cluster(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    "nonsense head: :6379 head:0 head:70000 head:port ray://head:10001 http://head:8265 head:6379:1 head:².".split(),
)
def test_what_is_no_address_is_a_mistake_before_ray_sees_it(address: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_address(address)
    assert f"the Ray address {address}" in str(raised.value)
    assert "give HEAD:PORT" in str(raised.value)
