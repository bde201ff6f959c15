"""Start and end Ray like a run on one CPU, with one empty task in between."""

from __future__ import annotations

from nextscene.common.ray_cluster.cluster import connected


def nothing() -> None: ...


def main() -> None:
    with connected(1, None):
        import ray

        ray.get(ray.remote(num_cpus=1)(nothing).remote())


if __name__ == "__main__":
    main()
