//! What is mounted where: a thing's layers, as directories and options.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::{self, DiffName, Layout, Subdirectory, XattrNamespace};
use crate::error::{Error, LookupError, MountError};
use crate::image;
use crate::overlay::{
    self, BY_PROGRAM, IdMapSupport, Masked, MountPlan, MountRequest, Probe, Upper, XattrClass,
};
use crate::store::part::{Directory, Part};
use crate::store::view::View;
use crate::store::{Store, ThingId};
use crate::sys::{machine, moment};

use super::marks::{self, Unsealed};
use super::{MountOptions, absolute, remove_quietly};

/// Why no ids are mapped.
pub(in crate::store) const MASKED: &str = MountError::MASKED;

/// Who makes a mount that is planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mounter {
    /// This store, which makes the workdir when it does.
    Store,
    /// The caller, for whom everything has to be there, as directories.
    Caller,
}

/// A mount that can be made, if everything still is as it was when it was planned.
pub(super) struct Planned<'s> {
    pub(super) layer: LayerRecord,
    /// What the layer and all below it had as their contents.
    pub(super) contents: Vec<LayerContent>,
    /// The directory that is going to be written to.
    pub(super) written: Option<Directory<'s>>,
    /// The layers whose directories are, or were, written to.
    pub(super) unsealed: Vec<Unsealed<'s>>,
    /// The workdir, if the mount leaves out syncs.
    pub(super) volatile: Option<PathBuf>,
    /// Whether the layer may be written to, now or once it is unsealed, and the mount is not only for reading.
    pub(super) is_for_writing: bool,
    pub(super) plan: MountPlan,
}

/// What the layers of a chain have.
pub(super) fn contents(chain: &[LayerRecord]) -> Vec<LayerContent> {
    chain.iter().map(|layer| layer.content.clone()).collect()
}

/// The class of the attributes that overlayfs reads in a store's layers.
pub(super) fn xattr_class(layout: &Layout) -> XattrClass {
    match layout.xattrs() {
        XattrNamespace::Trusted => XattrClass::Trusted,
        XattrNamespace::User => XattrClass::User,
    }
}

/// Whether modes and owners of a layer stand in an attribute.
fn is_masked(root: BorrowedFd<'_>, directory: &Directory<'_>) -> Result<bool, Error> {
    let mask = disk::mask_of(root, directory.layout().xattrs());
    let failed = |source| Error::Io { action: "examine", path: directory.path(), source };
    Ok(mask.map_err(failed)?.is_some())
}

/// Visits the directories that a mount of these layers, topmost first, shows.
pub(super) fn visit_lowers<'s>(
    txn: &View<'s>,
    layers: &[LayerRecord],
    mut visit: impl FnMut(&Directory<'s>, BorrowedFd<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    for lower in layers {
        let directory = txn.directory(lower)?;
        let opened = directory.open(&lower.id)?;
        visit(&directory, opened.as_fd())?;
        // The kernel does not look whether a root is opaque.
        if disk::is_opaque(opened.as_fd(), directory.layout().xattrs())? {
            break;
        }
    }
    Ok(())
}

impl Store {
    /// Plans a mount. A layer that is sealed is unsealed if that is wanted.
    pub(super) fn plan_mount(&self, what: &ThingId, options: &MountOptions) -> Result<Planned<'_>, Error> {
        self.plan_mount_by(Mounter::Store, what, options)
    }

    /// As [`plan_mount`](Self::plan_mount), for a caller who mounts by himself: with the directories of the layers in any case, and a
    /// workdir for what is to be written to.
    pub(super) fn plan_mount_of_directories(
        &self,
        what: &ThingId,
        options: &MountOptions,
    ) -> Result<Planned<'_>, Error> {
        self.plan_mount_by(Mounter::Caller, what, options)
    }

    fn plan_mount_by(
        &self,
        mounter: Mounter,
        what: &ThingId,
        options: &MountOptions,
    ) -> Result<Planned<'_>, Error> {
        let mut txn = self.begin_read()?;
        let mut layer = self.layer_of(&txn, what)?;
        let mut view = options.read_only || layer.read_only || matches!(what, ThingId::Image(_));
        let unseal = !view && (options.unseal || matches!(what, ThingId::Container(_)));
        if unseal
            && matches!(layer.content, LayerContent::Sealed(_))
            && !overlay::is_mounted(&self.mount_point(&layer.id)?)?
        {
            drop(txn);
            self.layer_home(&layer.id)?.unseal(&layer.id, options.change_under_others)?;
            txn = self.begin_read()?;
            layer = self.layer_of(&txn, what)?;
        }
        // What is in a store that is only read is never written to.
        view |= txn.home(Owner::Layer, &layer.id)?.is_some_and(Part::is_other);
        let chain = txn.chain(&layer.id)?;
        let mut request = self.mount_request((&txn, mounter), &chain, view, options)?;
        let mut probe = self.probe_kernel()?;
        // Who gives the maps with each mount knows what a program does with them. No map shows owners that stand in an attribute, and
        // a copy has them on the disk.
        let maps_by_mounts = self.maps_by_mounts(&probe) && !request.masked.any;
        let copies = options.id_maps.is_none() && !maps_by_mounts;
        // A mapped copy is a directory of its own.
        let with_images = mounter == Mounter::Store && self.options().use_composefs;
        if with_images && (request.id_map.is_none() || maps_by_mounts) {
            if request.prefer_program {
                return Err(MountError::Composefs { reason: BY_PROGRAM }.into());
            }
            self.use_image((&txn, &probe), &chain, &mut request)?;
        }
        let written = match layer.content {
            LayerContent::Writable(_) if !view => Some(txn.directory(&layer)?),
            _ => None,
        };
        let unsealed = marks::unsealed(&txn, &chain)?;
        drop(txn);
        if request.masked.upper && request.id_map.is_some() || request.masked.any && options.id_maps.is_some()
        {
            return Err(MountError::IdMap { reason: MASKED }.into());
        }
        if let Some(maps) = request.id_map.take_if(|_| copies) {
            let copy = self.mapped_copy(&layer, &maps)?;
            request.lowers = copy.into_iter().map(|path| absolute(&path)).collect::<Result<_, _>>()?;
            request.masked.any = false;
            request.prefer_program = self.options().prefer_mount_program;
        }
        if request.prefer_program || !probe.mounts(request.xattrs) {
            probe.program = self.program()?;
        }
        let plan = overlay::plan(&probe, &request);
        let plan = plan.map_err(|error| overlay::explain(error, self.root(), &probe))?;
        if plan.is_by_program() {
            marks::refuse_misread(&self.begin_read()?, &chain)?;
        }
        let is_for_writing = match layer.content {
            LayerContent::Writable(_) => !plan.is_read_only(),
            // It is sealed still as it is mounted.
            LayerContent::Sealed(_) | LayerContent::Additional(_) => unseal && !view,
        };
        let volatile = request.upper.filter(|_| request.volatile).map(|upper| upper.work);
        Ok(Planned { layer, contents: contents(&chain), written, unsealed, volatile, is_for_writing, plan })
    }

    /// Whether mounts show other ids than the layers have. A program could, too; but it would keep the container's ids in
    /// the container's layer, and the kernel keeps the host's.
    fn maps_by_mounts(&self, probe: &Probe) -> bool {
        let options = self.options();
        let by_kernel = probe.overlay && !options.prefer_mount_program;
        by_kernel && options.id_mapped_mounts && probe.id_maps != IdMapSupport::None
    }

    /// How the layers of a chain, topmost first, are mounted.
    fn mount_request(
        &self,
        (txn, mounter): (&View<'_>, Mounter),
        chain: &[LayerRecord],
        view: bool,
        options: &MountOptions,
    ) -> Result<MountRequest, Error> {
        let root = absolute(self.root())?;
        let class = xattr_class(self.layout());
        let empty = absolute(&self.run_layout()?.empty_directory())?;
        let mut request = MountRequest::new(root.join(Subdirectory::Diffs.name()), empty, class);
        request.options.clone_from(&self.options().mount_options);
        let allows_volatile = self.options().volatile;
        if let Some(maps) = &options.id_maps {
            maps.check()?;
        }
        let mut lowers = chain;
        let mut container_volatile = false;
        if let Some((layer, below)) = chain.split_first() {
            txn.verify_chain(&layer.id)?;
            request.context.clone_from(&layer.mount_label);
            if let Some(container) = txn.container_on(&layer.id)? {
                container_volatile = container.volatile;
                request.id_map = image::id_maps(&container);
                request.options.extend(container.mount_options);
                request.context = container.mount_label.or(request.context);
            }
            request.id_map = options.id_maps.clone().or(request.id_map);
            if let LayerContent::Writable(number) = layer.content
                && let Some(home) = txn.home(Owner::Layer, &layer.id)?
                // What was written with ids of its own is shown so in a view too.
                && (!view || request.id_map.is_some())
            {
                lowers = below;
                // The kernel would say that a path is not there, and not whose it is.
                let directory = txn.directory(layer)?;
                let opened = directory.open(&layer.id)?;
                let masked = is_masked(opened.as_fd(), &directory)?;
                request.masked = Masked { any: masked, upper: masked };
                // A mount that cannot be written needs none.
                if !view {
                    home.store().begin_writing()?;
                    moment::pass("workdir to be made");
                    if mounter == Mounter::Caller {
                        self.make_workdir(home.store(), &layer.id, number)?;
                    }
                }
                let work = home.store().layout().entry_path(Subdirectory::Work, DiffName::Entry(number));
                let upper = absolute(&directory.path())?;
                request.upper = Some(Upper { upper, work: absolute(&work)? });
                request.volatile = !view && allows_volatile && (layer.volatile || container_volatile);
            }
        }
        visit_lowers(txn, lowers, |directory, opened| {
            request.lowers.push(absolute(&directory.path())?);
            request.masked.any |= is_masked(opened, directory)?;
            Ok(())
        })?;
        request.prefer_program = self.options().prefer_mount_program || request.masked.any;
        request.read_only = view;
        request.context = options.label.clone().or(request.context).filter(|label| !label.is_empty());
        request.has_labels = request.context.is_some() && machine::has_selinux();
        request.options.extend(options.options.iter().cloned());
        request.options.retain(|option| {
            let volatile = option == "volatile";
            request.volatile |= volatile && allows_volatile && !view && request.upper.is_some();
            !volatile
        });
        Ok(request)
    }

    /// Makes the workdir of a layer that is written to, without the lock under which mounts make theirs.
    fn make_workdir(&self, home: &Store, layer: &str, number: u64) -> Result<(), Error> {
        let work = home.layout().ensure_workdir(number)?;
        // Who removes or seals the layer removes the workdir too, if it was there by then. One that came later is nobody's.
        let now = self.begin_read()?.layer(layer)?;
        if now.as_ref().is_none_or(|now| now.content != LayerContent::Writable(number)) {
            remove_quietly(&work);
        }
        match now {
            Some(_) => Ok(()),
            None => Err(LookupError::NotFound { kind: "layer", key: layer.to_owned() }.into()),
        }
    }
}
