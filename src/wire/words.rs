//! Enums of the wire that mirror an enum of the core, word for word.

/// Converts between two enums with the same variants, in both directions. A missing variant is a compile error.
macro_rules! same_words {
    ($wire:ident, $core:ident { $($variant:ident),+ $(,)? }) => {
        impl From<$core> for $wire {
            fn from(value: $core) -> Self {
                match value { $($core::$variant => Self::$variant),+ }
            }
        }

        impl From<$wire> for $core {
            fn from(value: $wire) -> Self {
                match value { $($wire::$variant => Self::$variant),+ }
            }
        }
    };
}

pub(crate) use same_words;
