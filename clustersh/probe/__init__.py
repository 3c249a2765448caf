"""The probe of ``clustersh check``: it runs on the machines, as a job, by the Python of their agent.

It needs Python's standard library (on Windows psutil for services), and of clustersh only what stands in this room and
in `wire.units`: so it starts fast, and can be carried to where no clustersh is.
"""
