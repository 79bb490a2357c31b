"""The networks that embed patches, and their weights."""
