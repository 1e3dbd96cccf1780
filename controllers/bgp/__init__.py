"""BGP-4 on the wire: what each router's configuration says, and the process that runs it on a node."""
