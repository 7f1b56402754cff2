//! Reading a file forward through a window, with the CRC of what was passed.
#![forbid(unsafe_code)]

use super::crc::Hasher;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Reads forward from some byte on, summing what it passes.
pub(super) struct Window<'s, S: Storage> {
    storage: &'s S,
    window: Vec<u8>,
    used: usize,
    /// How far the window is in the CRC: it grows by long stretches, since many short ones take several times as long.
    summed: usize,
    filled: usize,
    /// Offset of the window's first byte.
    start: u64,
    crc: Hasher,
}

impl<'s, S: Storage> Window<'s, S> {
    pub(super) fn new(storage: &'s S, offset: u64) -> Window<'s, S> {
        Window {
            storage,
            window: vec![0; 256 * 1024],
            used: 0,
            summed: 0,
            filled: 0,
            start: offset,
            crc: Hasher::new(),
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.start + self.used as u64
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&[u8]> {
        if self.filled - self.used < count {
            self.sum();
            self.start += self.used as u64;
            self.filled = self.storage.read_at(&mut self.window, self.start)?;
            (self.used, self.summed) = (0, 0);
            if self.filled < count {
                return Err(Error::Malformed("the checkpoint ends too soon"));
            }
        }
        let bytes = &self.window[self.used..self.used + count];
        self.used += count;
        Ok(bytes)
    }

    fn sum(&mut self) {
        self.crc.update(&self.window[self.summed..self.used]);
        self.summed = self.used;
    }

    /// The CRC of everything that was taken.
    pub(super) fn crc(&mut self) -> u32 {
        self.sum();
        self.crc.clone().finalize()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn string(&mut self) -> Result<&[u8]> {
        let len = usize::from(u16::from_le_bytes(self.array()?));
        self.take(len)
    }

    pub(super) fn string_into(&mut self, into: &mut Vec<u8>) -> Result<()> {
        into.clear();
        into.extend_from_slice(self.string()?);
        Ok(())
    }
}
