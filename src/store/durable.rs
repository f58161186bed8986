//! A file whose writes are durable when they return, at the price of one system call.
//!
//! Linux syncs a write as part of it (`RWF_DSYNC`), and takes one past its page cache (`O_DIRECT`) if it consists of whole
//! blocks. The block at the end of what was written before is then written again: its bytes are kept for that. A file system
//! that does not offer both gets a write and a sync, as it always did (docs/decisions/0042).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::sidecar::PRIVATE;

/// What direct writes consist of, bytes: no disk has larger blocks.
const BLOCK: usize = 4096;

/// The file. Everything in it is written through this value, one part behind the other.
#[derive(Debug)]
pub(super) struct Durable {
    file: File,
    way: Way,
    /// The bytes before the end of what was written, from the beginning of their block on.
    tail: Vec<u8>,
    /// Where whole blocks are put together.
    memory: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Whole blocks, past the page cache.
    Direct,
    /// A write, then a sync.
    Synced,
}

impl Durable {
    /// A new, empty file, whatever was there before.
    pub fn create(path: &Path) -> io::Result<Self> {
        let make = |flags| {
            OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).custom_flags(flags).open(path)
        };
        let (file, way) = match direct_flag().map(make) {
            Some(Ok(file)) => (file, Way::Direct),
            Some(Err(error)) if is_not_offered(&error) => (make(0)?, Way::Synced),
            Some(Err(error)) => return Err(error),
            None => (make(0)?, Way::Synced),
        };
        Ok(Self { file, way, tail: Vec::new(), memory: Vec::new() })
    }

    /// Writes where the last write ended, or at the beginning of a block. The file must reach to the end of the last block
    /// already, or the sync writes its new length as well.
    ///
    /// # Errors
    /// It is unknown what has been written.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.way == Way::Direct {
            match self.write_blocks(at, bytes) {
                Err(error) if is_not_offered(&error) => {
                    // From here on through the page cache, with a file that was opened for that.
                    rustix::fs::fcntl_setfl(&self.file, rustix::fs::OFlags::empty())?;
                    self.way = Way::Synced;
                }
                done => return done,
            }
        }
        self.file.write_all_at(bytes, at)?;
        self.file.sync_data()
    }

    fn write_blocks(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at.is_multiple_of(BLOCK as u64) {
            self.tail.clear();
        }
        let before = self.tail.len();
        debug_assert_eq!(at % BLOCK as u64, before as u64, "a write behind another");
        let end = before + bytes.len();
        let length = end.next_multiple_of(BLOCK);
        if self.memory.len() < length + BLOCK {
            self.memory.resize(length + BLOCK, 0);
        }
        let start = self.memory.as_ptr().align_offset(BLOCK);
        let blocks = &mut self.memory[start..start + length];
        blocks[..before].copy_from_slice(&self.tail);
        blocks[before..end].copy_from_slice(bytes);
        blocks[end..].fill(0);
        write_through(&self.file, at - before as u64, blocks)?;
        self.tail.clear();
        self.tail.extend_from_slice(&blocks[end - end % BLOCK..end]);
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn direct_flag() -> Option<i32> {
    i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()
}

#[cfg(not(target_os = "linux"))]
fn direct_flag() -> Option<i32> {
    None
}

/// Writes and syncs in one system call, unless the file system takes a part only.
#[cfg(target_os = "linux")]
fn write_through(file: &File, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    use rustix::io::{Errno, ReadWriteFlags, pwritev2};

    while !bytes.is_empty() {
        match pwritev2(file, &[io::IoSlice::new(bytes)], at, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                bytes = &bytes[written..];
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn write_through(_: &File, _: u64, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the file system refuses such writes altogether.
fn is_not_offered(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let known = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| known.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// All lengths and places of parts, above all around the ends of blocks.
    #[test]
    fn a_file_is_what_was_written_one_part_behind_the_other() {
        for way in [Way::Direct, Way::Synced] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let mut file = Durable::create(&path).unwrap();
            if way == Way::Synced {
                file.way = way;
                rustix::fs::fcntl_setfl(&file.file, rustix::fs::OFlags::empty()).unwrap();
            }
            let mut expected = Vec::new();
            let lengths = [1, 4095, 1, 4095, 4096, 8, 4088, 5000, 3, 12_288, 100, 4084, 4097, 8191, 8192];
            for (turn, length) in (1..).zip(lengths) {
                let part = vec![turn; length];
                file.write(expected.len() as u64, &part).unwrap();
                expected.extend(part);
                let found = fs::read(&path).unwrap();
                assert_eq!(found[..expected.len()], expected, "{way:?} {turn}");
                assert!(found[expected.len()..].iter().all(|byte| *byte == 0), "{way:?} {turn}");
            }
            // From the beginning again.
            file.write(0, &[99; 10]).unwrap();
            file.write(10, &[98; 10]).unwrap();
            expected[..20].copy_from_slice(&[[99; 10], [98; 10]].concat());
            let found = fs::read(&path).unwrap();
            assert_eq!(found[..20], expected[..20], "{way:?}");
            assert_eq!(found[BLOCK..expected.len()], expected[BLOCK..], "{way:?}");
        }
    }
}
