"""A sweep on dask: two workers, each of which trains one stack of runs at a time.

On a cluster that is there already, `Client("tcp://its-scheduler:8786")` takes the place of the local one.
"""

from dask.distributed import Client, LocalCluster

from echo_torch import configure, train_many

# Two shapes, so two stacks: runs that differ in lag and seed alone are trained side by side.
RUNS = {
    f"{mode}-lag{lag}-seed{seed}": configure(mode, lag=lag, seed=seed, updates=400, vocabulary_size=20)
    for mode in ("lag", "aligned")
    for lag in (1, 2)
    for seed in (1, 2, 3)
}


def two_workers():
    """Each with one thread, which a stack keeps busy; all listen on this machine alone, without a dashboard."""
    quiet = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    return LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **quiet)


if __name__ == "__main__":
    with two_workers() as cluster, Client(cluster) as client:
        # Not pure: dask would give the answer of an earlier call, but it is the files that count.
        results = train_many(RUNS, "runs/on-dask", executor=client.get_executor(pure=False), num_jobs=2)
    for name, result in results.items():
        print(f"{name}: accuracy {result['accuracy']:.1%}, weights {result['weights_sha256'][:12]}")
    print(f"{len(results)} runs are finished")
