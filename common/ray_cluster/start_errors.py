"""Errors of a Ray that does not start or answer, classified: a user's mistake, or a stop to resume from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nextscene.common.errors import RunStopped, UsageError

_NO_CLUSTER = (
    "start one with `ray start --head`, or give no Ray address and unset RAY_ADDRESS, to have Ray started here"
)
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_VERSIONS = re.compile(r"Ray:\s*(\S+)\s+Python:\s*(\S+)")
_NOT_A_NODE = ("No node info found", "expects this IP address", "not found in the cluster")
_REFUSED = ("ConnectionRefusedError", "ConnectionError", "gaierror")
_UNREACHABLE = ("RpcError", "TimeoutError", "OSError", "ConnectionResetError")


@dataclass(frozen=True)
class StartFault:
    """The error that was raised when Ray started or was asked: the name of its class, its text, and its cause."""

    kind: str
    text: str
    cause: str = ""

    @property
    def line(self) -> str:
        """Return the text on one line, or the class if the text is empty."""
        return " ".join(self.text.split()) or self.kind

    @property
    def everything(self) -> str:
        return f"{self.kind}: {self.text}\n{self.cause}"


def check_address(address: str) -> None:
    """Raise UsageError for what cannot be the address of a cluster."""
    wanted = "give HEAD:PORT, as `ray start` prints it, or auto for the cluster of this machine"
    if address == "auto":
        return
    if "://" in address:
        raise UsageError(f"the Ray address {address}: ray:// and other schemes are not supported; {wanted}")
    host, _, port = address.rpartition(":")
    if not _HOST.fullmatch(host) or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"the Ray address {address} is not HEAD:PORT; {wanted}")


def cluster_error(address: str, fault: StartFault) -> UsageError | RunStopped:
    """Return the error for a cluster that cannot be used."""
    message = fault.everything
    if "Version mismatch" in message and len(versions := _VERSIONS.findall(message)) >= 2:
        (ray, python), (our_ray, our_python) = versions[:2]
        return UsageError(
            f"the Ray cluster at {address} has Ray {ray} on Python {python}, and this command Ray {our_ray} on Python"
            f" {our_python}; install the same versions in both places"
        )
    if fault.kind == "AuthenticationError" or all(word in message.lower() for word in ("token", "auth")):
        return UsageError(
            f"the Ray cluster at {address} does not accept this command's token; set RAY_AUTH_MODE and RAY_AUTH_TOKEN"
            " or RAY_AUTH_TOKEN_PATH as they were where it was started"
        )
    if any(words in message for words in _NOT_A_NODE):
        return UsageError(
            f"this machine is not a node of the Ray cluster at {address}; run the command on a node, or submit it with"
            " `ray job submit`"
        )
    if fault.kind in _REFUSED:
        return UsageError(f"no Ray cluster answers at {address} ({fault.line}); {_NO_CLUSTER}")
    if fault.kind in _UNREACHABLE:
        return no_answer(address, fault.line)
    return RunStopped(f"the Ray cluster at {address} cannot be used: {fault.line}; see `ray status` on its head node")


def no_answer(address: str, reason: str) -> RunStopped:
    """Return the error for an address that neither answers nor refuses."""
    return RunStopped(f"no Ray cluster answers at {address}: {reason}; check the address, its port and the network")


def start_error(fault: StartFault, folder: str, last_error_line: str = "") -> RunStopped:
    """Return the error for a Ray that does not start on this machine."""
    cause = f": {last_error_line}" if last_error_line else ""
    return RunStopped(
        f"Ray does not start here: {fault.line}; its logs are in {folder}{cause}. Free memory, processes or open"
        " files, or use fewer workers"
    )
