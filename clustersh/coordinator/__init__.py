"""The coordinator: certificate authority, registry of machines, dispatcher, audit ledger."""
