//! Id maps of containers: those that a caller gives, and those that are chosen: as many ids as the image needs, of
//! those that an administrator has set aside, which no other container has.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use layerstore_schema::manifest::Kind;
use layerstore_schema::record::{ContainerRecord, IdRange, LayerContent};

use crate::error::{CreateError, Error, LookupError};
use crate::layer;
use crate::sys::file::File;
use crate::sys::userns::{self, IdExtent, IdMaps};
use crate::sys::{beneath, privileges};
use crate::types::{IdSet, ImageId, TreeDigest};

use super::view::View;
use super::{Store, StoreOptions};

/// How the ids of a container map to the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdMapping {
    /// They are the same.
    #[default]
    Host,
    /// As given.
    Maps(IdMaps),
    /// As many as the container needs, of those that no other container has.
    Auto(AutoIdMaps),
}

/// Ids of the host that containers may have, as first id and count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRanges {
    /// Users.
    pub uids: Vec<(u32, u32)>,
    /// Groups.
    pub gids: Vec<(u32, u32)>,
}

/// How the ids of a container are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoIdMaps {
    /// The user whose ranges in `/etc/subuid` and `/etc/subgid` the ids are taken from. `None` is the [default of the
    /// store](AutoIdDefaults); in a user namespace it is the namespace itself, without its root.
    pub user: Option<String>,
    /// The ranges to take from instead.
    pub ranges: Option<HostRanges>,
    /// How many ids the container gets, from 0 on. `None` is one more than the highest id in the image's `/etc/passwd`
    /// and `/etc/group`, and at least `min_size`.
    pub size: Option<u32>,
    /// How many ids it gets at least, if `size` is not given. `None` is the [default of the store](AutoIdDefaults).
    pub min_size: Option<u32>,
    /// How many ids it may need; more are refused. Does not count for `size`. `None` is the default of the store.
    pub max_size: Option<u32>,
    /// A file in place of the image's `/etc/passwd`.
    pub passwd: Option<PathBuf>,
    /// A file in place of the image's `/etc/group`.
    pub group: Option<PathBuf>,
    /// Maps of the caller's own. The ids on either side are not used for the chosen ones.
    pub additional: IdMaps,
}

/// What counts for [`AutoIdMaps`] that do not say: see [`StoreOptions::auto_id_defaults`](super::StoreOptions::auto_id_defaults).
///
/// # Examples
///
/// ```
/// use layerstore::{AutoIdDefaults, StoreOptions};
///
/// let options = StoreOptions::at("/var/lib/demo")
///     .auto_id_defaults(AutoIdDefaults { user: Some("demo".into()), ..AutoIdDefaults::default() });
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoIdDefaults {
    /// The user whose ranges ids are taken from; `None` is the user `containers`.
    pub user: Option<String>,
    /// The least number of ids; `None` is 1024.
    pub min_size: Option<u32>,
    /// The greatest number; `None` is 65536.
    pub max_size: Option<u32>,
}

impl AutoIdDefaults {
    /// The least and the greatest number of ids.
    pub(super) fn limits(&self) -> (u32, u32) {
        (self.min_size.unwrap_or(1024), self.max_size.unwrap_or(65536))
    }
}

/// Whose ranges a container gets if nobody is named.
const DEFAULT_USER: &str = "containers";

/// The id that stands for nobody. No image needs a range that reaches so far for its sake.
const NOBODY: u32 = 65_534;

/// The most that is read of a `/etc/passwd` or `/etc/group`.
const ACCOUNTS_LIMIT: u64 = 16 << 20;

/// How many ids a container gets, and from where: all that need not be known under the write lock.
#[derive(Debug)]
pub(super) struct Wanted {
    size: u64,
    user: String,
    uids: IdSet,
    gids: IdSet,
    additional: IdMaps,
}

impl Store {
    /// Finds out what a container with chosen ids needs.
    pub(super) fn wanted_ids(&self, auto: &AutoIdMaps, image: Option<&ImageId>) -> Result<Wanted, Error> {
        let highest = || self.highest_id(auto, image);
        Wanted::new(auto, &self.options().auto_ids, highest)
    }

    /// The highest id that the accounts of an image name; `None` if they name none.
    fn highest_id(&self, auto: &AutoIdMaps, image: Option<&ImageId>) -> Result<Option<u32>, Error> {
        let txn = self.begin_read()?;
        let top = match image {
            None => None,
            Some(image) => {
                let missing = || LookupError::NotFound { kind: "image", key: image.to_string() };
                txn.image(image.as_str())?.ok_or_else(missing)?.top_layer
            }
        };
        let read = |file: &Option<PathBuf>, inside: &str| match (file, &top) {
            (Some(path), _) => File::open(path)
                .and_then(read_limited)
                .map(Some)
                .map_err(|source| Error::Io { action: "read", path: path.clone(), source }),
            (None, Some(top)) => self.file_of_layers(&txn, top, inside.as_bytes()),
            (None, None) => Ok(None),
        };
        let passwd = read(&auto.passwd, "etc/passwd")?.unwrap_or_default();
        let group = read(&auto.group, "etc/group")?.unwrap_or_default();
        Ok(ids_in(&passwd, &[2, 3]).chain(ids_in(&group, &[2])).max())
    }

    /// The beginning of the regular file that a mount of the layers would show at `path`; `None` if there is none.
    fn file_of_layers(&self, txn: &View<'_>, top: &str, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        txn.verify_chain(top)?;
        for layer in txn.chain(top)? {
            let mut path = path.to_vec();
            if let LayerContent::Sealed(tree) = &layer.content {
                let manifest = txn.manifest(&TreeDigest(*tree))?;
                match manifest.get(&path).map(|entry| &entry.kind) {
                    Some(Kind::File { .. }) => {}
                    Some(Kind::HardLink { target }) => path.clone_from(target),
                    Some(_) => return Ok(None),
                    None if layer::hides_below(&manifest, &path) => return Ok(None),
                    None => continue,
                }
            }
            let directory = txn.directory(&layer)?;
            let root = directory.open(&layer.id)?;
            match beneath::open_file_beneath(root.as_fd(), &path) {
                // Whoever writes to it may have put a whiteout there, a pipe, or a device that never ends.
                Err(error) if beneath::is_no_file(&error) => return Ok(None),
                // Of a layer that is written to nothing else is known.
                Err(_) if !matches!(layer.content, LayerContent::Sealed(_)) => continue,
                opened => {
                    let failed = |source| Error::Io { action: "read", path: directory.path(), source };
                    return opened.and_then(|file| read_limited(file.into())).map(Some).map_err(failed);
                }
            }
        }
        Ok(None)
    }
}

fn read_limited(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, ACCOUNTS_LIMIT), &mut bytes)?;
    Ok(bytes)
}

/// The ids in these fields of lines such as `name:x:1000:1000:...`. Nobody, and lines that are broken, do not count.
fn ids_in<'t>(text: &'t [u8], fields: &'t [usize]) -> impl Iterator<Item = u32> + 't {
    text.split(|byte| *byte == b'\n').flat_map(move |line| {
        // No more than is looked at: a line may be nothing but colons.
        let parts: Vec<&[u8]> = line.split(|byte| *byte == b':').take(4).collect();
        let nobody = matches!(parts.first(), Some(&(b"nobody" | b"nogroup")));
        fields.iter().filter_map(move |field| {
            let id = std::str::from_utf8(parts.get(*field)?).ok()?.trim().parse().ok()?;
            (!nobody && id != NOBODY && id != u32::MAX).then_some(id)
        })
    })
}

/// The ids that containers may have, and whose they are.
fn available(user: Option<&str>, default: Option<&str>) -> Result<(String, HostRanges), Error> {
    if user.is_none() && userns::in_user_namespace() {
        let failed = |source| Error::Io { action: "read", path: "/proc/self/uid_map".into(), source };
        let maps = userns::own_maps().map_err(failed)?;
        let ids = |map: &[IdExtent]| {
            let ids = IdSet::new(map.iter().map(|extent| (extent.inside, extent.count)));
            let pairs = ids.subtract(&IdSet::first_ids(1)).zip(&IdSet::first_ids(u64::MAX));
            pairs.into_iter().map(|(first, _, count)| (first, count)).collect()
        };
        let ranges = HostRanges { uids: ids(&maps.uids), gids: ids(&maps.gids) };
        return Ok(("this user namespace".to_owned(), ranges));
    }
    let user = user.or(default).unwrap_or(DEFAULT_USER);
    let failed = |source| Error::Io { action: "read", path: "/etc/subuid".into(), source };
    let [uids, gids] = userns::given_to(user).map_err(failed)?;
    Ok((format!("the user {user}"), HostRanges { uids, gids }))
}

impl StoreOptions {
    /// Whether a container without an image could have these ids, if no other container had any.
    pub(super) fn check_ids(&self, ids: &IdMapping) -> Result<(), Error> {
        let maps = match ids {
            IdMapping::Host => return Ok(()),
            IdMapping::Maps(maps) => maps.check().map(|()| maps.clone())?,
            IdMapping::Auto(auto) => Wanted::new(auto, &self.auto_ids, || Ok(None))?.choose(&[])?,
        };
        match maps.to_host(0, 0) {
            Some((uid, gid)) if !privileges::may_give_to(uid, gid) => Err(ids_not_ours(uid, gid)),
            _ => Ok(()),
        }
    }
}

/// Says that files cannot be given to these ids.
pub(super) fn ids_not_ours(uid: u32, gid: u32) -> Error {
    CreateError::IdsNotOurs { uid, gid, in_namespace: userns::in_user_namespace() }.into()
}

impl Wanted {
    /// What a container needs whose accounts have this highest id.
    fn new(
        auto: &AutoIdMaps,
        defaults: &AutoIdDefaults,
        highest: impl FnOnce() -> Result<Option<u32>, Error>,
    ) -> Result<Self, Error> {
        let (user, ranges) = match &auto.ranges {
            Some(ranges) => ("the caller".to_owned(), ranges.clone()),
            None => available(auto.user.as_deref(), defaults.user.as_deref())?,
        };
        let (least, most) = defaults.limits();
        let (least, most) = (auto.min_size.unwrap_or(least), auto.max_size.unwrap_or(most));
        let size = match auto.size {
            Some(size) => u64::from(size),
            None => {
                let needed = highest()?.map_or(0, |id| u64::from(id).saturating_add(1));
                let size = needed.max(least.into());
                if size > u64::from(most) {
                    return Err(CreateError::TooManyIds { needed: size, limit: most.into() }.into());
                }
                size
            }
        };
        let (uids, gids) = (IdSet::new(ranges.uids), IdSet::new(ranges.gids));
        Ok(Wanted { size, user, uids, gids, additional: auto.additional.clone() })
    }

    /// Chooses ids that none of `containers` has.
    pub(super) fn choose(&self, containers: &[ContainerRecord]) -> Result<IdMaps, Error> {
        let used = |map: fn(&ContainerRecord) -> &[IdRange]| {
            let ranges = containers.iter().flat_map(map);
            IdSet::new(ranges.map(|range| (range.host, range.length)))
        };
        let uids =
            self.choose_of("user", &self.uids, &used(|record| &record.uid_map), &self.additional.uids)?;
        let gids =
            self.choose_of("group", &self.gids, &used(|record| &record.gid_map), &self.additional.gids)?;
        let maps = IdMaps { uids, gids };
        maps.check()?;
        Ok(maps)
    }

    /// Whether none of `containers` has one of the ids that were chosen.
    pub(super) fn are_free(&self, maps: &IdMaps, containers: &[ContainerRecord]) -> bool {
        let free = |map: &[IdExtent], additional: &[IdExtent], used: fn(&ContainerRecord) -> &[IdRange]| {
            let ids = |map: &[IdExtent]| IdSet::new(map.iter().map(|extent| (extent.outside, extent.count)));
            let chosen = ids(map).subtract(&ids(additional));
            let used = containers.iter().flat_map(used).map(|range| (range.host, range.length));
            chosen.subtract(&IdSet::new(used)) == chosen
        };
        free(&maps.uids, &self.additional.uids, |record| &record.uid_map)
            && free(&maps.gids, &self.additional.gids, |record| &record.gid_map)
    }

    fn choose_of(
        &self,
        kind: &'static str,
        available: &IdSet,
        used: &IdSet,
        additional: &[IdExtent],
    ) -> Result<Vec<IdExtent>, CreateError> {
        let outside = IdSet::new(additional.iter().map(|extent| (extent.outside, extent.count)));
        let inside = IdSet::new(additional.iter().map(|extent| (extent.inside, extent.count)));
        let wanted = IdSet::first_ids(self.size).subtract(&inside);
        let free = available.subtract(&used.union(&outside));
        let chosen = free.first(wanted.size()).ok_or_else(|| CreateError::TooFewIds {
            kind,
            needed: wanted.size(),
            given: available.size(),
            free: free.size(),
            user: self.user.clone(),
        })?;
        let pairs = wanted.zip(&chosen).into_iter();
        let mut map: Vec<_> =
            pairs.map(|(inside, outside, count)| IdExtent { inside, outside, count }).collect();
        map.extend_from_slice(additional);
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(size: u64, ranges: &[(u32, u32)], additional: &str) -> Wanted {
        let ids = || IdSet::new(ranges.iter().copied());
        Wanted {
            size,
            user: "the user test".to_owned(),
            uids: ids(),
            gids: ids(),
            additional: IdMaps::both(extents(additional)),
        }
    }

    fn extents(text: &str) -> Vec<IdExtent> {
        text.split_whitespace().map(|extent| extent.parse().unwrap()).collect()
    }

    fn using(text: &str) -> ContainerRecord {
        let map = crate::image::id_ranges(&extents(text));
        ContainerRecord { uid_map: map.clone(), gid_map: map, ..ContainerRecord::default() }
    }

    #[test]
    fn ids_are_chosen_around_those_in_use() {
        for (size, available, used, additional, chosen) in [
            (10, &[(100, 50)][..], "", "", "0:100:10"),
            (10, &[(100, 50)], "0:100:10", "", "0:110:10"),
            (10, &[(100, 50)], "0:105:10", "", "0:115:10"),
            // Fragmented: one piece is not to be had.
            (40, &[(100, 50)], "0:120:5", "", "0:100:20 20:125:20"),
            (12, &[(100, 10), (200, 10)], "", "", "0:100:10 10:200:2"),
            // The caller's own maps are left alone, on either side.
            (10, &[(100, 50)], "", "5:7:1", "0:100:5 6:105:4 5:7:1"),
            (10, &[(100, 50)], "", "0:100:1", "1:101:9 0:100:1"),
            (10, &[(100, 50)], "", "50:105:20", "0:125:10 50:105:20"),
        ] {
            let maps = wanted(size, available, additional).choose(&[using(used)]).unwrap();
            assert_eq!(maps, IdMaps::both(extents(chosen)), "{size} of {available:?} without {used:?}");
        }
    }

    #[test]
    fn too_few_ids_are_an_error() {
        let error = wanted(51, &[(100, 50)], "").choose(&[]).unwrap_err();
        assert!(
            matches!(error, Error::Create(CreateError::TooFewIds { needed: 51, free: 50, .. })),
            "{error}"
        );
        let error = wanted(45, &[(100, 50)], "").choose(&[using("0:100:3"), using("0:110:3")]).unwrap_err();
        assert!(matches!(error, Error::Create(CreateError::TooFewIds { free: 44, .. })), "{error}");
        // Two maps of one id: what the caller gives must fit together.
        assert!(matches!(wanted(5, &[(100, 50)], "9:5:2 10:9:1").choose(&[]), Err(Error::Value(_))));
        assert!(matches!(wanted(0, &[(100, 50)], "").choose(&[]), Err(Error::Value(_))));
    }

    #[test]
    fn accounts_say_how_many_ids_an_image_needs() {
        let highest = |passwd: &str, group: &str| {
            ids_in(passwd.as_bytes(), &[2, 3]).chain(ids_in(group.as_bytes(), &[2])).max()
        };
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:40::/:/bin/false\n";
        assert_eq!(highest(passwd, ""), Some(40));
        assert_eq!(highest(passwd, "adm:x:4:\nbig:x:5000:root,www"), Some(5000));
        assert_eq!(highest("nobody:x:65534:65534::/:\nnone:x:65534:7::", "nogroup:x:99999:\n"), Some(7));
        assert_eq!(
            highest("broken\nx:y\na:b:c:d\n:::\n\u{e4}:x:4294967295:1\n9:9:-1:99999999999", ""),
            Some(1)
        );
        assert_eq!(highest("", "\n\n#comment\n"), None);
    }
}
