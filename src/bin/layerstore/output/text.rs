//! Values as people read them.

use std::fmt::Write;

use jiff::Timestamp;

/// How many digits of an id are shown: the library takes a name of as many for what is shown of an id.
const SHORT: usize = 12;

/// The beginning of an id, or all of it.
pub fn short(id: &str, whole: bool) -> &str {
    if whole { id } else { id.get(..SHORT).unwrap_or(id) }
}

/// A number of bytes: `1.2 MB`, in powers of a thousand.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, rounded, so that 999,950 bytes are 1.0 MB.
    let mut divisor = 100u128;
    let mut shown = String::new();
    for unit in UNITS {
        let tenths = u128::from(bytes).saturating_add(divisor / 2).div_euclid(divisor);
        shown = format!("{}.{} {unit}", tenths / 10, tenths % 10);
        if tenths < 10_000 {
            break;
        }
        divisor = divisor.saturating_mul(1000);
    }
    shown
}

/// A count with its noun: `1 layer`, `2 layers`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// How long ago: `3 minutes ago`.
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    const UNITS: [(i64, &str); 6] = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    let seconds = now.as_second().saturating_sub(time.as_second());
    // Clocks differ a little between machines.
    if (-60..1).contains(&seconds) {
        return "just now".to_owned();
    }
    let length = seconds.saturating_abs();
    // Two of a unit, so that 90 minutes are not "1 hour".
    let (number, unit) = UNITS
        .into_iter()
        .find(|(unit, _)| length >= unit.saturating_mul(2))
        .map_or((length, "second"), |(unit, name)| (length.div_euclid(unit), name));
    let span = count(number.unsigned_abs(), unit);
    if seconds < 0 { format!("in {span}") } else { format!("{span} ago") }
}

/// Text from outside on one line, with nothing in it that a terminal obeys or does not show. What is left out stands there as in the
/// names that the library's messages have in quotes.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_seen(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    shown
}

/// Whether a terminal shows it as what it is. Marks are seen although they do not stand alone, so each is looked at behind a letter; what turns the direction of text is not. Of what
/// is seen, Rust escapes quotes and backslashes.
pub fn is_seen(character: char) -> bool {
    matches!(character, ' '..='~') || ['a', character].iter().collect::<String>().escape_debug().count() == 2
}

/// A path on one line, from which its bytes can be told: characters that are not seen, bytes that are no UTF-8, and backslashes
/// are `\xNN`.
pub fn path(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if !is_seen(character) || character == '\\' {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    write!(shown, "\\x{byte:02x}").ok();
                }
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").ok();
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (123_456_789, "123.5 MB"),
            (1_234_567_890_123, "1.2 TB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        let now = Timestamp::from_second(2_000_000_000).unwrap();
        for (seconds, shown) in [
            (0, "just now"),
            (-5, "just now"),
            (1, "1 second ago"),
            (119, "119 seconds ago"),
            (180, "3 minutes ago"),
            (2 * 3600, "2 hours ago"),
            (10 * 86_400, "10 days ago"),
            (400 * 86_400, "13 months ago"),
            (-7200, "in 2 hours"),
        ] {
            let time = Timestamp::from_second(2_000_000_000 - seconds).unwrap();
            assert_eq!(ago(time, now), shown);
        }
        assert_eq!(ago(Timestamp::MIN, Timestamp::MAX), "19998 years ago".replace("19998", &years()));
    }

    fn years() -> String {
        let span = Timestamp::MAX.as_second() - Timestamp::MIN.as_second();
        (span / (365 * 86_400)).to_string()
    }

    #[test]
    fn nothing_in_a_message_is_obeyed_or_unseen() {
        for text in ["a\x1b[2J", "a\nb\t", "\u{85}", "a\u{202e}b\u{200b}", "\0"] {
            assert_eq!(format!("\"{}\"", printable(text)), format!("{text:?}"));
        }
        assert_eq!(printable(r#"it's a "\""#), r#"it's a "\""#);
        assert_eq!(printable("e\u{301}"), "e\u{301}");
    }

    #[test]
    fn no_byte_of_a_path_is_lost() {
        assert_eq!(path("/a b/\u{e9}".as_bytes()), "/a b/\u{e9}");
        assert_eq!(path(b"/a\nb\\x\xff"), "/a\\x0ab\\x5cx\\xff");
        assert_eq!(path("\u{85}".as_bytes()), "\\xc2\\x85");
        // What makes `gpj.exe` of `exe.jpg`, and what makes two names look like one.
        let turning = ['\u{61c}', '\u{200e}', '\u{200f}'].into_iter().chain('\u{202a}'..='\u{202e}');
        for character in turning.chain('\u{2066}'..='\u{2069}').chain(['\u{200b}', '\u{feff}']) {
            let escaped: String =
                character.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            assert_eq!(path(format!("a{character}b").as_bytes()), format!("a{escaped}b"));
        }
        assert_eq!(path("'\u{e9}' e\u{301} \u{5d0}\"".as_bytes()), "'\u{e9}' e\u{301} \u{5d0}\"");
    }

    #[test]
    fn ids_are_short_unless_asked_for() {
        assert_eq!(short("0123456789abcdef", false), "0123456789ab");
        assert_eq!(short("0123456789abcdef", true), "0123456789abcdef");
        assert_eq!(short("web", false), "web");
    }
}
