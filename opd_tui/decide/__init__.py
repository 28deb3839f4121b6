"""What to do with a study: `opd-tui decide`, and its rows as trainers take them."""
