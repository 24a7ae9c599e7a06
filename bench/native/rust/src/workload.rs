//! Read States, the workload that all native peers share: key number i is the same everywhere.

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub user_id: u64,
    pub channel_id: u64,
}

#[derive(Clone, Copy)]
#[allow(dead_code)] // one field is read, the others are carried
pub struct Value {
    pub last_message_id: u64,
    pub mention_count: u32,
    pub last_pin_ts: u64,
}

impl Value {
    /// The record of a key: two large numbers and a small one, as in the service.
    #[inline]
    pub fn of(key: &Key) -> Value {
        Value {
            last_message_id: key.user_id ^ key.channel_id,
            mention_count: (key.channel_id & 7) as u32,
            last_pin_ts: key.channel_id >> 22,
        }
    }
}

/// All keys of one run. A seed has numbers of its own, the first half for keys, the second for draws.
pub struct Workload {
    entries: u64,
    base: u64,
}

const SEED_BITS: u32 = 40;
const DRAWS: u64 = 1 << (SEED_BITS - 1);

impl Workload {
    pub fn new(entries: usize, seed: u64) -> Workload {
        Workload { entries: entries as u64, base: seed << SEED_BITS }
    }

    pub fn key(&self, number: u64) -> Key {
        let first = self.base + 2 * number;
        Key { user_id: splitmix(first), channel_id: splitmix(first + 1) }
    }

    /// One of the first keys, as many as there are entries, at random.
    pub fn draw(&self, number: u64) -> Key {
        self.key(splitmix(self.base + DRAWS + number) % self.entries)
    }

    /// The numbers of those keys in random order.
    pub fn shuffled(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.entries as u32).collect();
        for last in (1..order.len()).rev() {
            let other = splitmix(last as u64) % (last as u64 + 1);
            order.swap(last, other as usize);
        }
        order
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) as a hash: different numbers, different results.
fn splitmix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
