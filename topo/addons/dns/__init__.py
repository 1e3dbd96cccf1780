"""The cluster's DNS, as the Kubernetes DNS specification 1.1.0 asks for it and as CoreDNS answers."""

# Where a pod says by HTTP whether it answers yet (CoreDNS, plugin ready).
READY_PORT = 8181
