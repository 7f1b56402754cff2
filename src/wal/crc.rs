//! The one CRC-32 of the project: zlib's, over whatever the log, the wire and the checkpoint want covered. Pure.
//!
//! Reflected polynomial 0xEDB88320, start value and final XOR all ones; `crc32(b"123456789")` is 0xCBF43926.
//!
//! The work is done by crate crc32fast, which picks carry-less multiplication (128, 256 or 512 bits wide), the CRC
//! instructions of aarch64 or a table at run time, by what the CPU has. It stands behind this file so that the rest of
//! the project names no crate, and because its version matters: 1.5.0 takes 29 ns for the 23 bytes of a small record
//! where 1.5.5 takes 8, and 1.5.5 is four times as fast on a checkpoint. Cargo.toml asks for 1.5.5 for that reason.
#![forbid(unsafe_code)]

/// The CRC-32 of `data`; 0 for no bytes at all.
#[inline]
#[must_use]
pub fn crc32(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}

/// The CRC-32 of bytes whose CRC-32 is `before` and of `data` behind them.
#[must_use]
pub fn crc32_from(before: u32, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(data);
    hasher.finalize()
}

/// A CRC-32 taken piece by piece, for a file or a stream that is never in memory as a whole.
///
/// However the bytes are cut into pieces, the result is that of [`crc32`] over all of them.
#[derive(Clone, Debug, Default)]
pub struct Hasher(crc32fast::Hasher);

impl Hasher {
    /// Starts with no bytes.
    #[inline]
    #[must_use]
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes the next piece in.
    #[inline]
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The CRC-32 of everything taken in.
    #[inline]
    #[must_use]
    pub fn finalize(self) -> u32 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, a bit at a time: slow, and too simple to share a mistake with a vectorised one.
    fn by_definition(data: &[u8]) -> u32 {
        !data.iter().copied().fold(u32::MAX, one_byte)
    }

    fn one_byte(crc: u32, byte: u8) -> u32 {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    }

    /// Bytes without a pattern that a CRC could miss.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x1234_5678_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn it_is_the_crc_of_zlib() {
        // The catalogue's check value, then what Python's zlib.crc32 says.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"a"), 0xE8B7_BE43);
        assert_eq!(crc32(&[0; 32]), 0x190A_55AD);
    }

    #[test]
    fn it_is_not_another_crc_of_32_bits() {
        // CRC-32C (the instruction of SSE 4.2), CRC-32/BZIP2, CRC-32/JAMCRC and POSIX cksum, by their check values.
        for other in [0xE306_9283, 0xFC89_1918, 0x340B_C6D9, 0x765E_7680] {
            assert_ne!(crc32(b"123456789"), other);
        }
    }

    #[test]
    fn every_length_up_to_1024_at_every_alignment_agrees_with_the_definition() {
        let data = noise(1024 + 65);
        for offset in 0..64 {
            // The definition's running value, a byte further each time.
            let mut running = u32::MAX;
            for len in 0..=1024 {
                let piece = &data[offset..offset + len];
                assert_eq!(crc32(piece), !running, "{len} bytes at offset {offset}");
                running = one_byte(running, data[offset + len]);
            }
        }
    }

    #[test]
    fn lengths_around_every_switch_of_method_agree_with_the_definition() {
        let data = noise(140_000);
        for around in [2048, 2176, 4096, 8192, 65_536, 131_091] {
            for len in around - 3..=around + 3 {
                assert_eq!(crc32(&data[..len]), by_definition(&data[..len]), "{len}");
            }
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_changes_it() {
        let mut data = noise(200);
        let right = crc32(&data);
        for bit in 0..data.len() * 8 {
            data[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(crc32(&data), right, "bit {bit}");
            data[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(crc32(&data), right);
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_whole(
            data in prop::collection::vec(any::<u8>(), 0..6000),
            cuts in prop::collection::vec(0..6000_usize, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(data.len())).collect();
            cuts.push(data.len());
            cuts.sort_unstable();
            let mut hasher = Hasher::new();
            let mut from = 0;
            for to in cuts {
                hasher.update(&data[from..to]);
                from = to;
            }
            prop_assert_eq!(hasher.finalize(), crc32(&data));
            prop_assert_eq!(crc32(&data), by_definition(&data));
        }
    }
}
