"""A lab as a program: putting topo and controllers together, serving requests, asking for them."""
