//! A page of a listing, while it is being filled.

use std::ops::ControlFlow;

use crate::core::limits;
use crate::wire::api::Page;

/// Entries with the same key are never split, so a page may be longer than its limit. Only a bounded number of entries is
/// looked at, so a page may be shorter although more follow. Only a page without `next` is the last.
pub struct Pager<K, T> {
    limit: usize,
    items: Vec<T>,
    looked_at: usize,
    last: Option<K>,
    next: Option<String>,
}

impl<K: PartialEq + ToString, T> Pager<K, T> {
    /// An empty page for so many items.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, items: Vec::new(), looked_at: 0, last: None, next: None }
    }

    /// Takes the next entry, with its item if it is wanted. Breaks when the page is full.
    pub fn add(&mut self, key: K, item: impl FnOnce() -> Option<T>) -> ControlFlow<()> {
        let is_full = self.items.len() >= self.limit || self.looked_at >= limits::SCAN;
        if is_full && self.last.as_ref() != Some(&key) {
            self.next = self.last.as_ref().map(ToString::to_string);
            return ControlFlow::Break(());
        }
        self.items.extend(item());
        self.looked_at += 1;
        self.last = Some(key);
        ControlFlow::Continue(())
    }

    /// The page.
    #[must_use]
    pub fn done(self) -> Page<T> {
        Page { items: self.items, next: self.next }
    }
}
