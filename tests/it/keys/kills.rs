//! Key commands that are killed: at every step, and at random moments over a store of fifty backups.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::*;

/// A small generator of numbers, so that a failure can be repeated by its seed (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }
}

/// What must hold whenever a command was killed: each backup opens, whole, with one of the two keys that the command
/// was given, and with every key that has nothing to do with it; and lists, tags and pins are as they were.
#[track_caller]
fn holds(store: &Store, before: &[(Lineage, BackupId)], keys: [&MasterKey; 2], beside: &MasterKey, when: &str) {
    assert_eq!(all(store), before, "{when}");
    for (number, (lineage, id)) in before.iter().enumerate() {
        let tried: Vec<_> = keys.iter().map(|key| opens(store, *lineage, *id, key)).collect();
        let manifest = tried.iter().find_map(|tried| tried.as_ref().ok());
        let manifest = manifest.unwrap_or_else(|| panic!("{when}: `{id}` opens with neither key: {tried:?}"));
        // Every other one was sealed for a key that the command is given as well.
        if number % 2 == 0 {
            opens(store, *lineage, *id, beside)
                .unwrap_or_else(|why| panic!("{when}: `{id}` is lost to the recovery key: {why}"));
        }
        let tag = manifest.sealed.tags[0].clone();
        let marks = store.marks(*lineage, *id).unwrap();
        assert!(marks.iter().any(|mark| matches!(mark, Mark::Tag { tag: found, .. } if *found == tag)), "{when}");
    }
}

/// A project without a database, with a recovery key in its configuration, and a store of small backups.
fn many(count: usize) -> (Project, Store, MasterKey, Vec<(Lineage, BackupId)>) {
    let project = without_server();
    let (beside, file) = key_file(&project, "recovery.key");
    project.configure(&format!("[key]\nfile = \"unused\"\nrecovery = [{{ file = \"{file}\" }}]"));
    let store = store(&project);
    let lineages = [Lineage::new(), Lineage::new()];
    for number in 0..count {
        // In the order of the list: the first half belongs to the first lineage.
        let lineage = lineages[usize::from(number >= count / 2)];
        write_backup(&store, lineage, &[&first_key()], number);
    }
    let before = all(&store);
    let ring = KeyRing::new(vec![first_key()]).unwrap();
    for (lineage, id) in before.iter().step_by(2) {
        let bytes = store.manifest(*lineage, *id).unwrap();
        let mut wraps = manifest::decode_clear(&bytes).unwrap().wraps;
        wraps.push(beside.wrap(*id, &ring.unwrap(*id, &wraps).unwrap()));
        store.replace_manifest(*lineage, *id, &manifest::rewrap(&bytes, &wraps).unwrap()).unwrap();
    }
    (project, store, beside, before)
}

#[test]
fn killed_at_every_step_it_goes_on_where_it_stopped() {
    for (options, points) in [
        (&["rotate"][..], &["keys_handed_over", "key_before_add", "key_added", "key_step_done"][..]),
        (
            &["rotate", "--reencrypt"],
            &[
                "keys_handed_over",
                "key_before_add",
                "key_added",
                "reencrypt_stream",
                "reencrypt_before_manifest",
                "reencrypt_manifest",
                "key_step_done",
            ],
        ),
    ] {
        for point in points {
            let (project, store, beside, before) = many(4);
            let (new, file) = key_file(&project, "new.key");
            let mut arguments = vec!["key"];
            arguments.extend(options);
            arguments.extend(["--new-key-file", &file]);
            let mut command = project.command(&arguments);
            let output =
                command.env_remove("DATABASE_URL").env("RIPCORD_FAULTS", format!("{point}=kill")).output().unwrap();
            assert_eq!(output.status.code(), None, "not killed at {point}: {output:?}");
            let when = format!("{options:?} at {point}");
            holds(&store, &before, [&first_key(), &new], &beside, &when);
            if matches!(*point, "keys_handed_over" | "key_before_add" | "key_added") {
                // Nothing was taken from the old key yet.
                all_open_with(&store, &first_key());
            }

            let output = project.command(&arguments).env_remove("DATABASE_URL").output().unwrap();
            assert!(output.status.success(), "{when}: {output:?}");
            all_open_with(&store, &new);
            none_opens_with(&store, &first_key());
            holds(&store, &before, [&first_key(), &new], &beside, &when);
            nothing_left(&project, &store, &new);
        }
    }
}

/// No stream that a manifest does not name, and no unfinished stream or manifest. (What a killed write of a mark
/// leaves says nothing to anyone, is never seen, and goes with its backup.)
#[track_caller]
fn nothing_left(project: &Project, store: &Store, key: &MasterKey) {
    for (lineage, id) in all(store) {
        let manifest = opens(store, lineage, id, key).unwrap();
        let named: Vec<u32> = manifest.sealed.streams.iter().map(|stream| stream.number).collect();
        assert_eq!(store.stream_numbers(lineage, id).unwrap(), named);
    }
    let partial: Vec<_> = contents(&project.store())
        .into_iter()
        .map(|(path, _)| path.display().to_string())
        .filter(|path| path.contains("/.partial-") && !path.contains("/marks/") && !path.contains("/keys/"))
        .collect();
    assert!(partial.is_empty(), "{partial:?}");
}

/// Rotations of both kinds over fifty backups, killed (SIGKILL) fifty times at random moments. `RIPCORD_TEST_SEED`
/// repeats one; how far a process comes in a time is still the machine's.
#[test]
fn fifty_kills_over_fifty_backups_lose_nothing() {
    let seed = std::env::var("RIPCORD_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::random::<u64>() | 1);
    println!("RIPCORD_TEST_SEED={seed}");
    let mut numbers = Numbers(seed);
    let (project, store, beside, before) = many(50);
    let (mut old, mut old_file) = (first_key(), {
        project.write("first.key", KEY);
        project.path().join("first.key").display().to_string()
    });
    // A process gets some way into its work and no further; the next one goes on from there.
    let span = 900_000;
    let (mut kills, mut rotations) = (0, 0);
    while kills < 50 {
        rotations += 1;
        let (new, file) = key_file(&project, &format!("{rotations}.key"));
        let reencrypt = rotations % 3 != 0;
        let began = Instant::now();
        let mut own_kills = 0;
        loop {
            let mut command = project.command(&["key", "rotate", "--new-key-file", &file, "--old-key-file", &old_file]);
            if reencrypt {
                command.arg("--reencrypt");
            }
            command.env_remove("DATABASE_URL").stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let moment = Duration::from_micros(numbers.below(span));
            // Enough kills for one rotation: the next begins.
            let killing = kills < 50 && own_kills < 14;
            if killing {
                std::thread::sleep(moment);
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            let when = format!("seed {seed}, rotation {rotations}, kill {kills} after {moment:?}");
            holds(&store, &before, [&old, &new], &beside, &when);
            if output.status.code().is_none() {
                kills += 1;
                own_kills += 1;
                continue;
            }
            assert!(output.status.success(), "{when}: {}", String::from_utf8_lossy(&output.stderr));
            break;
        }
        println!("rotation {rotations}: {own_kills} kills, {:?}", began.elapsed());
        all_open_with(&store, &new);
        none_opens_with(&store, &old);
        (old, old_file) = (new, file);
        assert!(rotations < 200, "it is hardly ever killed");
    }
    // Whatever the last rotation was, one that seals anew takes every leftover along.
    let (new, file) = key_file(&project, "last.key");
    let mut last = project.command(&["key", "rotate", "--reencrypt", "--new-key-file", &file]);
    let last = last.args(["--old-key-file", &old_file]).env_remove("DATABASE_URL").output().unwrap();
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    all_open_with(&store, &new);
    nothing_left(&project, &store, &new);
}
