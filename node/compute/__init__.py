"""Clips read on many machines: Dask's scheduler between the node and its workers.

The node hands clips to a :class:`~node.compute.cluster.Cluster`, which is a
:class:`concurrent.futures.Executor` like the worker processes of one machine
(:class:`node.executor.WorkerProcesses`) and has the same few methods beside. A worker
(:mod:`node.compute.worker`) is a Dask worker in front of those very worker processes: so a clip is
read by the same code in the same kind of process, and what a death, a time limit or a failed start
means is the same, wherever it is read. Dask does the placing, and runs elsewhere what a worker
that has gone was reading.
"""
