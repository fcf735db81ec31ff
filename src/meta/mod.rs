//! The database: redb behind one module. Knows nothing of directories.
