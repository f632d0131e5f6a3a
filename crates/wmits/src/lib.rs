//! The orchestrator: takes tasks, keeps them, and routes frames to the algorithms.
