"""A Ray cluster of two nodes with one CPU each, on loopback. It prints its address.

Usage: python -m tests.faults.two_nodes. It loses a node at each line of input, and ends, with the cluster, at the end
of its input.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    # Ray replaces 127.0.0.1 by the outer address of the machine.
    here = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**here, "include_dashboard": False})
    second = cluster.add_node(**here)
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(second, allow_graceful=False)
        print("lost", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
