"""The policy: what is stopped, who may force it, and what a client may do at all. docs/policy.md."""
