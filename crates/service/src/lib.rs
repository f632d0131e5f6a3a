//! What every AITS service does around its work: logging, signals, reconnecting.
