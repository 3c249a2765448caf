"""Lets twistd find the coordinator."""

from twisted.application.service import ServiceMaker

clusterd = ServiceMaker(
    "clusterd", "clustersh.coordinator.plugin", "clustersh's coordinator: lets in, hands out, records", "clusterd"
)
