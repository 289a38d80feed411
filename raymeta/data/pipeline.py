"""`prepare` on a Ray cluster: the same two passes as Ray Data maps over units and partitions.

What travels through the object store is only which piece to do and a summary of it: the rows go
from file to file inside a task, so that memory is bounded by a block a worker here too. The folder
of the data set must be one that every node sees. A caller that holds a `runtime.session` keeps one
cluster for both passes.
"""

import contextlib
import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from raymeta import runtime
from raymeta.errors import RaymetaError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


class RayRunner:
    """Runs pieces of work as Ray Data tasks; a `prepare.Runner`.

    Args:
        address: of a running cluster; one is started on this machine if left out.
        num_cpus: of the cluster that is started; all of this machine if left out.
    """

    def __init__(self, address: str | None = None, *, num_cpus: int | None = None) -> None:
        self._address = address
        self._num_cpus = num_cpus

    def __call__(
        self, work: Callable[[TaskT], ResultT], tasks: Sequence[TaskT]
    ) -> Iterator[ResultT]:
        """`work` of every task, in the order of `tasks`.

        Raises:
            RaymetaError: what `work` raised, as it raised it.
        """
        with (
            runtime.session(self._address, num_cpus=self._num_cpus),
            # ended before Ray is, also where an error or Ctrl-C ends it early
            contextlib.closing(_outcomes(work, tasks)) as outcomes,
        ):
            yield from _in_order(outcomes, len(tasks))


def _outcomes(
    work: Callable[[Any], Any], tasks: Sequence[Any]
) -> Generator[tuple[int, Any], None, None]:
    """(number, result) of every task as they end; an error of ours counts as a result."""
    import logging

    import ray
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that bars are off, too
    DataContext.get_current().enable_progress_bars = False
    rows = [{"number": n, "task": pickle.dumps(task)} for n, task in enumerate(tasks)]

    def run(row: dict[str, Any]) -> dict[str, Any]:
        try:
            outcome: Any = work(pickle.loads(row["task"]))
        except RaymetaError as error:
            outcome = error
        return {"number": row["number"], "outcome": pickle.dumps(outcome)}

    # one block a task, so that the pieces run apart and are reported as each ends
    pieces = ray.data.from_items(rows, override_num_blocks=len(rows))
    for row in pieces.map(run).iter_rows():
        yield int(row["number"]), pickle.loads(row["outcome"])


def _in_order(outcomes: Iterator[tuple[int, Any]], total: int) -> Iterator[Any]:
    waiting: dict[int, Any] = {}
    due = 0
    for number, outcome in outcomes:
        if isinstance(outcome, RaymetaError):
            raise outcome
        waiting[number] = outcome
        while due in waiting:
            yield waiting.pop(due)
            due += 1
    assert due == total, f"{total - due} pieces of work gave no result"
