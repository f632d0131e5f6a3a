//! The algorithms: reads frames in place, detects, tracks, judges.
