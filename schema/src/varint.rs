//! Unsigned integers in LEB128: seven bits a byte, lowest first. One encoding per number: a
//! trailing zero byte is refused, so that equal values are equal bytes.

use crate::manifest::DecodeError;

/// Appends `value` to `out`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Maps a signed number to an unsigned one with small magnitudes first (zigzag).
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The reverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

/// Takes one number off the front of `input`.
pub(crate) fn take(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(DecodeError::NotCanonical("a number beyond 64 bits"));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            if byte == 0 && shift > 0 {
                return Err(DecodeError::NotCanonical("a number with a trailing zero byte"));
            }
            return Ok(value);
        }
    }
    Err(DecodeError::NotCanonical("a number beyond 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            let mut input = bytes.as_slice();
            assert_eq!(take(&mut input), Ok(value));
            assert!(input.is_empty());
        }
        for value in [0, 1, -1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn a_second_encoding_is_refused() {
        assert!(take(&mut [0x80, 0x00].as_slice()).is_err());
        assert!(take(&mut [0xff; 10].as_slice()).is_err());
        assert_eq!(take(&mut [0x80].as_slice()), Err(DecodeError::Truncated));
    }
}
