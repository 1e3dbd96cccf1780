"""What every lab's flows need whatever the CNI and the proxy mode: one file a feature."""
