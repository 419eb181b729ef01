"""Copies, moves, saves and loads."""
