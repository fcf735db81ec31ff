//! Numbers and times in tar headers.

use crate::types::Timestamp;

/// Why a number is refused; the caller adds whose it is.
pub(super) type Reason = &'static str;

const MALFORMED: Reason = "it is malformed";
const TOO_LARGE: Reason = "it is out of range";

/// Reads a numeric header field: octal digits, or base-256 if the top bit of the first byte is set (GNU).
///
/// Octal digits may have spaces before them and end with a space, a NUL or the field. A blank field is 0, but only if it
/// is blank to its end: GNU tar skips a NUL before a number, and Go all of them.
pub(super) fn field(bytes: &[u8]) -> Result<i128, Reason> {
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return base256(bytes);
    }
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = without_spaces(bytes.get(..end).unwrap_or_default());
    if text.is_empty() {
        let is_blank = bytes.iter().all(|byte| matches!(byte, 0 | b' '));
        return if is_blank { Ok(0) } else { Err(MALFORMED) };
    }
    text.iter().try_fold(0i128, |value, &byte| match byte {
        // A field has at most 12 digits of three bits.
        b'0'..=b'7' => Ok(value << 3 | i128::from(byte & 7)),
        _ => Err(MALFORMED),
    })
}

fn without_spaces(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| byte != b' ').unwrap_or(text.len());
    let end = text.iter().rposition(|&byte| byte != b' ').map_or(start, |last| last.saturating_add(1));
    text.get(start..end).unwrap_or_default()
}

/// Two's complement over the whole field, highest byte first, whose top bit only marks the form.
fn base256(bytes: &[u8]) -> Result<i128, Reason> {
    let (&first, rest) = bytes.split_first().ok_or(MALFORMED)?;
    // The sign is the bit below the mark: shift the mark out and the sign back down.
    let top = (i8::from_le_bytes([first]) << 1) >> 1;
    if rest.len() > 14 {
        return Err(TOO_LARGE);
    }
    Ok(rest.iter().fold(i128::from(top), |value, &byte| (value << 8) | i128::from(byte)))
}

/// Reads a decimal number of a PAX record: digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Result<u64, Reason> {
    if text.is_empty() {
        return Err(MALFORMED);
    }
    text.iter().try_fold(0u64, |value, &byte| {
        if !byte.is_ascii_digit() {
            return Err(MALFORMED);
        }
        value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(byte.saturating_sub(b'0'))))
            .ok_or(TOO_LARGE)
    })
}

/// Reads a time of a PAX record: seconds, perhaps negative, perhaps with a fraction. What is finer than a
/// nanosecond is rounded towards the past.
pub(super) fn time(text: &[u8]) -> Result<Timestamp, Reason> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |&byte| byte == b'.');
    let seconds = i128::from(decimal(halves.next().unwrap_or_default())?);
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0i128, |value, byte| {
        value.saturating_mul(10).saturating_add(i128::from(byte.saturating_sub(b'0')))
    });
    let finer = fraction.get(9..).is_some_and(|rest| rest.iter().any(|&byte| byte != b'0'));
    // Of 64 bits of seconds, 128 hold all nanoseconds.
    let magnitude = seconds.saturating_mul(NANOSECONDS).saturating_add(nanoseconds);
    let past = || magnitude.saturating_neg().saturating_sub(i128::from(finer));
    let total = if negative { past() } else { magnitude };
    let seconds = i64::try_from(total.div_euclid(NANOSECONDS)).map_err(|_| TOO_LARGE)?;
    let nanoseconds = u32::try_from(total.rem_euclid(NANOSECONDS)).map_err(|_| TOO_LARGE)?;
    Ok(Timestamp { seconds, nanoseconds })
}

const NANOSECONDS: i128 = 1_000_000_000;

/// The text of a time in a PAX record, as short as it can be.
pub(super) fn time_text(time: Timestamp) -> String {
    let total =
        i128::from(time.seconds).saturating_mul(NANOSECONDS).saturating_add(i128::from(time.nanoseconds));
    let sign = if total < 0 { "-" } else { "" };
    let (seconds, nanoseconds) = (total.abs() / NANOSECONDS, total.abs() % NANOSECONDS);
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

/// A length: what no file can have is refused here, so that sums of offsets and padding stay within 64 bits.
pub(super) fn size(value: i128) -> Result<u64, Reason> {
    match i64::try_from(value) {
        Ok(value) => u64::try_from(value).map_err(|_| "it is negative"),
        Err(_) => Err(TOO_LARGE),
    }
}

/// A user or group id. The highest number is no id: to the kernel it means "leave as it is".
pub(super) fn id(value: i128) -> Result<u32, Reason> {
    match u32::try_from(value) {
        Ok(u32::MAX) => Err("the kernel has no such id"),
        Ok(id) => Ok(id),
        Err(_) => Err(TOO_LARGE),
    }
}

/// A device number.
pub(super) fn device(value: i128) -> Result<u32, Reason> {
    u32::try_from(value).map_err(|_| TOO_LARGE)
}

/// Whole seconds of a header field.
pub(super) fn seconds(value: i128) -> Result<Timestamp, Reason> {
    let seconds = i64::try_from(value).map_err(|_| TOO_LARGE)?;
    Ok(Timestamp { seconds, nanoseconds: 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn octal_fields() {
        for (bytes, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"77777777777", 0o77777777777),
            (b"777777777777", 0o777777777777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"644\0junk", 0o644),
            (b"\0 \0 \0", 0),
        ] {
            assert_eq!(field(bytes), Ok(value), "{bytes:?}");
        }
        for bad in [
            &b"0000648\0"[..],
            b"-1\0",
            b"6 44\0",
            b"0x10\0",
            b"+10\0",
            b"\x00000644",
            b" \x00644\0",
            b"\0\x80\0\0\0\x02",
            b"644\t\0",
        ] {
            assert!(field(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn base_256_fields() {
        assert_eq!(field(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        assert_eq!(field(&[0xff; 12]), Ok(-1));
        assert_eq!(field(&[0xff; 8]), Ok(-1));
        assert_eq!(field(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]), Ok(-256));
        assert_eq!(field(&[0xc0, 0, 0, 0, 0, 0, 0, 0]), Ok(-(1 << 62)));
        let above_64_bits = field(&[0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5]).unwrap();
        assert_eq!(above_64_bits, (1 << 72) + 5);
        assert!(size(above_64_bits).is_err());
        assert!(size(-1).is_err());
    }

    #[test]
    fn ids_the_kernel_has() {
        assert_eq!(id(1 << 31), Ok(1 << 31));
        for bad in [-1, i128::from(u32::MAX), 1 << 32] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn decimals() {
        assert_eq!(decimal(b"007"), Ok(7));
        assert_eq!(decimal(b"18446744073709551615"), Ok(u64::MAX));
        for bad in [&b""[..], b"18446744073709551616", b"-1", b"+1", b" 1", b"1\0", b"1e3"] {
            assert!(decimal(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1350244992.023960108", 1350244992, 23960108),
            ("1.5", 1, 500_000_000),
            ("1.", 1, 0),
            ("-1", -1, 0),
            ("-1.5", -2, 500_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("1.0000000019", 1, 1),
            ("-1.0000000001", -2, 999_999_999),
            ("9223372036854775807.999999999", i64::MAX, 999_999_999),
            ("-9223372036854775808", i64::MIN, 0),
        ] {
            assert_eq!(time(text.as_bytes()), Ok(Timestamp { seconds, nanoseconds }), "{text}");
        }
        for bad in
            ["", "-", ".5", "1.5.1", "--1", "1,5", "nan", "9223372036854775808", "-9223372036854775809"]
        {
            assert!(time(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn times_come_back(seconds: i64, nanoseconds in 0u32..1_000_000_000) {
            let given = Timestamp { seconds, nanoseconds };
            prop_assert_eq!(time(time_text(given).as_bytes()), Ok(given));
        }
    }
}
