//! Tar bytes to entries and back. Knows nothing of the store.
