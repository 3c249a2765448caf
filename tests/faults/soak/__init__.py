"""The soak: thousands of commands while agents, coordinator and links are killed at random, and nothing may be lost."""
