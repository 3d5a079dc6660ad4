//! The corpora of `fuzz/`, and what was ever found by it, through the same functions with every test run. How to look
//! for more: CONTRIBUTING.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// A folder of inputs, each of which once was interesting.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} is missing", folder.display())) {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| target(&bytes)).is_err() {
            panic!("{} is not taken well", path.display());
        }
        count += 1;
    }
    assert!(count >= 5, "{name} has {count} inputs");
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), targets::$name);
        })*

        #[test]
        fn every_target_is_replayed_and_every_corpus_has_its_target() {
            let ours = [$(stringify!($name)),*];
            let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            for (folder, ending) in [("corpus", ""), ("fuzz_targets", ".rs")] {
                let mut found: Vec<String> = std::fs::read_dir(fuzz.join(folder))
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(ending).to_owned())
                    .collect();
                found.sort();
                let mut known = ours.to_vec();
                known.sort_unstable();
                assert_eq!(found, known, "{folder}");
            }
            let size: u64 = ours
                .iter()
                .flat_map(|name| std::fs::read_dir(fuzz.join("corpus").join(name)).unwrap())
                .map(|entry| entry.unwrap().metadata().unwrap().len())
                .sum();
            assert!(size < 1 << 20, "the corpora have {size} bytes: minimise them");
        }
    };
}

targets!(stream, index, manifest, dump, journal, sql, layouts);
