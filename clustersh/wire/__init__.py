"""What travels between the programs: msgspec Structs and their rules. No I/O, no Twisted."""
