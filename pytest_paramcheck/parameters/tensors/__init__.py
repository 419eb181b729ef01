"""One tensor's bytes: memory, content, relations; knows no names."""
