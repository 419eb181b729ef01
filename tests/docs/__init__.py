"""The documentation: its blocks run, its reference is whole, its links lead somewhere."""
