"""What can go wrong between a worker, a gateway and the tasks in Redis.

TaskStoreError
├── StoreUnavailableError   Redis does not answer or refuses to write: try again
└── LeaseLostError          another worker holds the task, or may: write nothing more
"""


class TaskStoreError(Exception):
    """The store could not do what was asked."""


class StoreUnavailableError(TaskStoreError):
    """Redis is away, loading, full or failing over; nothing is known about the write."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the task store does not answer: {problem}")
        self.problem = problem


class LeaseLostError(TaskStoreError):
    """The token is stale, or the journal is not as this worker left it."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"task {task_id} is no longer held by this worker")
        self.task_id = task_id
