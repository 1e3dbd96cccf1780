"""What carries pods' packets between nodes outside the switch: devices and programs of the node's own, as its parts."""
