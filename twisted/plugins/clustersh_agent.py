"""Lets twistd find the agent."""

from twisted.application.service import ServiceMaker

clusteragent = ServiceMaker(
    "clusteragent", "clustersh.agent.plugin", "clustersh's agent: runs commands on this machine", "clusteragent"
)
