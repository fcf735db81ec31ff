//! What to do about an error, as far as it matters who asks.

use std::borrow::Cow;

use crate::error::Error;
use crate::sys::{privileges, userns};

const OF_MODES: &str = "the mode of something in a layer may keep its owner out: run this in a user namespace (`layerstore unshare`, or any command without --no-unshare), where none does";
const OF_OWNERS: &str = "it may belong to an owner that is not mapped here: run this as the user and in the user namespace that filled the \
                         store, or as root outside of it";
const OF_OTHERS: &str = "no mode is why: a security module (SELinux, AppArmor), an attribute of the file or the server of a network filesystem \
                         may refuse it; the kernel's log may say which";

impl Error {
    /// What to do about it, where the message does not say so already.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self.limit().is_none() && self.is_denied_in_layer() {
            true => Some(Cow::Borrowed(way_past_refusal(true))),
            false => self.hint_for_all(),
        }
    }
}

/// What this process can do about something of a layer that it may not read, `by_mode` if that may be for a mode or an owner.
pub(crate) fn way_past_refusal(by_mode: bool) -> &'static str {
    way_past(by_mode, privileges::effective_user() == 0, userns::in_user_namespace())
}

fn way_past(by_mode: bool, is_root: bool, in_namespace: bool) -> &'static str {
    match (by_mode, in_namespace) {
        (true, true) => OF_OWNERS,
        (true, false) if !is_root => OF_MODES,
        _ => OF_OTHERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_is_sent_where_it_is_not() {
        for (by_mode, is_root, in_namespace, way) in [
            (true, false, false, OF_MODES),
            (true, true, true, OF_OWNERS),
            (true, false, true, OF_OWNERS),
            (true, true, false, OF_OTHERS),
            (false, false, false, OF_OTHERS),
            (false, true, true, OF_OTHERS),
        ] {
            assert_eq!(way_past(by_mode, is_root, in_namespace), way, "{by_mode} {is_root} {in_namespace}");
        }
    }
}
