"""The panes of the explorer. All of them draw whole lines themselves (`lines.Lines`)."""
