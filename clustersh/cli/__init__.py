"""What the three console programs share: arguments, console, errors, and the one place where the reactor runs."""
