"""The committed manifest: its text and where its files lie. Never torch."""
