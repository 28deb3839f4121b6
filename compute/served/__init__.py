"""Teachers behind a server: token ids in, log-probabilities at given positions out. See docs/served_teachers.md."""
