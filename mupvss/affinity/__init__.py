"""Learned affinity (Ahn & Kwak 2018, PSA): which neighbouring cells belong to one object, and the random walk over them."""
