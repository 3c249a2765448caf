"""Machines that only have SSH: what an agent needs to run their commands, by the system's own ``ssh``."""
