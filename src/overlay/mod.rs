//! Overlay mounts: what this kernel can do, a plan, and carrying it out.
//!
//! [`probe`] tries every feature in a scratch directory and gives a [`Probe`], a plain value. [`plan`] is a pure
//! function from it and a [`MountRequest`] to a [`MountPlan`]. [`mount`] carries the plan out, and a caller that
//! mounts by itself takes [`MountPlan::entry`] or [`MountPlan::parts`]. A mount outlives the process that made it.

mod attempt;
mod backing;
mod defaults;
mod entry;
mod erofs;
mod in_use;
mod mount;
mod options;
mod probe;
mod program;
mod request;

pub(crate) use attempt::try_program;
pub use backing::Backing;
pub(crate) use backing::explain;
pub use defaults::OverlayDefaults;
pub(crate) use entry::EntryPaths;
pub use entry::{MountEntry, MountParts};
pub(crate) use in_use::is_upper;
pub use mount::UnmountMode;
pub(crate) use mount::{
    clear_volatile_mark, has_volatile_mark, is_dead, is_mounted, look_at, mount, unmount,
};
pub(crate) use options::{BY_PROGRAM, check, objection, plan};
pub(crate) use probe::{ErofsSupport, IdMapSupport, Probe, probe};
pub(crate) use program::{find as find_program, made as is_by_program, objection as against_found_program};
pub(crate) use request::{Masked, MountPlan, MountRequest, Upper, XattrClass};
