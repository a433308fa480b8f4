"""A sweep on Ray: two nodes of one core, each of which trains one stack of runs at a time.

On a cluster that is there already, `ray.init(address="auto")` takes the place of `two_nodes()`.
"""

import os

# Read while Ray is imported: it tells nobody that it is used, and nodes of this machine find each other at 127.0.0.1.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

import ray
from ray.cluster_utils import Cluster

from echo_torch import configure, train_many

# Two shapes, so two stacks: runs that differ in lag and seed alone are trained side by side.
RUNS = {
    f"{mode}-lag{lag}-seed{seed}": configure(mode, lag=lag, seed=seed, updates=400, vocabulary_size=20)
    for mode in ("lag", "aligned")
    for lag in (1, 2)
    for seed in (1, 2, 3)
}


class RayExecutor:
    """What `train_many` asks of an engine: a core for each stack, and another try where a node was lost."""

    def submit(self, function, argument):
        return ray.remote(num_cpus=1, max_retries=3)(function).remote(argument).future()


def two_nodes():
    """Beside them a head that trains nothing; all listen on this machine alone, without a dashboard."""
    here = {"node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**here, "num_cpus": 0})
    for _ in range(2):
        cluster.add_node(**here, num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    return cluster


if __name__ == "__main__":
    cluster = two_nodes()
    try:
        results = train_many(RUNS, "runs/on-ray", executor=RayExecutor(), num_jobs=2)
    finally:
        ray.shutdown()
        cluster.shutdown()
    for name, result in results.items():
        print(f"{name}: accuracy {result['accuracy']:.1%}, weights {result['weights_sha256'][:12]}")
    print(f"{len(results)} runs are finished")
