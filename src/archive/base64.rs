//! Bytes as text (RFC 4648, section 4).

use super::number::Reason;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const MALFORMED: Reason = "it is no base64";

/// Without padding, as libarchive writes it.
pub(super) fn encoded_bare(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        // What is missing of three bytes is zero.
        let three = [0, 1, 2].map(|at| chunk.get(at).copied().unwrap_or_default());
        let group = three.into_iter().fold(0u32, |group, byte| group << 8 | u32::from(byte));
        let digits = [18, 12, 6, 0].map(|shift| (group >> shift) & 63);
        let digits = digits.iter().take(chunk.len().saturating_add(1));
        out.extend(digits.filter_map(|&digit| DIGITS.get(usize::try_from(digit).ok()?)));
    }
    out
}

/// With padding, as Go writes it.
pub(crate) fn encoded(bytes: &[u8]) -> String {
    let mut out = encoded_bare(bytes);
    out.resize(out.len().next_multiple_of(4), b'=');
    out.into_iter().map(char::from).collect()
}

/// Reads both forms.
pub(crate) fn decoded(text: &[u8]) -> Result<Vec<u8>, Reason> {
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last.saturating_add(1));
    let (digits, padding) = text.split_at_checked(end).ok_or(MALFORMED)?;
    if padding.len() > 2 {
        return Err(MALFORMED);
    }
    let mut out = Vec::with_capacity(digits.len().div_ceil(4).saturating_mul(3));
    for chunk in digits.chunks(4) {
        if chunk.len() == 1 {
            return Err(MALFORMED);
        }
        let mut group = 0u32;
        // What is missing of four digits is zero.
        for at in 0..4 {
            let value = chunk.get(at).map_or(Some(0), |&digit| value_of(digit)).ok_or(MALFORMED)?;
            group = group << 6 | u32::from(value);
        }
        let [third, second, first, _] = group.to_le_bytes();
        out.extend([first, second, third].iter().take(chunk.len().saturating_sub(1)));
    }
    Ok(out)
}

fn value_of(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit.wrapping_sub(b'A'),
        b'a'..=b'z' => digit.wrapping_sub(b'a').wrapping_add(26),
        b'0'..=b'9' => digit.wrapping_sub(b'0').wrapping_add(52),
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(encoded(bytes.as_bytes()), text);
            assert_eq!(decoded(text.as_bytes()), Ok(bytes.as_bytes().to_vec()));
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decoded(encoded(&bytes).as_bytes()), Ok(bytes.clone()));
            prop_assert_eq!(decoded(&encoded_bare(&bytes)), Ok(bytes));
        }
    }
}
