//! A master that accepts connections and passes the sockets to worker processes.
