//! The superblock: 128 bytes at 1024.

use super::{BLOCK, BLOCK_BITS};

const AT: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// The block that the superblock is in has a checksum; inodes have times of their own.
const COMPATIBLE: u32 = 0x1 | 0x2;
/// There are files in chunks.
const INCOMPATIBLE: u32 = 0x4;

/// Writes it over the zeros at its place. Everything else in the first block is written already: it is in the checksum.
pub(super) fn write(image: &mut [u8], blocks: u32, root: u64, inodes: usize, uuid: [u8; 16]) {
    let mut fields = Vec::with_capacity(128);
    fields.extend(MAGIC.to_le_bytes());
    fields.extend([0; 4]);
    fields.extend(COMPATIBLE.to_le_bytes());
    fields.extend([BLOCK_BITS, 0]);
    fields.extend(u16::try_from(root).unwrap_or_default().to_le_bytes());
    fields.extend(u64::try_from(inodes).unwrap_or_default().to_le_bytes());
    // The time of inodes that have none of their own: there are no such inodes.
    fields.extend([0; 12]);
    fields.extend(blocks.to_le_bytes());
    // Inodes and shared attributes are counted from the beginning.
    fields.extend([0; 8]);
    fields.extend(uuid);
    // No name of the volume.
    fields.extend([0; 16]);
    fields.extend(INCOMPATIBLE.to_le_bytes());
    overwrite(image, AT, &fields);
    let sum = checksum(image.get(AT..BLOCK).unwrap_or_default());
    overwrite(image, AT + 4, &sum.to_le_bytes());
}

fn overwrite(image: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in image.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// CRC-32C without the inversion at the end.
fn checksum(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |sum, byte| {
        let sum = sum ^ u32::from(*byte);
        (0..8).fold(sum, |sum, _| (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_crc_32c() {
        // The check value of the CRC catalogues, before the inversion.
        assert_eq!(!super::checksum(b"123456789"), 0xE306_9283);
    }
}
