"""From seeds to pseudo-masks: learned affinity, random walk, dense CRF, and which pixels stay unsure."""
