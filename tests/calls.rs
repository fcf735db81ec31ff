//! How many system calls the program makes: everybody who uses the library pays for each of them, and they creep in one by one.

mod files;
mod operations;
