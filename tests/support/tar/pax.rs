//! The records of extended headers.

/// Appends `<length> <key>=<value>\n`, where the length counts its own digits.
pub fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    // Its digits make it longer, and may thereby become more.
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Some records.
pub fn pax_records(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value) in pairs {
        pax_record(&mut records, key.as_bytes(), value.as_bytes());
    }
    records
}

/// Seconds with a fraction. Before 1970 the sign belongs to the whole number: -1 s and 0.75 s are `-0.25`.
pub(super) fn time(seconds: i64, nanoseconds: u32) -> String {
    if seconds >= 0 || nanoseconds == 0 {
        return format!("{seconds}.{nanoseconds:09}");
    }
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
}
