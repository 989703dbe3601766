"""Faults in behaviours whose tests were merged, moved or replaced, each with the tests that must notice it.

Most are caught by unit tests. The last ones need a real API server, a real HAProxy or Milvus.
"""

from typing import Final

from seeded_faults.seeding import Fault

OPERATOR = "operator/flotilla_operator"
RUNTIME = "runtime/flotilla_runtime"
OPERATOR_TESTS = "operator/tests"
RUNTIME_TESTS = "runtime/tests"
REFUSED_PODS = f"{OPERATOR_TESTS}/controllers/model_replica_set/test_refused_pods.py"
EVERY_KIND = f"{OPERATOR_TESTS}/controllers/test_every_kind.py"
POD_SECURITY = f"{OPERATOR_TESTS}/workloads/test_pod_security.py"
BUILDS = f"{RUNTIME_TESTS}/indexing/test_builds.py"

FAULTS: Final = (
    Fault(
        name="the router keeps a watch that has missed events",
        path=f"{RUNTIME}/router/pod_watch.py",
        sound="                    self._version = None\n",
        broken="",
        tests=(f"{RUNTIME_TESTS}/router/test_pod_watch.py",),
    ),
    Fault(
        name="figures are written without a limit",
        path=f"{OPERATOR}/cluster/status.py",
        sound="return max(0.0, written_at + self._interval_seconds - self._clock())",
        broken="return 0.0",
        tests=(f"{OPERATOR_TESTS}/cluster/test_writer.py",),
    ),
    Fault(
        name="another decision wakes nobody",
        path=f"{OPERATOR}/controllers/steering.py",
        sound="if became_known or held.steered.number_and_reason != before.number_and_reason:",
        broken="if became_known:",
        tests=(f"{OPERATOR_TESTS}/controllers/test_steering.py",),
    ),
    Fault(
        name="figures wake an object at every answer",
        path=f"{OPERATOR}/controllers/steering.py",
        sound="self._queue.add_after(key, max(0.0, due - self._monotonic()))",
        broken="self._queue.add(key)",
        tests=(f"{OPERATOR_TESTS}/controllers/test_steering.py",),
    ),
    Fault(
        name="a set that no longer asks for room wakes nobody",
        path=f"{OPERATOR}/controllers/model_replica_set/wakes.py",
        sound="        if not _withdraws(",
        broken="        if True or not _withdraws(",
        tests=(f"{OPERATOR_TESTS}/scenes/test_rest.py",),
    ),
    Fault(
        name="a set that cannot be reconciled holds room for ever",
        path=f"{OPERATOR}/controllers/model_replica_set/observe/known_asks.py",
        sound="now - silent_since > SILENT_FOR",
        broken="now - silent_since > 999 * SILENT_FOR",
        tests=(f"{OPERATOR_TESTS}/scenes/test_rest.py",),
    ),
    Fault(
        name="a group whose pods are being made has failed for other sets",
        path=f"{OPERATOR}/replicas/rounds.py",
        sound="if group.whole or group.name not in being_made",
        broken="if group.whole or True",
        tests=(f"{OPERATOR_TESTS}/controllers/model_replica_set/test_groups.py",),
    ),
    Fault(
        name="a placement round wakes no other set",
        path=f"{OPERATOR}/controllers/model_replica_set/wakes.py",
        sound="    made = None if decision is None else decision.step.room.made\n",
        broken="    made = None\n",
        tests=(f"{OPERATOR_TESTS}/scenes/test_rest.py",),
    ),
    Fault(
        name="a refusal is counted at every look",
        path=f"{OPERATOR}/replicas/backoff.py",
        sound="    if refusal is not None and refusal.counted:\n        refusal = None\n",
        broken="",
        tests=(f"{REFUSED_PODS}::test_a_refusal_is_remembered_and_counted_once_until_pods_are_accepted",),
    ),
    Fault(
        name="an object of the user's with our name is overwritten",
        path=f"{OPERATOR}/cluster/writer.py",
        sound="refuse_unless_ours(owner, live, retained=write.retained)",
        broken="pass",
        tests=(EVERY_KIND,),
    ),
    Fault(
        name="an unchanged object is sent again",
        path=f"{OPERATOR}/cluster/writer.py",
        sound="        found_right[ref] = version\n        return True",
        broken="        return False",
        tests=(f"{OPERATOR_TESTS}/cluster/test_writer.py",),
    ),
    Fault(
        name="a paused fleet is written",
        path=f"{OPERATOR}/controllers/agent_fleet/act.py",
        sound="writes=[] if decision.paused else list(_writes(observed, decision, make_password)),",
        broken="writes=list(_writes(observed, decision, make_password)),",
        tests=(EVERY_KIND,),
    ),
    Fault(
        name="a field of a newer release is ignored silently",
        path=f"{OPERATOR}/controllers/ignored_fields.py",
        sound='            yield f"{path}.{key}"',
        broken="            continue",
        tests=(EVERY_KIND,),
    ),
    Fault(
        name="a container may write to its root file system",
        path=f"{OPERATOR}/workloads/pod_security.py",
        sound='"readOnlyRootFilesystem": True',
        broken='"readOnlyRootFilesystem": False',
        tests=(POD_SECURITY,),
    ),
    Fault(
        name="every pod gets a token of the API server",
        path=f"{OPERATOR}/workloads/objects.py",
        sound='"automountServiceAccountToken": parts.service_account is not None,',
        broken='"automountServiceAccountToken": True,',
        tests=(POD_SECURITY,),
    ),
    Fault(
        name="a fleet that waits for an index gives another reason",
        path=f"{OPERATOR}/controllers/agent_fleet/references.py",
        sound="return Reason.INDEX_BUILDING",
        broken="return Reason.INDEX_MISSING",
        tests=(f"{OPERATOR_TESTS}/controllers/agent_fleet/test_reasons.py",),
    ),
    Fault(
        name="a pod that is not bound in time keeps its room",
        path=f"{OPERATOR}/replicas/leaving/endings.py",
        sound="    not_bound_in_time,\n",
        broken="",
        tests=(
            f"{OPERATOR_TESTS}/controllers/model_replica_set/test_plan.py",
            f"{OPERATOR_TESTS}/controllers/model_replica_set/test_groups.py",
        ),
    ),
    Fault(
        name="the gated group of a paused set keeps its room",
        path=f"{OPERATOR}/replicas/leaving/endings.py",
        sound="    gated_while_paused,\n",
        broken="",
        tests=(f"{OPERATOR_TESTS}/controllers/model_replica_set/test_groups.py",),
    ),
    Fault(
        name="a refusal counts nodes under another reason",
        path=f"{OPERATOR}/placement/refuse.py",
        sound="enough = with_room >= group.stages",
        broken="enough = with_room < group.stages",
        tests=(f"{OPERATOR_TESTS}/placement/test_place.py",),
    ),
    Fault(
        name="a group that leaves its nodes still counts where its owner's replicas are",
        path=f"{OPERATOR}/placement/ledger.py",
        sound="        self._spread.remove(group.owner, positions)\n",
        broken="",
        tests=(f"{OPERATOR_TESTS}/placement/test_ledger_machine.py",),
    ),
    Fault(
        name="workers go before the quiet window has passed",
        path=f"{OPERATOR}/autoscaling/workers.py",
        sound="wanted = highest if watched_whole_window else current",
        broken="wanted = need",
        tests=(f"{OPERATOR_TESTS}/autoscaling/test_workers.py",),
    ),
    Fault(
        name="a parallelism is proposed that does not fit",
        path=f"{OPERATOR}/capacity/fit.py",
        sound="fitting = (p for p in _ways(shape, per_node) if fit(shape, accelerator, wanted, p).fits)",
        broken="fitting = _ways(shape, per_node)",
        tests=(f"{OPERATOR_TESTS}/capacity/test_fit.py",),
    ),
    Fault(
        name="an engine's arguments change without a look at the goldens",
        path=f"{OPERATOR}/workloads/engine_arguments.py",
        sound='"--max-num-seqs", str(engine.max_num_seqs)',
        broken='"--max-num-seqs", str(engine.max_num_seqs + 1)',
        tests=(f"{OPERATOR_TESTS}/workloads/test_model_replica_set.py",),
    ),
    Fault(
        name="a model's file that has become short is left as it is",
        path=f"{RUNTIME}/models/files.py",
        sound="if _size(folder / name) != size]",
        broken="if _size(folder / name) is None]",
        tests=(f"{RUNTIME_TESTS}/models", "e2e/tests/test_hub_stub.py"),
    ),
    Fault(
        name="another revision of a model is not fetched",
        path=f"{RUNTIME}/models/fetch.py",
        sound="(contents.source, contents.requested_revision) == (repository.source, repository.revision)",
        broken="contents.source == repository.source",
        tests=("e2e/tests/test_hub_stub.py",),
    ),
    Fault(
        name="the retriever's deadline ends nothing",
        path=f"{RUNTIME}/retrieval/retriever.py",
        sound="asyncio.timeout(deadline_seconds)",
        broken="asyncio.timeout(None)",
        tests=(f"{RUNTIME_TESTS}/retrieval/test_retriever.py",),
    ),
    Fault(
        name="a task that was cancelled forgets the answer in its journal",
        path=f"{RUNTIME}/agent/loop.py",
        sound="    _answered,\n    _cancelled,\n",
        broken="    _cancelled,\n    _answered,\n",
        tests=(f"{RUNTIME_TESTS}/agent/test_loop.py",),
    ),
    Fault(
        name="a document that was half written counts as unchanged",
        path=f"{RUNTIME}/indexing/shard.py",
        sound="stored is not None and stored.complete and stored.hash",
        broken="stored is not None and stored.hash",
        tests=(BUILDS,),
    ),
    Fault(
        name="a pod whose creation was not answered is made again",
        path=f"{OPERATOR}/cluster/writer.py",
        sound="if resource == PODS and not answered:",
        broken="if False:",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py",),
    ),
    Fault(
        name="a pod that was never created is waited for for ever",
        path=f"{OPERATOR}/cluster/unanswered.py",
        sound="return self._clock() >= one.ask_at",
        broken="return False",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py",),
    ),
    Fault(
        name="what a failed reconcile wrote ends its backoff",
        path=f"{OPERATOR}/cluster/queue.py",
        sound="elif changed_something and not self._failures.get(key):",
        broken="elif changed_something:",
        tests=(f"{OPERATOR_TESTS}/cluster/test_queue.py",),
    ),
    Fault(
        name="a node that the cache does not have yet is taken for lost",
        path=f"{OPERATOR}/controllers/absent_nodes.py",
        sound="if name not in self._gone and self._clock() - since >= MISSED_FOR_SECONDS:",
        broken="if self._gone.add(name):",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py",),
    ),
    Fault(
        name="a replica that a router uses is deleted as one that never served",
        path=f"{OPERATOR}/replicas/leaving/draining.py",
        sound="if not group.may_have_requests and not is_used(group, routers):",
        broken="if not group.may_have_requests:",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py", f"{OPERATOR_TESTS}/replicas/test_draining.py"),
    ),
    Fault(
        name="a drain is timed by the wall clock",
        path=f"{OPERATOR}/controllers/model_replica_set/observe/watched_time.py",
        sound="replace(group, drained_for=lasted)",
        broken="replace(group, drained_for=None)",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py",),
    ),
    Fault(
        name="time without an operator counts against an update",
        path=f"{OPERATOR}/controllers/model_replica_set/observe/watched_time.py",
        sound="return rollout.looked_at_again(look.now)",
        broken="return rollout",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py",),
    ),
    Fault(
        name="a clock that jumps counts against an update",
        path=f"{OPERATOR}/controllers/model_replica_set/observe/watched_time.py",
        sound="return rollout if abs(unwatched) < SMALL else rollout.moved_by(unwatched)",
        broken="return rollout",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py",),
    ),
    Fault(
        name="a new leader trusts its watch of pods",
        path=f"{OPERATOR}/controllers/main.py",
        sound="        await self._read_pods_anew()\n",
        broken="",
        tests=(f"{OPERATOR_TESTS}/scenes/test_faults.py",),
    ),
    Fault(
        name="the chunks of a document's longer version stay",
        path=f"{RUNTIME}/indexing/shard.py",
        sound="if document.id in self.stored:",
        broken="if document.id not in self.stored:",
        tests=(BUILDS,),
    ),
    Fault(
        name="the first token of a stream is held back",
        path=f"{RUNTIME}/router/haproxy.py",
        sound='        "    option http-no-delay",\n',
        broken="",
        tests=(f"{RUNTIME_TESTS}/router/test_haproxy.py",),
    ),
    Fault(
        name="a leader writes after its lease has ended",
        path=f"{OPERATOR}/cluster/lease.py",
        sound="return self._renewed_at + self._renew_deadline_seconds - self._clock()",
        broken="return 3600.0",
        tests=(
            f"{OPERATOR_TESTS}/controllers/test_operator_process.py"
            "::test_a_leader_stopped_amid_its_writes_writes_nothing_when_it_goes_on",
        ),
    ),
    Fault(
        name="an object goes before its children",
        path=f"{OPERATOR}/objects/owners.py",
        sound='"blockOwnerDeletion": True',
        broken='"blockOwnerDeletion": False',
        tests=(f"{OPERATOR_TESTS}/controllers/test_all_kinds_deletion.py",),
    ),
    Fault(
        name="the Job after an uninstall leaves the finalizers of indexes",
        path=f"{OPERATOR}/controllers/uninstall.py",
        sound="others = [name for name in held if not name.startswith(FINALIZER_PREFIX)]",
        broken="others = list(held)",
        tests=("e2e/tests/test_chart_on_api_server.py",),
    ),
)
