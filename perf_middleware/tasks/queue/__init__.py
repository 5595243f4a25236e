"""The queue of tasks in this process: accepted calls, run by a bounded number of workers."""

from perf_middleware.tasks.queue.decorators import Task
from perf_middleware.tasks.queue.options import QueueLimits
from perf_middleware.tasks.queue.runtime import TaskQueue
from perf_middleware.tasks.queue.runtime.job import Job

__all__ = ["Job", "QueueLimits", "Task", "TaskQueue"]
