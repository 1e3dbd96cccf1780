"""The real thing as reference: the rules that kube-proxy writes into a node's kernel, and the routes of a Linux CNI."""
