"""The errors of the task store, for workers and gateways.

TaskStoreError
├── StoreUnavailableError   Redis does not answer or refuses to write: try again
│   ├── UncertainError      a submission, or an intent, was sent: nobody knows whether it was written
│   │   └── UnconfirmedError  it was written, but no replica of Redis has confirmed it in time
│   └── PayloadsUnavailableError  the object store of large texts does not answer, or refuses
├── NoRoomError             the caller's share has no room for a result: nothing was written
├── LeaseLostError          another worker holds the task, or may hold it: stop writing to it
└── BrokenEntryError        an entry of a journal cannot be read: its task cannot go on
"""


class TaskStoreError(Exception):
    """The store could not carry out a request."""


class StoreUnavailableError(TaskStoreError):
    """Redis is down, loading, full or failing over. It is not known whether the write was done."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"Redis, which holds the tasks, does not answer: {problem}")
        self.problem = problem


class UncertainError(StoreUnavailableError):
    """The write was sent, and its answer did not come: it may have been done."""


class UnconfirmedError(UncertainError):
    """The primary has the write, and no replica said in time that it has it too; a failover may lose it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no replica confirmed the write within {seconds:g} s")


class PayloadsUnavailableError(StoreUnavailableError):
    """The object store of queue.payloads does not answer, or refuses."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.args = (f"the object store of queue.payloads does not answer: {problem}",)
        self.problem = self.args[0]


class NoRoomError(TaskStoreError):
    """The caller's share of the store has no room for the result of a task that has compensations."""


class LeaseLostError(TaskStoreError):
    """The fencing token is stale, or the journal has entries that this worker did not write."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"this worker no longer holds task {task_id}")
        self.task_id = task_id


class BrokenEntryError(TaskStoreError):
    """An entry of a journal is not what any version has written."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"an entry of the task's journal cannot be read: {problem}")
        self.problem = problem
