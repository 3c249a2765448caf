"""The command line that people and AI agents use."""
