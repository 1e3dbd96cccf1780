"""The stand-in server: one process that answers for every container whose program the host does not have."""
