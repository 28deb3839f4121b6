"""Filters and text search: a language of expressions, the columns behind its names, scans in bounded memory."""
