"""What Ray raises, as Ray itself raises it where that can be had, is one line and a mistake or a stop."""

from __future__ import annotations

import pytest
from ray._private.utils import check_version_info

from nextscene.common.errors import RunStopped, UsageMistake
from nextscene.common.ray_cluster.start_errors import Fault, check_address, of_cluster, of_start

HERE = "head:6379"


def test_another_version_is_a_mistake_that_names_all_four() -> None:
    with pytest.raises(RuntimeError) as raised:
        check_version_info({"ray_version": "2.51.0", "python_version": "3.12.9"}, "node 10.0.0.7")
    ended = of_cluster(HERE, Fault("RuntimeError", str(raised.value)))
    assert isinstance(ended, UsageMistake)
    assert f"{HERE} has Ray 2.51.0 on Python 3.12.9, and this command Ray 2." in str(ended)
    assert "install the same versions" in str(ended)
    assert "\n" not in str(ended)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault("ConnectionRefusedError", "[Errno 111] Connection refused"), UsageMistake, "ray start --head"),
        (Fault("gaierror", "[Errno -2] Name or service not known"), UsageMistake, "Name or service not known"),
        (Fault("ConnectionError", "Could not find any running Ray instance."), UsageMistake, "ray start --head"),
        (Fault("TimeoutError", "nothing within 25 s"), RunStopped, "nothing within 25 s; check the address"),
        (Fault("OSError", "[Errno 113] No route to host"), RunStopped, "No route to host"),
        (Fault("RpcError", "Timed out while waiting for GCS"), RunStopped, "check the address"),
        (
            Fault("AuthenticationError", "WrongClusterToken: the token\nis invalid"),
            UsageMistake,
            "does not accept this command's token; set RAY_AUTH_MODE",
        ),
        (
            Fault("ConnectionError", "Failed to connect", "No node info found matching attributes: ''"),
            UsageMistake,
            "is not a node of the Ray cluster",
        ),
        (Fault("ChildProcessError", "its process ended with -6"), RunStopped, "ended with -6"),
        (Fault("SomethingNew", "of two\nlines"), RunStopped, "of two lines"),
        (Fault("KeyError", ""), RunStopped, "KeyError"),
    ],
)
def test_a_fault_is_one_line_that_names_the_address_and_a_remedy(
    fault: Fault, kind: type[Exception], words: str
) -> None:
    ended = of_cluster(HERE, fault)
    assert type(ended) is kind
    assert HERE in str(ended)
    assert words in str(ended)
    assert "\n" not in str(ended)


def test_a_start_that_fails_says_where_the_logs_are() -> None:
    assert "its logs are in /tmp/x" in str(of_start(Fault("Exception", "The current node\ntimed out"), "/tmp/x"))


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.7:6379", "[::1]:6379", "a-b.c_d:1"])
def test_an_address_of_a_cluster(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    "nonsense head: :6379 head:0 head:70000 head:port ray://head:10001 http://head:8265 head:6379:1 head:².".split(),
)
def test_what_is_no_address_is_a_mistake_before_ray_sees_it(address: str) -> None:
    with pytest.raises(UsageMistake) as raised:
        check_address(address)
    assert f"--ray-address {address}" in str(raised.value)
    assert "give HEAD:PORT" in str(raised.value)
