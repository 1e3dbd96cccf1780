"""What is emulated: the capsule, the lab, nodes, pods and fabric, and the cluster's objects."""
