//! Layouts and archives as a whole: our own, those of other tools, and hostile ones.

mod archives;
mod foreign;
mod hostile;
mod layouts;
mod support;
