"""Which tags are likely missing or wrong, and which masks are doubtful, by a trained network's own account."""
