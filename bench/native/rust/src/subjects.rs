//! The caches that are measured, one small adapter each.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;

use lru::LruCache;
use quick_cache::unsync::Cache;

use crate::workload::{Key, Value};

pub trait Subject {
    fn read(&mut self, key: &Key) -> Option<&Value>;
    fn write(&mut self, key: Key, value: Value);
    /// Is the key there? Changes nothing.
    fn holds(&self, key: &Key) -> bool;
}

/// The crate `lru`: a hash map and a doubly linked list of boxed nodes.
pub fn lru<S: BuildHasher + Default>(entries: usize) -> LruCache<Key, Value, S> {
    LruCache::with_hasher(NonZeroUsize::new(entries).expect("at least one entry"), S::default())
}

impl<S: BuildHasher> Subject for LruCache<Key, Value, S> {
    #[inline]
    fn read(&mut self, key: &Key) -> Option<&Value> {
        self.get(key)
    }

    #[inline]
    fn write(&mut self, key: Key, value: Value) {
        self.put(key, value);
    }

    fn holds(&self, key: &Key) -> bool {
        self.contains(key)
    }
}

/// The crate `quick_cache`, the variant for one thread. Not an LRU: it decides itself what stays.
pub fn quick_cache(entries: usize) -> Cache<Key, Value> {
    Cache::new(entries)
}

impl Subject for Cache<Key, Value> {
    #[inline]
    fn read(&mut self, key: &Key) -> Option<&Value> {
        self.get(key)
    }

    #[inline]
    fn write(&mut self, key: Key, value: Value) {
        self.insert(key, value);
    }

    fn holds(&self, key: &Key) -> bool {
        self.contains_key(key)
    }
}
