"""The script of a worker: its states, its connections and calls, and its ledger."""
