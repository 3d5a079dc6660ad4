//! A step's form in the store, and the checks of the whole chain.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entry, Step};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::ids::{Lineage, RunId};

/// The format that is written and read.
pub(super) const FORMAT: u32 = 1;

/// The length of a MAC in bytes.
pub(super) const MAC_BYTES: usize = 32;

/// `JournalKey::mac`, or what stands in for it.
pub(super) type Mac = Arc<dyn Fn(&[u8]) -> [u8; MAC_BYTES] + Send + Sync>;

/// The first line of an object.
#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) format: u32,
    pub(super) lineage: Lineage,
    pub(super) run: RunId,
    pub(super) sequence: u64,
    pub(super) at: Time,
    pub(super) previous: String,
    pub(super) step: Step,
}

/// An object's bytes and its MAC.
pub(super) fn seal(body: &Body, mac: &Mac) -> Result<(Vec<u8>, [u8; MAC_BYTES])> {
    let mut bytes =
        serde_json::to_vec(body).map_err(|error| Error::failed("could not write a journal step").because(error))?;
    let mac = mac(&bytes);
    bytes.push(b'\n');
    bytes.extend_from_slice(hex::encode(mac).as_bytes());
    bytes.push(b'\n');
    Ok((bytes, mac))
}

pub(super) fn object_name(sequence: u64) -> String {
    format!("{sequence:06}.json")
}

/// The number in an object's name; `None`: not one of ours (an editor's or a file system's).
fn sequence_of(name: &str) -> Option<u64> {
    let sequence = name.strip_suffix(".json")?.parse().ok()?;
    (object_name(sequence) == name).then_some(sequence)
}

/// Checks every step; returns them and the last one's MAC.
pub(super) fn check(
    stored: Vec<(String, Vec<u8>)>,
    lineage: Lineage,
    run: RunId,
    mac: &Mac,
) -> Result<(Vec<Entry>, [u8; MAC_BYTES])> {
    let mut steps: Vec<(u64, Vec<u8>)> =
        stored.into_iter().filter_map(|(name, bytes)| Some((sequence_of(&name)?, bytes))).collect();
    // By number: from a million on, names no longer sort as the numbers do.
    steps.sort_by_key(|(sequence, _)| *sequence);
    if steps.is_empty() {
        return Err(Error::refused(format!("run `{run}` has no journal")));
    }
    let mut entries = Vec::with_capacity(steps.len());
    let mut previous = [0; MAC_BYTES];
    for ((named, bytes), expected) in steps.into_iter().zip(0_u64..) {
        if named != expected {
            return Err(refused(run, format!("step {expected} is missing")));
        }
        let (entry, found) = check_step(&bytes, expected, &previous, lineage, run, mac)?;
        let opened = matches!(entry.step, Step::Opened { .. });
        if opened != (expected == 0) {
            return Err(refused(
                run,
                if opened {
                    format!("step {expected} opens it a second time")
                } else {
                    "it does not begin with the step `opened`".to_owned()
                },
            ));
        }
        if entries.last().is_some_and(|last: &Entry| matches!(last.step, Step::Closed { .. })) {
            return Err(refused(run, format!("step {expected} comes after it was closed")));
        }
        entries.push(entry);
        previous = found;
    }
    Ok((entries, previous))
}

fn check_step(
    bytes: &[u8],
    sequence: u64,
    previous: &[u8; MAC_BYTES],
    lineage: Lineage,
    run: RunId,
    mac: &Mac,
) -> Result<(Entry, [u8; MAC_BYTES])> {
    let fail = |what: &str| Err(refused(run, format!("step {sequence} {what}")));
    let Some((body, found)) = parts(bytes) else {
        return fail("is cut short or is no journal step");
    };
    if !equal(&mac(body), &found) {
        // With another key every step fails, so the first one tells what a later one cannot be.
        return fail(if sequence == 0 {
            "does not authenticate: it was altered, or written with another key"
        } else {
            "was altered"
        });
    }
    let body: Body = match serde_json::from_slice(body) {
        Ok(body) => body,
        // It is authentic, so a newer version of ripcord wrote it.
        Err(error) => {
            return Err(refused(run, format!("step {sequence} is authentic but not understood"))
                .because(error)
                .hint("use the version of ripcord that began the run, or a newer one"));
        }
    };
    if body.format != FORMAT {
        return Err(refused(run, format!("step {sequence} has format {}, not {FORMAT}", body.format))
            .hint("use the version of ripcord that began the run, or a newer one"));
    }
    if body.lineage != lineage {
        return fail(&format!("belongs to another database, lineage `{}`", body.lineage));
    }
    if body.run != run {
        return fail(&format!("belongs to another run, `{}`", body.run));
    }
    if body.sequence != sequence {
        return fail(&format!("says that it is step {}", body.sequence));
    }
    if body.previous != hex::encode(previous) {
        return fail("does not follow the step before it");
    }
    let entry = Entry { sequence, at: body.at, step: body.step };
    Ok((entry, found))
}

/// The body's exact bytes and the MAC of an object.
fn parts(bytes: &[u8]) -> Option<(&[u8], [u8; MAC_BYTES])> {
    let bytes = bytes.strip_suffix(b"\n")?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n')?;
    let (body, line) = bytes.split_at(end);
    let mac = hex::decode(line.get(1..)?).ok()?.try_into().ok()?;
    Some((body, mac))
}

/// Compares in a time that does not depend on where the first difference is.
fn equal(a: &[u8; MAC_BYTES], b: &[u8; MAC_BYTES]) -> bool {
    a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

pub(super) fn refused(run: RunId, what: impl Into<String>) -> Error {
    let what = what.into();
    Error::refused(format!("the journal of run `{run}` cannot be trusted: {what}")).hint(
        "compare the run's folder in the store with a copy of it; \
         until then nothing is done by this journal",
    )
}
