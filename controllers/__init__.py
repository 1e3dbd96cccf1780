"""What decides: pure compilers from cluster state to flows, and the thin Ryu application that ships them."""
