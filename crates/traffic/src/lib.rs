//! Pure traffic logic: detections to tracks to counts and speeds.
