"""Parts of a cluster that are programs in pods, as in a real one: each watches the lab and serves the others."""
