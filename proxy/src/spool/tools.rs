//! What operators do with the spool.
