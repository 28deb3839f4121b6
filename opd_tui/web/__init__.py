"""The explorer in a browser of this machine: `opd-tui browse --web`."""
