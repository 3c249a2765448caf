"""The second half of the installers: what is done once a version is in its folder, and what takes it away again.

The first half is the scripts in ``packaging/install/``, which make the folder. Everything here may be done again.
"""
