//! The keys of `storage.conf`.

/// What a key takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A TOML boolean.
    Flag,
    /// A boolean that is written as text, as older files have it, or as a TOML boolean.
    FlagText,
    /// A whole number, not negative.
    Number,
    /// An octal mode, or `shared` or `private`.
    Mask,
    /// A list of texts.
    List,
    /// A table of texts.
    Map,
}

impl Kind {
    /// For messages.
    pub(super) fn expectation(self) -> &'static str {
        match self {
            Kind::Text => "a string",
            Kind::Flag => "true or false",
            Kind::FlagText => "\"true\" or \"false\"",
            Kind::Number => "a whole number",
            Kind::Mask => "an octal mode such as \"0755\" or 0o755, or \"shared\", or \"private\"",
            Kind::List => "a list of strings",
            Kind::Map => "a table of strings",
        }
    }
}

/// Every key, with its table, and what it takes. The order is that of a report.
pub(super) const KEYS: &[(&str, Kind)] = &[
    ("storage.driver", Kind::Text),
    ("storage.driver_priority", Kind::List),
    ("storage.runroot", Kind::Text),
    ("storage.graphroot", Kind::Text),
    ("storage.rootless_storage_path", Kind::Text),
    ("storage.imagestore", Kind::Text),
    ("storage.transient_store", Kind::Flag),
    ("storage.options.additionalimagestores", Kind::List),
    ("storage.options.additionallayerstores", Kind::List),
    ("storage.options.size", Kind::Text),
    ("storage.options.mount_program", Kind::Text),
    ("storage.options.skip_mount_home", Kind::FlagText),
    ("storage.options.ignore_chown_errors", Kind::FlagText),
    ("storage.options.force_mask", Kind::Mask),
    ("storage.options.mountopt", Kind::Text),
    ("storage.options.root-auto-userns-user", Kind::Text),
    ("storage.options.auto-userns-min-size", Kind::Number),
    ("storage.options.auto-userns-max-size", Kind::Number),
    ("storage.options.disable-volatile", Kind::Flag),
    ("storage.options.pull_options", Kind::Map),
    (super::limits::KEY, Kind::Map),
    ("storage.options.overlay.ignore_chown_errors", Kind::FlagText),
    ("storage.options.overlay.mount_program", Kind::Text),
    ("storage.options.overlay.mountopt", Kind::Text),
    ("storage.options.overlay.size", Kind::Text),
    ("storage.options.overlay.inodes", Kind::Text),
    ("storage.options.overlay.skip_mount_home", Kind::FlagText),
    ("storage.options.overlay.force_mask", Kind::Mask),
    ("storage.options.overlay.use_composefs", Kind::FlagText),
    ("storage.options.overlay.sync", Kind::Text),
    ("storage.options.vfs.ignore_chown_errors", Kind::FlagText),
    ("storage.options.vfs.sync", Kind::Text),
    ("storage.options.btrfs.min_space", Kind::Text),
    ("storage.options.btrfs.size", Kind::Text),
    ("storage.options.zfs.fsname", Kind::Text),
    ("storage.options.zfs.mountopt", Kind::Text),
    ("storage.options.zfs.size", Kind::Text),
];

/// The key with this name, and what it takes.
pub(super) fn find(name: &str) -> Option<(&'static str, Kind)> {
    KEYS.iter().find(|(known, _)| *known == name).copied()
}

/// Whether `name` is a table that holds keys.
pub(super) fn is_table(name: &str) -> bool {
    KEYS.iter().any(|(key, _)| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}
