"""``python -m clustersh.agent`` is ``clusteragent``."""

from .main import main

if __name__ == "__main__":
    main()
