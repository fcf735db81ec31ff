//! Mounts EROFS images, attached to nothing: such a mount lives as long as the overlay that has it as a layer.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::MountAttrFlags;

use super::probe::ErofsSupport;
use crate::sys::file::File;
use crate::sys::loop_device::LoopDevice;
use crate::sys::mount::{FSCONFIG_VALUE_MAX, FsContext, Refusal};

/// Mounts `image`, read-only.
pub(super) fn mount(image: &Path, support: ErofsSupport) -> Result<OwnedFd, Refusal> {
    let file = File::open(image).map_err(|error| Refusal::new(format!("open {}", image.display()), error))?;
    match support {
        // Not every filesystem has files that can be mounted, and another store may lie on such a one.
        ErofsSupport::File => as_file(image, &file).or_else(|refusal| by_loop(&file).map_err(|_| refusal)),
        ErofsSupport::Loop | ErofsSupport::None => by_loop(&file),
    }
}

/// Mounts it as the file that it is.
pub(super) fn as_file(image: &Path, file: &File) -> Result<OwnedFd, Refusal> {
    // A short path shows in the mount table; a long one goes by the open file.
    if image.as_os_str().len() <= FSCONFIG_VALUE_MAX {
        from(image)
    } else {
        from(Path::new(&format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())))
    }
}

/// Mounts it by a loop device, which is the mount's as soon as there is one.
fn by_loop(file: &File) -> Result<OwnedFd, Refusal> {
    let device = LoopDevice::attach(file.as_fd()).map_err(|error| Refusal::new("loop device", error))?;
    from(device.path())
}

fn from(source: &Path) -> Result<OwnedFd, Refusal> {
    let context = FsContext::open("erofs")?;
    // The device is read-only, and takes no mount that may be another.
    context.flag("ro")?;
    context.string("source", source)?;
    context.create(MountAttrFlags::MOUNT_ATTR_RDONLY)
}
