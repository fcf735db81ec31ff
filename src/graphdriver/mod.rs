//! A store as a graph driver: the calls that containers/storage and moby make on their overlay drivers.
//!
//! A [`Driver`] is a handle with a [`Dialect`], and holds nothing else: what it has mounted, and how often it was asked to, stands
//! in the store's run root, where every process sees it. So any number of drivers, in any number of processes, are one.
//!
//! | part | what it does |
//! | --- | --- |
//! | `options` | what a driver, a new layer and a mount are given |
//! | `driver` | opening, creating, removing, listing |
//! | `mount` | [`get`](Driver::get) and [`put`](Driver::put), and where things are |
//! | `diff` | what a layer changes, in and out |
//! | `status` | what works here |
//!
//! # What a layer is
//!
//! Each layer is a [`Layer`](crate::Layer) of the store, with the caller's id. One of [`create`](Driver::create) is for an image:
//! [`get`](Driver::get) mounts it for writing until an archive is [applied](Driver::apply_diff), which seals it; from then on it
//! is shown, and gives back the archive byte for byte. One of [`create_read_write`](Driver::create_read_write) is always
//! mounted for writing, unless others stand on it.
//!
//! # Examples
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! use layerstore::StoreOptions;
//! use layerstore::graphdriver::{CreateOptions, Dialect, Driver, DriverOptions};
//!
//! let options = DriverOptions::parse(["overlay.mountopt=nodev", "skip_mount_home=true"])?;
//! let place = StoreOptions::at(dir.path().join("store"));
//! let driver = Driver::open(place, &options.dialect(Dialect::ContainersStorage))?;
//! let (base, web) = ("base".parse()?, "web-init".parse()?);
//! driver.create(&base, None, &CreateOptions::default())?;
//! driver.create_read_write(&web, Some(&base), &CreateOptions::default())?;
//! assert_eq!(driver.list_layers()?, [base, web]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod diff;
mod driver;
mod mount;
mod options;
mod status;

pub use driver::Driver;
pub use mount::Metadata;
pub use options::{ApplyDiffOptions, CreateOptions, Dialect, DriverOptions, GetOptions};
