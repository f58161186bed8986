//! Ids in little memory: a million ended claims have a million ids, and most of them are hexadecimal.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use crate::core::claim::BuildRef;
use crate::core::names::{ClaimId, Text};

/// Bytes of the longest id that is kept as bytes: `out` makes ids of 40 hexadecimal digits.
const HEX_BYTES: usize = 20;
/// Most clusters whose URL is kept once for all their builds. There are rarely more than two.
const CLUSTERS: usize = 1_000;

/// The id of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ShortId {
    /// Lower-case hexadecimal digits, two in each of the first `length` bytes.
    Hex {
        length: u8,
        bytes: [u8; HEX_BYTES],
    },
    Other(Box<str>),
}

/// The bytes alone, in one piece: a start hashes a million of them.
impl Hash for ShortId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Hex { length, bytes } => state.write(&bytes[..usize::from(*length)]),
            Self::Other(text) => state.write(text.as_bytes()),
        }
    }
}

impl ShortId {
    pub fn of(id: &ClaimId) -> Self {
        hex(id.as_str()).unwrap_or_else(|| Self::Other(id.as_str().into()))
    }

    /// The first eight bytes of the id, as a number in the order of the ids.
    pub fn beginning(&self) -> u64 {
        let mut first = [0; 8];
        match self {
            Self::Hex { length, bytes } => {
                let digits = bytes[..usize::from(*length)].iter().flat_map(|byte| [byte >> 4, byte & 15]);
                first.iter_mut().zip(digits).for_each(|(to, digit)| *to = b"0123456789abcdef"[usize::from(digit)]);
            }
            Self::Other(text) => first.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte),
        }
        u64::from_be_bytes(first)
    }

    pub fn id(&self) -> ClaimId {
        match self {
            Self::Hex { length, bytes } => {
                let digits = bytes[..usize::from(*length)].iter().flat_map(|byte| [byte >> 4, byte & 15]);
                let text: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
                ClaimId::known(&text)
            }
            Self::Other(text) => ClaimId::known(text),
        }
    }
}

fn hex(text: &str) -> Option<ShortId> {
    let text = text.as_bytes();
    let length = u8::try_from(text.len() / 2).ok().filter(|_| text.len().is_multiple_of(2))?;
    let mut bytes = [0; HEX_BYTES];
    for (byte, pair) in bytes.get_mut(..usize::from(length))?.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(ShortId::Hex { length, bytes })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ShortBuild {
    /// The build id is this number, and the cluster that of this number in [`Clusters`].
    Numbered {
        cluster: u32,
        id: u64,
    },
    Other(Box<BuildRef>),
}

/// The clusters of numbered builds.
#[derive(Debug, Clone, Default)]
pub(super) struct Clusters {
    names: Vec<Text>,
    numbers: BTreeMap<Text, u32>,
}

impl Clusters {
    /// The short form of a build whose cluster gets a number if there is room.
    pub fn take(&mut self, build: &BuildRef) -> ShortBuild {
        if !self.numbers.contains_key(&build.cluster)
            && self.names.len() < CLUSTERS
            && let Ok(number) = u32::try_from(self.names.len())
        {
            self.names.push(build.cluster.clone());
            self.numbers.insert(build.cluster.clone(), number);
        }
        self.find(build)
    }

    /// The short form of a build, which is the same in each call after it was taken.
    pub fn find(&self, build: &BuildRef) -> ShortBuild {
        let id = build.id.as_str();
        let number = id.parse::<u64>().ok().filter(|number| number.to_string() == id);
        match (self.numbers.get(&build.cluster), number) {
            (Some(cluster), Some(id)) => ShortBuild::Numbered { cluster: *cluster, id },
            _ => ShortBuild::Other(Box::new(build.clone())),
        }
    }

    pub fn build(&self, short: &ShortBuild) -> Option<BuildRef> {
        match short {
            ShortBuild::Numbered { cluster, id } => {
                let cluster = self.names.get(usize::try_from(*cluster).ok()?)?.clone();
                Some(BuildRef { cluster, id: Text::known(&id.to_string()) })
            }
            ShortBuild::Other(build) => Some(BuildRef::clone(build)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were() {
        let hex = "0123456789abcdef".repeat(4);
        let ids = ["a", "ab", "ABCD", "0f", "latch:1", "g0", &hex[..40], &hex[..42], &hex[..39], &hex];
        for text in ids {
            let id = ClaimId::parse(text).unwrap();
            let short = ShortId::of(&id);
            assert_eq!(short.id(), id);
            let begins =
                |text: &str| text.bytes().chain([0; 8]).take(8).fold(0, |all, byte| all << 8 | u64::from(byte));
            assert_eq!(short.beginning(), begins(text));
            let is_hex = matches!(short, ShortId::Hex { .. });
            assert_eq!(is_hex, ["ab", "0f", &hex[..40]].contains(&text), "{text}");
        }
    }

    /// A cluster may get its number after builds of it were asked for; afterwards the form is always the same.
    #[test]
    fn builds_come_back_as_they_were() {
        let mut clusters = Clusters::default();
        let build = |cluster: &str, id: &str| BuildRef { cluster: cluster.parse().unwrap(), id: id.parse().unwrap() };
        for id in ["0", "7", "18446744073709551615", "007", "18446744073709551616", "-1", "b7", "+7"] {
            for cluster in ["https://ci", "https://other"] {
                let build = build(cluster, id);
                let short = clusters.take(&build);
                assert_eq!(clusters.find(&build), short);
                assert_eq!(clusters.build(&short), Some(build));
            }
        }
        for n in 0..2 * CLUSTERS {
            let build = build(&format!("https://{n}"), "1");
            let short = clusters.take(&build);
            assert_eq!((clusters.find(&build), clusters.build(&short)), (short.clone(), Some(build)));
        }
        assert_eq!(clusters.names.len(), CLUSTERS);
    }
}
