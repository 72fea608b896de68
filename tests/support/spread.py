"""Long lists of independent trials on a few processes. Not threads: judging changes the working directory."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

LOOK_SECONDS = 1.0

Work = Callable[..., Iterator[Any]]


def _work(work: Work, tasks: Sequence[Any], done: Any, arguments: tuple[Any, ...]) -> None:
    for result in work(tasks, *arguments):
        done.put(result)


def spread(work: Work, tasks: Sequence[Any], jobs: int, *arguments: Any) -> Iterator[Any]:
    """What `work(some of the tasks, number of the process, *arguments)` yields, one result a task, in no order."""
    context = multiprocessing.get_context("spawn")
    done: Any = context.Queue()
    processes = [
        context.Process(target=_work, args=(work, tasks[number::jobs], done, (number, *arguments)))
        for number in range(max(1, jobs))
    ]
    for one in processes:
        one.start()
    left = len(tasks)
    while left:
        try:
            yield done.get(timeout=LOOK_SECONDS)
            left -= 1
        except queue.Empty:
            if not any(one.is_alive() for one in processes) and done.empty():
                raise RuntimeError(f"{left} trials were not finished") from None
    for one in processes:
        one.join()
