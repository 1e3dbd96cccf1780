"""Network policies: what they say (model, read), what follows from it (evaluate), and what a node must hold (index)."""
