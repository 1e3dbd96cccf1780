"""Programs that CNIs and proxy modes run on nodes, a process each; scripts that import little and start fast."""
