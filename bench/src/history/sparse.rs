//! A table indexed by numbers that are mostly dense, wherever they begin.
//!
//! A wild number, as a damaged record may bring one, costs one small chunk and no more.

use std::collections::HashMap;

/// Values by number; every number has one, the default at first.
#[derive(Debug)]
pub(super) struct Sparse<T> {
    chunks: HashMap<u64, Box<[T; CHUNK]>>,
}

impl<T> Default for Sparse<T> {
    fn default() -> Sparse<T> {
        Sparse { chunks: HashMap::new() }
    }
}

impl<T: Copy + Default> Sparse<T> {
    /// The value of a number, to be changed.
    pub fn at(&mut self, number: u64) -> &mut T {
        let fresh = || Box::new([T::default(); CHUNK]);
        let chunk = self.chunks.entry(number / CHUNK as u64).or_insert_with(fresh);
        &mut chunk[(number % CHUNK as u64) as usize]
    }

    /// The value of a number.
    pub fn get(&self, number: u64) -> Option<&T> {
        let chunk = self.chunks.get(&(number / CHUNK as u64))?;
        Some(&chunk[(number % CHUNK as u64) as usize])
    }

    /// All values of the chunks that were touched, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let mut places: Vec<u64> = self.chunks.keys().copied().collect();
        places.sort_unstable();
        places.into_iter().flat_map(|place| {
            let base = place * CHUNK as u64;
            (base..).zip(self.chunks[&place].iter())
        })
    }
}

const CHUNK: usize = 64;
