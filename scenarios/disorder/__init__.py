"""Breaking a lab step by step, and looking from outside whether it is whole again."""
