"""Slices of a study as files: rows for people's own tools, arrays, pictures, pages."""
