"""The cluster model: Kubernetes objects, their store, and values shared by topo and controllers."""
