//! Measures one cache of one size: `peers SUBJECT ENTRIES ROWS SEED`. One JSON object a line.

mod subjects;
mod workload;

use std::env;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use subjects::Subject;
use workload::{Key, Value, Workload};

const CHUNK_ROWS: usize = 4096; // keys made at a time, outside of what is timed
const STALL_WRITES: usize = 16; // writes between two looks at the clock, which costs as much as a write

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, subject, entries, rows, seed] = arguments.as_slice() else {
        panic!("usage: peers SUBJECT ENTRIES ROWS SEED");
    };
    let number = |text: &String| text.parse::<u64>().expect("ENTRIES, ROWS and SEED are numbers");
    let (entries, rows, seed) = (number(entries), number(rows), number(seed));
    let work = Workload::new(entries as usize, seed);
    match subject.as_str() {
        "lru" => measure(subjects::lru::<lru::DefaultHasher>(entries as usize), &work, entries, rows),
        "lru-fx" => {
            measure(subjects::lru::<rustc_hash::FxBuildHasher>(entries as usize), &work, entries, rows)
        }
        "quick_cache" => measure(subjects::quick_cache(entries as usize), &work, entries, rows),
        _ => panic!("no subject {subject}"),
    }
}

/// Time and result of a loop over many keys.
#[derive(Default)]
struct Total {
    cpu: Duration,
    wall: Duration,
    found: u64,
    sum: u64,
    longest_gap: Duration,
}

fn measure(mut cache: impl Subject, work: &Workload, entries: u64, rows: u64) {
    write(&mut cache, (0..entries).map(|number| work.key(number)), CHUNK_ROWS);
    read(&mut cache, work.shuffled().into_iter().map(|number| work.key(number as u64)));
    report("hit", entries, rows, &read(&mut cache, (0..rows).map(|number| work.draw(number))));
    let others = (entries..2 * entries).map(|number| work.key(number));
    report("turnover", entries, entries, &write(&mut cache, others, STALL_WRITES));
    let written = 2 * entries..2 * entries + rows;
    let mut total = write(&mut cache, written.clone().map(|number| work.key(number)), CHUNK_ROWS);
    let latest = written.rev().take(entries as usize);
    total.found = latest.filter(|&number| cache.holds(&work.key(number))).count() as u64;
    report("write", entries, rows, &total);
}

fn read(cache: &mut impl Subject, keys: impl Iterator<Item = Key>) -> Total {
    timed(keys, |chunk, total| {
        for key in chunk {
            if let Some(value) = cache.read(key) {
                total.found += 1;
                total.sum += u64::from(value.mention_count);
            }
        }
    })
}

/// Looks at the clock every `few_rows` writes for the longest gap.
fn write(cache: &mut impl Subject, keys: impl Iterator<Item = Key>, few_rows: usize) -> Total {
    timed(keys, |chunk, total| {
        let mut before = Instant::now();
        for few in chunk.chunks(few_rows) {
            for key in few {
                cache.write(*key, Value::of(key));
            }
            let now = Instant::now();
            total.longest_gap = total.longest_gap.max(now - before);
            before = now;
        }
    })
}

/// The loop over chunks of all keys; the clocks stand still while a chunk is made.
fn timed(mut keys: impl Iterator<Item = Key>, mut each: impl FnMut(&[Key], &mut Total)) -> Total {
    let mut total = Total::default();
    let mut chunk: Vec<Key> = Vec::with_capacity(CHUNK_ROWS);
    loop {
        chunk.clear();
        chunk.extend(keys.by_ref().take(CHUNK_ROWS));
        if chunk.is_empty() {
            return total;
        }
        let (cpu, wall) = (ThreadTime::now(), Instant::now());
        each(&chunk, &mut total);
        total.cpu += cpu.elapsed();
        total.wall += wall.elapsed();
    }
}

/// `found` of a read counts hits; of a write, how many of the latest keys are there afterwards.
fn report(operation: &str, entries: u64, rows: u64, total: &Total) {
    println!(
        r#"{{"operation": "{operation}", "entries": {entries}, "rows": {rows}, "cpu_ns": {}, "wall_ns": {}, "found": {}, "sum": {}, "longest_gap_ns": {}}}"#,
        total.cpu.as_nanos(),
        total.wall.as_nanos(),
        total.found,
        total.sum,
        total.longest_gap.as_nanos(),
    );
}
