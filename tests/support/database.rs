//! Changing a store's database past everything that keeps it right.

use std::path::Path;

use layerstore_schema::header::{HEADER_KEY, Header};
use layerstore_schema::table;
use redb::{Builder, ConcurrencyMode, ReadableTable, WriteTransaction};

/// Runs `change` in a write transaction of the store at `root`.
pub fn edit(root: &Path, change: impl FnOnce(&WriteTransaction)) {
    let database = Builder::new()
        .set_concurrency_mode(ConcurrencyMode::MultiWriter)
        .open(root.join("store.redb"))
        .unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

/// Another boot.
const EARLIER: &str = "11111111-1111-4111-8111-111111111111";

/// Makes the store look as after a reboot: what is not synced was written in another boot than this one, and so were
/// transient containers.
pub fn reboot(root: &Path) {
    edit(root, |txn| {
        let mut rows = txn.open_table(table::UNSYNCED).unwrap();
        let numbers: Vec<u64> = rows.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
        for number in numbers {
            rows.insert(number, EARLIER).unwrap();
        }
        let mut meta = txn.open_table(table::META).unwrap();
        let note = meta.get(table::TRANSIENT_KEY).unwrap().map(|note| note.value().to_vec());
        if let Some(mut note) = note {
            note.splice(..EARLIER.len(), EARLIER.bytes());
            meta.insert(table::TRANSIENT_KEY, note.as_slice()).unwrap();
        }
    });
}

/// Changes the header.
pub fn edit_header(root: &Path, change: impl FnOnce(&mut Header)) {
    edit(root, |txn| {
        let mut meta = txn.open_table(table::META).unwrap();
        let mut header = Header::decode(meta.get(HEADER_KEY).unwrap().unwrap().value()).unwrap();
        change(&mut header);
        meta.insert(HEADER_KEY, header.encode().as_slice()).unwrap();
    });
}
