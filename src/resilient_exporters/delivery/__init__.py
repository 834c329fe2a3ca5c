"""Moves records from senders and spools to targets: whose turn it is, what an attempt meant, when to try again."""
