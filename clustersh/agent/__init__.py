"""The agent: runs commands on its machine and keeps their output."""
