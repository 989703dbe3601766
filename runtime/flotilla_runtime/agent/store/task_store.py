"""Tasks in Redis: every write is one Lua script, and every script of a worker checks its fencing token.

Callers can rely on this: a submission is on disk before it returns (the managed Redis syncs before it
answers); a write with a stale token changes nothing; no token is granted twice, also after a failover that
lost writes; every write can be sent again when its answer was lost.
Where Redis has replicas, a submission is on one of them before it returns. Reads do not check a token.
"""

from flotilla_runtime.agent.store.checkpoints import CheckpointTasks
from flotilla_runtime.agent.store.gateway_tasks import GatewayTasks
from flotilla_runtime.agent.store.worker_tasks import WorkerTasks


class TaskStore(GatewayTasks, WorkerTasks, CheckpointTasks):
    """A fleet's tasks, for whoever needs both sides."""
