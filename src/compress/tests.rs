use std::io::{self, ErrorKind, Read, Write};

use super::*;
use crate::error::{CompressError, Limit, LimitError};
use crate::types::Limits;

fn encode(data: &[u8], compression: Compression, level: Option<i32>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression, level).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    Decoder::new(bytes, &Limits::DEFAULT)?.read_to_end(&mut data)?;
    Ok(data)
}

fn bzip2_of(data: &[u8]) -> Vec<u8> {
    let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn xz_of(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that compress, but not to nothing.
fn sample() -> Vec<u8> {
    (0..60_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect()
}

/// Every format with a stream of it.
fn streams(data: &[u8]) -> [(Compression, Vec<u8>); 4] {
    [
        (Compression::Gzip, encode(data, Compression::Gzip, None)),
        (Compression::Zstd, encode(data, Compression::Zstd, None)),
        (Compression::Bzip2, bzip2_of(data)),
        (Compression::Xz, xz_of(data)),
    ]
}

#[test]
fn every_format_is_told_and_read() {
    for data in [Vec::new(), b"x".to_vec(), sample()] {
        for (compression, stream) in streams(&data) {
            assert_eq!(Decoder::new(stream.as_slice(), &Limits::DEFAULT).unwrap().compression(), compression);
            assert_eq!(decode(&stream).unwrap(), data, "{compression:?}");
        }
    }
    assert_eq!(decode(b"").unwrap(), b"");
    assert_eq!(decode(b"BZh1").unwrap(), b"BZh1", "three letters and a digit may be a file name");
    assert_eq!(encode(b"plain", Compression::None, None), b"plain");
}

#[test]
fn a_source_that_gives_single_bytes_is_enough() {
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }
    for (compression, stream) in streams(b"some bytes") {
        let mut data = Vec::new();
        let mut decoder = Decoder::new(Slow(&stream), &Limits::DEFAULT).unwrap();
        decoder.read_to_end(&mut data).unwrap();
        assert_eq!((decoder.compression(), data.as_slice()), (compression, &b"some bytes"[..]));
    }
}

#[test]
fn streams_one_after_the_other_are_one() {
    for (compression, stream) in streams(b"first, ") {
        let (_, second) = streams(b"second").into_iter().find(|(other, _)| *other == compression).unwrap();
        assert_eq!(decode(&[stream, second].concat()).unwrap(), b"first, second", "{compression:?}");
    }
}

#[test]
fn a_stream_cut_anywhere_is_an_error() {
    for (compression, stream) in streams(b"some bytes that are cut") {
        for end in HEAD..stream.len() {
            let error = decode(&stream[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{compression:?} cut at {end}: {error}");
        }
    }
}

#[test]
fn a_damaged_checksum_is_an_error() {
    for (compression, mut stream) in streams(&sample()) {
        let last = stream.len() - if compression == Compression::Gzip { 8 } else { 3 };
        stream[last] ^= 1;
        assert!(decode(&stream).is_err(), "{compression:?}");
    }
}

#[test]
fn zeros_after_gzip_members_are_padding_and_other_bytes_are_not() {
    let member = encode(b"data", Compression::Gzip, None);
    let padded = [member.as_slice(), &[0; 1000]].concat();
    assert_eq!(decode(&padded).unwrap(), b"data");
    assert_eq!(decode(&[padded.as_slice(), &member].concat()).unwrap(), b"datadata");
    let frame = encode(b"data", Compression::Zstd, None);
    for (stream, junk) in
        [(&member, &b"junk, twenty bytes.."[..]), (&padded, b"\n"), (&frame, b"junk, twenty bytes..")]
    {
        let error = decode(&[stream.as_slice(), junk].concat()).unwrap_err().to_string();
        assert!(error.contains("stream has ended, and what stands behind it"), "{error}");
    }
}

/// A source of one byte at a time, which a signal interrupts before each.
struct Interrupted<'a> {
    bytes: &'a [u8],
    is_next: bool,
}

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_next = !self.is_next;
        if self.is_next {
            return Err(ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(1);
        self.bytes.read(&mut buffer[..length])
    }
}

#[test]
fn a_signal_between_members_ends_no_stream() {
    for member in [encode(b"data", Compression::Gzip, None), bzip2_of(b"data")] {
        let stream = member.repeat(3);
        let source = Interrupted { bytes: &stream, is_next: false };
        let mut data = Vec::new();
        Decoder::new(source, &Limits::DEFAULT).unwrap().read_to_end(&mut data).unwrap();
        assert_eq!(data, b"datadatadata");
    }
}

#[test]
fn a_stream_that_was_refused_does_not_end_well() {
    let behind = [encode(b"data", Compression::Gzip, None), b"junk".to_vec()].concat();
    for stream in [behind, bzip2_of(b"x").repeat(1001)] {
        let mut decoder = Decoder::new(stream.as_slice(), &Limits::DEFAULT).unwrap();
        let mut data = Vec::new();
        for _ in 0..3 {
            assert!(decoder.read_to_end(&mut data).is_err());
        }
    }
}

/// Each costs the same time, whatever is in it, and fourteen bytes.
#[test]
fn few_members_of_a_bzip2_stream_are_small() {
    let (empty, small) = (bzip2_of(b""), bzip2_of(b"x"));
    assert_eq!(decode(&small.repeat(1000)).unwrap(), b"x".repeat(1000));
    for many in [empty.repeat(1001), small.repeat(1001), [small.repeat(1001), bzip2_of(&sample())].concat()] {
        let error = decode(&many).unwrap_err().to_string();
        assert!(error.contains("more than 1000 members of less than 64 KiB"), "{error}");
    }
    // As they are made of a large file in parallel.
    let blocks = bzip2_of(&[0; 100_000]).repeat(1001);
    assert_eq!(decode(&blocks).unwrap().len(), 100_100_000);
}

#[test]
fn gzip_headers_may_carry_fields() {
    let header = flate2::GzBuilder::new().extra(vec![7; 300]).filename("layer.tar").comment("made by hand");
    let mut encoder = header.write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"data").unwrap();
    assert_eq!(decode(&encoder.finish().unwrap()).unwrap(), b"data");
}

#[test]
fn skippable_zstd_frames_are_skipped() {
    let frame = encode(b"data", Compression::Zstd, None);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let stream = [&skippable[..], &frame, &skippable, &frame].concat();
    assert_eq!(Decoder::new(stream.as_slice(), &Limits::DEFAULT).unwrap().compression(), Compression::Zstd);
    assert_eq!(decode(&stream).unwrap(), b"datadata");
    assert_eq!(
        decode(&stream[..stream.len() - frame.len() - 1]).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    // A frame with no single segment and no content size: the window descriptor stands alone.
    let frame = |window_log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3, 0x01, 0x00, 0x00];
    assert_eq!(decode(&frame(27)).unwrap(), b"");
    assert_eq!(limit_of(&frame(28), &Limits::DEFAULT), Some((Limit::WindowBytes, None)));
    let limits = Limits { window_bytes: 1 << 28, ..Limits::DEFAULT };
    assert_eq!(limit_of(&frame(28), &limits), None);
    // The densest level has to stay readable.
    assert_eq!(decode(&encode(b"data", Compression::Zstd, Some(22))).unwrap(), b"data");
}

#[test]
fn an_xz_dictionary_beyond_the_limit_is_refused() {
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(512 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    // Only the header matters: it alone makes the decoder allocate.
    let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32);
    let Ok(stream) = stream else {
        eprintln!("skipped: no memory for an xz encoder with a large dictionary");
        return;
    };
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(b"data").unwrap();
    let stream = encoder.finish().unwrap();
    assert_eq!(limit_of(&stream, &Limits::DEFAULT), Some((Limit::WindowBytes, None)));
}

/// Which limit a stream goes beyond, and what is said of it.
fn limit_of(stream: &[u8], limits: &Limits) -> Option<(Limit, Option<u64>)> {
    let error = io::copy(&mut Decoder::new(stream, limits).unwrap(), &mut io::sink()).err()?;
    let limit = LimitError::inside(&error).unwrap_or_else(|| panic!("{error}"));
    assert_eq!(limit.value, limits.get(limit.limit));
    Some((limit.limit, limit.found))
}

#[test]
fn what_comes_out_is_counted() {
    let data = vec![0; 1 << 20];
    for (compression, stream) in streams(&data).into_iter().chain([(Compression::None, data.clone())]) {
        let exact = Limits { unpacked_bytes: 1 << 20, ..Limits::DEFAULT };
        assert_eq!(limit_of(&stream, &exact), None, "{compression:?}");
        let less = Limits { unpacked_bytes: (1 << 20) - 1, ..Limits::DEFAULT };
        let (limit, found) = limit_of(&stream, &less).unwrap();
        assert!(limit == Limit::UnpackedBytes && found.unwrap() >= 1 << 20, "{compression:?}: {found:?}");
    }
}

#[test]
fn a_stream_expands_as_far_as_is_granted() {
    let data = vec![0; 1 << 20];
    for (compression, stream) in streams(&data) {
        let times = (1u64 << 20).div_ceil(stream.len() as u64);
        let limits = |expansion, expansion_floor| Limits {
            expansion,
            expansion_floor,
            hole_bytes: 0,
            ..Limits::DEFAULT
        };
        assert_eq!(limit_of(&stream, &limits(times, 0)), None, "{compression:?}");
        let (limit, _) = limit_of(&stream, &limits(times - 1, 0)).unwrap();
        assert_eq!(limit, Limit::Expansion, "{compression:?}");
        // What is below the floor may expand as it likes.
        assert_eq!(limit_of(&stream, &limits(1, 1 << 20)), None, "{compression:?}");
        assert!(limit_of(&stream, &limits(1, (1 << 20) - 1)).is_some(), "{compression:?}");
    }
    // Nothing expands that is not compressed.
    assert_eq!(limit_of(&data, &Limits { expansion: 0, expansion_floor: 0, ..Limits::DEFAULT }), None);
}

#[test]
fn zeros_expand_as_far_as_holes_do() {
    // The first zeros of each run count.
    let limits =
        |hole_bytes| Limits { expansion: 1, expansion_floor: 1 << 20, hole_bytes, ..Limits::DEFAULT };
    for (compression, stream) in streams(&vec![0; 4 << 20]) {
        assert_eq!(limit_of(&stream, &limits(4 << 20)), None, "{compression:?}");
        let (limit, _) = limit_of(&stream, &limits(2 << 20)).unwrap();
        assert_eq!(limit, Limit::Expansion, "{compression:?}");
    }
    // What is no zero is none for the zeros around it.
    let mut dotted = vec![0; 4 << 20];
    dotted.iter_mut().step_by(1000).for_each(|byte| *byte = 1);
    for (compression, stream) in streams(&dotted) {
        assert!(limit_of(&stream, &limits(4 << 20)).is_some(), "{compression:?}");
    }
    // Nor are runs that are too short to be holes of a file.
    let mut dotted = vec![0; 4 << 20];
    dotted.iter_mut().step_by(200 << 10).for_each(|byte| *byte = 1);
    for (compression, stream) in streams(&dotted) {
        assert!(limit_of(&stream, &limits(4 << 20)).is_some(), "{compression:?}");
    }
}

#[test]
fn gzip_bytes_are_the_same_every_time() {
    let bytes = encode(b"data", Compression::Gzip, Some(9));
    assert_eq!(bytes, encode(b"data", Compression::Gzip, Some(9)));
    assert_eq!(bytes[4..8], [0; 4], "a time of making");
    assert_eq!(bytes[9], 255, "a system it was made on");
}

#[test]
fn levels_out_of_range_name_the_range() {
    let error = |compression, level| Encoder::new(Vec::new(), compression, Some(level)).unwrap_err();
    for level in [-1, 10, i32::MIN, i32::MAX] {
        assert!(error(Compression::Gzip, level).to_string().contains("from 0 to 9"));
    }
    for level in [0, 23, i32::MIN] {
        assert!(error(Compression::Zstd, level).to_string().contains("from 1 to 22"));
    }
    assert!(matches!(error(Compression::None, 1), CompressError::NoLevels));
    for compression in [Compression::Bzip2, Compression::Xz] {
        let error = Encoder::new(Vec::new(), compression, None).unwrap_err();
        assert!(matches!(error, CompressError::ReadOnly { .. }));
    }
}

#[test]
fn both_directions_can_move_to_a_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Decoder::new(&b""[..], &Limits::DEFAULT).unwrap());
    is_send(&Encoder::new(Vec::new(), Compression::Zstd, None).unwrap());
}
