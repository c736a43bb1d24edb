"""How fast the client is: see ``throughput``."""
