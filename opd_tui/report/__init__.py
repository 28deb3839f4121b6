"""A report of a study: its findings for a terminal, sentences that follow from them, files with plots and tables."""
