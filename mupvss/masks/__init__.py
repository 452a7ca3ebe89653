"""From maps to masks: background, dense CRF, and what stays unsure."""
