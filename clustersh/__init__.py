"""clustersh: run commands on other machines, through one coordinator that records every one."""

__version__ = "0.1.0"
