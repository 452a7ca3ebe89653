"""Finds tags that are likely missing or wrong, and doubtful masks, by what a trained network sees."""
