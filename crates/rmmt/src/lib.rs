//! The memory daemon: creates the pool, admits processes, notices their death, takes back what they held.
