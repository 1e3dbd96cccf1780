"""The Container Network Interface: what runtimes and plugins say to each other (CNI specification 1.1.0)."""
