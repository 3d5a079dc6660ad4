//! How fast the inner pieces of the archive are, a shape of data at a time, in megabytes of dump per second of
//! processor time: what other people do on the machine changes that less than the time that passes.
//!
//! `cargo bench` measures level 1; `cargo bench -- --level 3` another.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, sink};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ripcord::archive::{ArchiveReader, ArchiveWriter, Scanner, StreamId, authenticate, verify};
use ripcord::ids::{BackupId, Lineage};
use ripcord::keys::DataKey;

#[path = "../src/archive/testing.rs"]
mod testing;

/// COPY text of each shape.
const SHAPE_BYTES: usize = 48 << 20;

/// Each piece is measured so often; the best counts, because everything else only slows it down.
const ROUNDS: usize = 3;

fn main() {
    let level = level();
    println!("zstd level {level}; MB of dump per second of processor time, the best of {ROUNDS}");
    println!(
        "{:10} {:>12} {:>14} {:>12} {:>12} {:>12} {:>7}",
        "", "scan+digest", "compress+seal", "read", "verify", "authenticate", "ratio"
    );
    for (name, row) in SHAPES {
        let dump = dump(*row);
        let keys = DataKey::generate().subkeys();
        let id = StreamId { lineage: Lineage::new(), backup: BackupId::new(), stream: 0 };
        let scan = best(|| {
            let mut scanner = Scanner::new(keys.digest_key());
            // As it comes from a pipe.
            dump.chunks(256 << 10).for_each(|portion| scanner.feed(portion).unwrap());
            scanner.finish().unwrap();
        });
        // The writer scans as well: what that takes is not counted twice.
        let write = best(|| {
            let mut writer = ArchiveWriter::begin(sink(), id, &keys, level, 1).unwrap();
            writer.feed(&dump).unwrap();
            writer.finish().unwrap();
        })
        .saturating_sub(scan);
        let mut writer = ArchiveWriter::begin(Vec::new(), id, &keys, level, 1).unwrap();
        writer.feed(&dump).unwrap();
        let written = writer.finish().unwrap();
        let stored = written.sink.as_slice();
        let read = best(|| {
            let mut reader = ArchiveReader::open(stored, id, &keys).unwrap();
            let mut buffer = vec![0; 256 << 10];
            while reader.read(&mut buffer).unwrap() > 0 {}
            reader.finish().unwrap();
        });
        let whole = best(|| drop(verify(stored, id, &keys, &written.index, &mut |_| ()).unwrap()));
        let tags = best(|| authenticate(stored, id, &keys, &written.index, &mut |_| ()).unwrap());
        let speed = |took: Duration| dump.len() as f64 / 1e6 / took.as_secs_f64().max(0.01);
        println!(
            "{name:10} {:12.0} {:14.0} {:12.0} {:12.0} {:12.0} {:7.3}",
            speed(scan),
            speed(write),
            speed(read),
            speed(whole),
            speed(tags),
            stored.len() as f64 / dump.len() as f64
        );
    }
}

/// The number after `--level`; cargo's own `--bench` is passed over.
fn level() -> i32 {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--level").skip(1);
    arguments.next().map_or(1, |number| number.parse().expect("a level is a number"))
}

type Row = fn(&mut StdRng, u64, &mut String);

/// The four shapes of `scripts/bench`, a row each.
const SHAPES: &[(&str, Row)] = &[
    ("numbers", |random, id, row| {
        let (account, amount, rate) =
            (random.random_range(0..50_000), random.random::<f64>() * 1e5, random.random::<f64>());
        *row = format!(
            "{id}\t{account}\t{amount:.2}\t{rate}\t{}\t2024-{:02}-{:02} {:02}:{:02}:{:02}+00",
            random.random_range(0..6),
            1 + id / 700_000 % 12,
            1 + id / 23_000 % 28,
            id / 970 % 24,
            id / 16 % 60,
            id % 60
        );
    }),
    ("documents", |random, id, row| {
        *row = format!(
            "{id}\t{{\"id\": {id}, \"customer\": {{\"name\": \"c{:06}\", \"language\": \"{}\"}}, \"total\": {:.2}, \"lines\": [",
            random.random_range(0..90_000),
            ["de", "en", "fr", "pl", "it", "es"][random.random_range(0..6)],
            random.random::<f64>() * 900.0
        );
        for _ in 0..random.random_range(1..7) {
            row.push_str(&format!(
                "{{\"sku\": \"A-{:05}\", \"count\": {}, \"price\": {:.2}, \"gift\": false}}, ",
                random.random_range(0..20_000),
                random.random_range(1..10),
                random.random::<f64>() * 200.0
            ));
        }
        row.push_str(&format!("], \"device\": \"{:016x}\"}}", random.random::<u64>()));
    }),
    ("text", |random, id, row| {
        const ON: [&str; 8] = ["b", "st", "k", "tr", "m", "p", "ch", "l"];
        const OF: [&str; 6] = ["a", "e", "i", "o", "ou", "ea"];
        *row = format!("{id}\t");
        for _ in 0..random.random_range(40..220) {
            // The frequent words are much more frequent.
            let mut word = (4000.0 * random.random::<f64>().powi(3)) as usize;
            for _ in 0..3 {
                row.push_str(ON[word % ON.len()]);
                row.push_str(OF[word / 8 % OF.len()]);
                word /= 48;
            }
            row.push(' ');
        }
    }),
    ("noise", |random, id, row| {
        let mut bytes = [0; 3000];
        random.fill(&mut bytes[..]);
        *row = format!("{id}\t\\\\x{}", hex::encode(bytes));
    }),
];

/// A dump of one table, a chunk a row.
fn dump(row: Row) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(7);
    let (mut chunks, mut bytes, mut id) = (Vec::new(), 0, 0);
    while bytes < SHAPE_BYTES {
        let mut line = String::new();
        row(&mut random, id, &mut line);
        line.push('\n');
        bytes += line.len();
        id += 1;
        chunks.push(line.into_bytes());
    }
    chunks.push(b"\\.\n\n\n".to_vec());
    let mut dump = testing::Dump::new(15);
    dump.table_of_chunks(2, "shape", chunks);
    dump.bytes()
}

/// The least processor time that the work took, all its threads together.
fn best(mut work: impl FnMut()) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let before = processor_time();
        work();
        least = least.min(processor_time() - before);
    }
    least
}

/// What this process has used so far, in the system's ticks of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is there");
    // The program's name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
