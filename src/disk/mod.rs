//! The directories of a store. Knows nothing of records.
