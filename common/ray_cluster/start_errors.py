"""What Ray says when it does not start or no cluster answers, sorted: the user's mistake, or a stop to go on from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nextscene.common.errors import RunStopped, UsageError

_NOBODY = "start one with `ray start --head`, or leave --ray-address and RAY_ADDRESS out to have Ray started here"
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_VERSIONS = re.compile(r"Ray:\s*(\S+)\s+Python:\s*(\S+)")
_FROM_ELSEWHERE = ("No node info found", "expects this IP address", "not found in the cluster")
_REFUSED = ("ConnectionRefusedError", "ConnectionError", "gaierror")
_UNREACHED = ("RpcError", "TimeoutError", "OSError", "ConnectionResetError")


@dataclass(frozen=True)
class StartFault:
    """What was raised where Ray was to start or to answer: the class by its name, its text, and what caused it."""

    kind: str
    text: str
    cause: str = ""

    @property
    def line(self) -> str:
        """The text on one line, or the kind where there is none."""
        return " ".join(self.text.split()) or self.kind

    @property
    def everything(self) -> str:
        return f"{self.kind}: {self.text}\n{self.cause}"


def check_address(address: str) -> None:
    """Raise UsageError for what cannot be the address of a cluster."""
    wanted = "give HEAD:PORT, as `ray start` tells it, or auto for the cluster of this machine"
    if address == "auto":
        return
    if "://" in address:
        raise UsageError(f"--ray-address {address}: ray:// and other schemes are not supported; {wanted}")
    host, _, port = address.rpartition(":")
    if not _HOST.fullmatch(host) or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--ray-address {address} is no address; {wanted}")


def of_cluster(address: str, fault: StartFault) -> UsageError | RunStopped:
    """Why the cluster at an address cannot be used."""
    said = fault.everything
    if "Version mismatch" in said and len(versions := _VERSIONS.findall(said)) >= 2:
        (ray, python), (our_ray, our_python) = versions[:2]
        return UsageError(
            f"the Ray cluster at {address} has Ray {ray} on Python {python}, and this command Ray {our_ray} on Python"
            f" {our_python}; install the same versions in both places"
        )
    if fault.kind == "AuthenticationError" or all(word in said.lower() for word in ("token", "auth")):
        return UsageError(
            f"the Ray cluster at {address} does not accept this command's token; set RAY_AUTH_MODE and RAY_AUTH_TOKEN"
            " or RAY_AUTH_TOKEN_PATH as they were where it was started"
        )
    if any(words in said for words in _FROM_ELSEWHERE):
        return UsageError(
            f"this machine is not a node of the Ray cluster at {address}; run the command on a node, or submit it with"
            " `ray job submit`"
        )
    if fault.kind in _REFUSED:
        return UsageError(f"no Ray cluster answers at {address} ({fault.line}); {_NOBODY}")
    if fault.kind in _UNREACHED:
        return no_answer(address, fault.line)
    return RunStopped(f"the Ray cluster at {address} cannot be used: {fault.line}; see `ray status` on its head node")


def no_answer(address: str, reason: str) -> RunStopped:
    """Nothing came from the address, and nobody refused either."""
    return RunStopped(f"no Ray cluster answers at {address}: {reason}; check the address, its port and the network")


def of_start(fault: StartFault, folder: str, last_words: str = "") -> RunStopped:
    """Why Ray does not start on this machine. Its logs are in the folder, and end with the last words."""
    cause = f": {last_words}" if last_words else ""
    return RunStopped(
        f"Ray does not start here: {fault.line}; its logs are in {folder}{cause}. Free memory, processes or open"
        " files, or use fewer --workers"
    )
