"""The three trainings side by side, and the loop they share."""
