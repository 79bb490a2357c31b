"""Check, decode and write single files."""
