"""Keys, certificates, roles, the pairing code and TLS contexts. No sockets."""
