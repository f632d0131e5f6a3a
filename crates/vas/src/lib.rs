//! Video access: opens streams, decodes them into blocks, publishes the frames.
