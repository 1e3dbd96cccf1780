"""What a node does for Services beside flows, as kube-proxy does: one process for all nodes, one file a part."""
