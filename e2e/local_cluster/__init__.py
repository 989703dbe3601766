"""A real Kubernetes on one machine, for people without a cluster and for the tests.

Two sizes share their parts. `control_plane` is etcd and an API server (with the controller manager,
the scheduler and KWOK on request) in a folder of its own, several at once, gone with the test.
`embedded` adds a kubelet, containerd, DNS and storage: one per machine, started and stopped by
`python -m local_cluster up|down|status`. Where Docker and kind are present, kind takes its place.
"""
