"""A process that stands by with everything imported and the connection open, and the thin launcher in front of it."""
