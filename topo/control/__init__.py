"""The control plane: pure decisions (what pods, where, which endpoints) and the loop that carries them out."""
