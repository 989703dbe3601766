"""A real Kubernetes on one machine, for people without a cluster and for the tests.

- `control_plane` is etcd and an API server, on request with the controller manager, the scheduler and KWOK.
  Each has a folder of its own, so several run at once; they end with the test.
- `embedded` is a whole cluster: a control plane with a kubelet, containerd, DNS and storage. A machine has at
  most one, which `python -m local_cluster up|down|status` starts, stops and shows. Where Docker and kind are
  installed, a kind cluster is used in its place.
"""
