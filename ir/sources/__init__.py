"""Where programs come from, one kind of source a file."""
