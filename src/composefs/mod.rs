//! What sealed layers show as a filesystem image over shared files, in the manner of composefs.
//!
//! The image is an EROFS filesystem with the names, metadata and attributes of a stack of layers and no content. A
//! regular file in it says instead which file of some directories beside the image has its bytes: overlayfs calls that a
//! *metacopy* with a *redirect*, and the directories *data-only* layers. The files there are named by their BLAKE3 hash,
//! and are other names of files in diff directories: equal content is one file, and lies in the page cache once, however
//! many layers have it.
//!
//! ```text
//! composefs/<n>/data/<hash>             the content of the files of diffs/<n>
//! composefs/<n>/data.verity/<hash>      the same, if each has fs-verity
//! composefs/<n>/<stack>.erofs           what the layer shows, with those below it
//! composefs/<n>/<stack>.verity.erofs    the same, with the digests of all files
//! content/<hash>                        another name of each file, to be found by the next layer
//! ```
//!
//! The stack and not the layer, because without `metacopy=on` the kernel finds the content of files in the lowest layer alone.
//! With it, the upper directory would get files without content.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`erofs`] | writes the filesystem |
//! | [`tree`] | what a stack of manifests shows, as inodes |
//! | [`build`] | makes files and images, and finds them |
//! | [`content`] | the files named by their hashes |
//! | [`verify`] | whether all is as the manifests say |

mod build;
mod content;
mod erofs;
#[cfg(test)]
mod tests;
mod tree;
mod verify;

pub(crate) use build::{Built, Data, build_data, build_image, find_data, find_image};
pub(crate) use content::{may_be_shared, open as open_shared, sweep as sweep_content};
pub(crate) use tree::{Stack, StackName, image};
pub(crate) use verify::{flaw_of_data, flaw_of_image, has_images};
