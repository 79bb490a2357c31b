"""Files are written whole, and checked before their content is used."""
