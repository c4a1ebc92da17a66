//! What one simulated file holds, in the cache and on the medium.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Fate, Injected, Unflushed};

/// The bytes of a file, by pages; a page that was never written is zero.
#[derive(Clone, Default)]
pub(super) struct Contents {
    /// Flushes that failed. Who opened the file before one is told of it, once.
    pub(super) flush_errors: u64,
    pub len: u64,
    pub len_on_medium: u64,
    /// Allocated bytes that were given back.
    pub released: u64,
    /// Held by every handle too: contents without names and handles are forgotten.
    pub handles: Arc<()>,
    /// Pages that give an error.
    pub unreadable: BTreeSet<u64>,
    pages: Pages,
    pages_on_medium: Pages,
    dirty: BTreeSet<u64>,
}

type Page = [u8; PAGE_BYTES];
/// By number, up to the last one that was ever written.
type Pages = Vec<Option<Arc<Page>>>;

impl Contents {
    /// An empty file of a length.
    pub(super) fn new(len: u64) -> Contents {
        Contents { len, ..Contents::default() }
    }

    /// Writes into the cache.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let (page, from) = (at / PAGE_BYTES as u64, at as usize % PAGE_BYTES);
            let some = rest.len().min(PAGE_BYTES - from);
            let held = Arc::make_mut(page_of(&mut self.pages, page));
            held[from..from + some].copy_from_slice(&rest[..some]);
            self.dirty.insert(page);
            (at, rest) = (at + some as u64, &rest[some..]);
        }
    }

    /// Reads what a running system sees.
    pub(super) fn read(&self, range: Range<u64>) -> Bytes {
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let (page, from) = (at / PAGE_BYTES as u64, at as usize % PAGE_BYTES);
            let some = (PAGE_BYTES - from).min((range.end - at) as usize);
            let held = get(&self.pages, page).map_or(&ZEROS, |held| &**held);
            bytes.extend_from_slice(&held[from..from + some]);
            at += some as u64;
        }
        bytes.freeze()
    }

    /// Keeps what is on the medium, and of the rest what fate wills.
    pub(super) fn lose_power(
        &mut self,
        id: u64,
        fate: &mut dyn FnMut(Unflushed) -> Fate,
        injected: &mut Injected,
    ) {
        if self.len != self.len_on_medium {
            match fate(Unflushed::Length(id)) {
                Fate::Kept => self.len_on_medium = self.len,
                Fate::Lost | Fate::Torn(_) => injected.names_lost += 1,
            }
        }
        for page in std::mem::take(&mut self.dirty) {
            let cached = Arc::clone(get(&self.pages, page).expect("a dirty page was written"));
            let held = page_of(&mut self.pages_on_medium, page);
            match fate(Unflushed::Page(id, page)) {
                Fate::Kept => {
                    *held = cached;
                    injected.pages_kept += 1;
                }
                Fate::Lost => injected.pages_lost += 1,
                Fate::Torn(sectors) => {
                    for sector in (0..8).filter(|sector| sectors & 1 << sector != 0) {
                        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                        Arc::make_mut(held)[range.clone()].copy_from_slice(&cached[range]);
                    }
                    injected.pages_torn += 1;
                }
            }
        }
        self.len = self.len_on_medium;
        // What lies behind the length is not part of the file.
        self.pages_on_medium.truncate(self.len.div_ceil(PAGE_BYTES as u64) as usize);
        self.pages = self.pages_on_medium.clone();
        self.released = self.released.min(self.len);
    }

    /// Brings all that was written to the medium.
    pub(super) fn flush(&mut self) {
        self.len_on_medium = self.len;
        for page in std::mem::take(&mut self.dirty) {
            let bytes = get(&self.pages, page).expect("a dirty page was written");
            *page_of(&mut self.pages_on_medium, page) = Arc::clone(bytes);
        }
    }

    /// Takes what was written for clean without bringing it anywhere.
    pub(super) fn forget(&mut self) {
        self.dirty.clear();
    }

    /// Puts into a page what another one holds, or zeros, in the cache and on the medium.
    pub(super) fn spoil_page(&mut self, page: u64, with: Option<u64>) {
        for pages in [&mut self.pages, &mut self.pages_on_medium] {
            let other = with.and_then(|with| get(pages, with)).cloned();
            *page_of(pages, page) = other.unwrap_or_else(|| Arc::new(ZEROS));
        }
    }

    /// Flips a bit in the cache and on the medium; false if the file is shorter.
    pub(super) fn flip_bit(&mut self, bit: u64) -> bool {
        let (byte, page) = (bit / 8, bit / 8 / PAGE_BYTES as u64);
        if byte >= self.len {
            return false;
        }
        for pages in [&mut self.pages, &mut self.pages_on_medium] {
            let page = Arc::make_mut(page_of(pages, page));
            page[byte as usize % PAGE_BYTES] ^= 1 << (bit % 8);
        }
        true
    }
}

/// A page that was written.
fn get(pages: &Pages, page: u64) -> Option<&Arc<Page>> {
    pages.get(page as usize)?.as_ref()
}

/// A page, zero if it was never written.
fn page_of(pages: &mut Pages, page: u64) -> &mut Arc<Page> {
    let page = page as usize;
    if page >= pages.len() {
        pages.resize(page + 1, None);
    }
    pages[page].get_or_insert_with(|| Arc::new(ZEROS))
}

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
const ZEROS: Page = [0; PAGE_BYTES];
