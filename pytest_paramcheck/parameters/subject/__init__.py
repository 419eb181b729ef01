"""Names: what a subject holds, under which names, and how patterns select it."""
