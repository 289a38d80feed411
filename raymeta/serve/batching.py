"""Work of concurrent requests done together, without making a lone request wait.

What is short runs on the event loop itself: requests that came due in one turn of the loop are one
batch, in the next turn. What is long runs in a worker thread: while one batch runs, requests
gather; when it ends, they are the next one. Leaves what the work is to its caller.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

WorkT = TypeVar("WorkT")
ResultT = TypeVar("ResultT")


class Gatherer(Generic[WorkT, ResultT]):
    """Runs `run_batch` on what has gathered, one batch at a time; used from one event loop.

    Args:
        run_batch: results in the order of its input. Where it raises for a batch of several, each
            is tried alone, so that one cannot fail the others.
        executor: where it runs, with one thread, shared by all gatherers of a process; None: on the
            event loop, for what takes less than a change of threads is worth.
        max_batch: how many at a time.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[WorkT]], Sequence[ResultT]],
        *,
        executor: Executor | None,
        max_batch: int,
    ) -> None:
        self._run_batch = run_batch
        self._executor = executor
        self._max_batch = max_batch
        self._waiting: list[tuple[WorkT, asyncio.Future[ResultT]]] = []
        self._running: asyncio.Task[None] | None = None

    async def submit(self, work: WorkT) -> ResultT:
        """The result of `work`, whoever else is in its batch."""
        answer: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._max_batch]
                del self._waiting[: self._max_batch]
                # whoever went away in the meantime (a timeout) is not worked for
                batch = [(work, answer) for work, answer in batch if not answer.done()]
                outcomes = await self._run([work for work, _ in batch])
                for (_, answer), outcome in zip(batch, outcomes, strict=True):
                    if answer.done():
                        continue
                    if isinstance(outcome, BaseException):
                        answer.set_exception(outcome)
                    else:
                        answer.set_result(outcome)
        finally:
            self._running = None

    async def _run(self, batch: Sequence[WorkT]) -> Sequence[ResultT | Exception]:
        if self._executor is not None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, self._outcomes, batch)
        outcomes = self._outcomes(batch)
        if self._waiting:
            await asyncio.sleep(0)  # others have their turn between two batches
        return outcomes

    def _outcomes(self, batch: Sequence[WorkT]) -> Sequence[ResultT | Exception]:
        if not batch:
            return []
        try:
            return self._run_batch(batch)
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [self._outcomes([work])[0] for work in batch]
