"""The answer of many machines, told as one."""
