"""``python -m clustersh.coordinator`` is ``clusterd``."""

from .main import main

if __name__ == "__main__":
    main()
