use super::*;
use crate::error::Kind;

/// Stands in for the keyed MAC: the tests need one that depends on every byte and on the key.
fn mac(key: u8) -> Mac {
    use sha2::{Digest, Sha256};
    Arc::new(move |bytes| {
        let digest = Sha256::new().chain_update([key]).chain_update(bytes);
        digest.finalize().into()
    })
}

fn opened() -> Step {
    Step::Opened {
        command: "apply".to_owned(),
        database: "shop".to_owned(),
        database_oid: 16384,
        holder: "me@here:1".to_owned(),
        settings: serde_json::json!({"on_failure": "auto"}),
    }
}

fn closed() -> Step {
    Step::Closed { outcome: "done".to_owned(), database: "changed".to_owned() }
}

fn up(version: &str) -> Step {
    Step::UpDone { version: version.to_owned(), name: "orders".to_owned(), touched: None }
}

struct Run {
    log: MemoryLog,
    lineage: Lineage,
    run: RunId,
}

impl Run {
    /// A journal of five steps: opened, backup skipped, two ups, closed.
    fn whole() -> Run {
        let run = Run::empty();
        let mut journal = run.begin();
        journal.record(Step::BackupSkipped).unwrap();
        journal.record(up("1")).unwrap();
        journal.record(up("2")).unwrap();
        journal.record(closed()).unwrap();
        run
    }

    fn empty() -> Run {
        Run { log: MemoryLog::new(), lineage: Lineage::new(), run: RunId::new() }
    }

    fn begin(&self) -> Journal {
        let log = Box::new(self.log.clone());
        Journal::begin_with(log, self.lineage, self.run, mac(1), opened()).unwrap()
    }

    fn resume(&self) -> Result<Journal> {
        let log = Box::new(self.log.clone());
        Journal::resume_with(log, self.lineage, self.run, mac(1))
    }

    fn refusal(&self) -> String {
        let error = self.resume().err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.message().contains(&self.run.to_string()), "{error}");
        error.one_line()
    }

    /// Writes a step anew with a valid MAC after `change`.
    fn reseal(&self, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        self.log.tamper(|steps| {
            let text = String::from_utf8(steps[name].clone()).unwrap();
            let mut body = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            change(&mut body);
            let body = body.to_string();
            let mac = hex::encode(mac(1)(body.as_bytes()));
            steps.insert(name.to_owned(), format!("{body}\n{mac}\n").into_bytes());
        });
    }
}

#[test]
fn what_was_recorded_is_what_is_resumed() {
    let run = Run::empty();
    let mut journal = run.begin();
    journal.record(Step::FenceBegan { previous: None }).unwrap();
    let mut journal = run.resume().unwrap();
    assert!(!journal.is_closed());
    journal.record(up("1")).unwrap();
    journal.record(closed()).unwrap();
    assert!(journal.is_closed());
    let again = run.resume().unwrap();
    assert!(again.is_closed());
    let steps: Vec<_> = again.entries().iter().map(|entry| &entry.step).collect();
    assert_eq!(steps, [&opened(), &Step::FenceBegan { previous: None }, &up("1"), &closed()]);
    for (entry, expected) in again.entries().iter().zip(journal.entries()) {
        assert_eq!((entry.sequence, entry.at), (expected.sequence, expected.at));
    }
    let names: Vec<_> = run.log.load().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["000000.json", "000001.json", "000002.json", "000003.json"]);
}

#[test]
fn a_journal_opens_once_and_ends_once() {
    let run = Run::empty();
    let log = || Box::new(run.log.clone());
    assert!(Journal::begin_with(log(), run.lineage, run.run, mac(1), closed()).is_err());
    let mut journal = run.begin();
    assert!(Journal::begin_with(log(), run.lineage, run.run, mac(1), opened()).is_err());
    assert!(journal.record(opened()).is_err());
    journal.record(closed()).unwrap();
    let error = journal.record(Step::FenceEnded).unwrap_err();
    assert!(error.message().contains("is closed"), "{error}");
    assert_eq!(run.resume().unwrap().entries().len(), 2);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let run = Run::whole();
    let name = "000002.json";
    let whole = run.log.load().unwrap();
    let length = whole.iter().find(|step| step.0 == name).unwrap().1.len();
    for position in 0..length {
        run.log.tamper(|steps| steps.get_mut(name).unwrap()[position] ^= 1);
        let text = run.refusal();
        assert!(text.contains("step 2"), "byte {position}: {text}");
        run.log.tamper(|steps| steps.get_mut(name).unwrap()[position] ^= 1);
    }
    run.resume().unwrap();
}

#[test]
fn every_cut_is_noticed() {
    let run = Run::whole();
    let whole = run.log.load().unwrap().pop().unwrap().1;
    for length in 0..whole.len() {
        run.log.tamper(|steps| steps.get_mut("000004.json").unwrap().truncate(length));
        let text = run.refusal();
        assert!(text.contains("step 4"), "{length} bytes: {text}");
        let whole = whole.clone();
        run.log.tamper(|steps| drop(steps.insert("000004.json".to_owned(), whole)));
    }
    run.resume().unwrap();
}

#[test]
fn each_violation_has_its_own_words() {
    type Change = fn(&Run);
    let cases: &[(&str, Change)] = &[
        ("step 2 is missing", |run| {
            run.log.tamper(|steps| drop(steps.remove("000002.json")));
        }),
        ("step 0 is missing", |run| {
            run.log.tamper(|steps| drop(steps.remove("000000.json")));
        }),
        ("has no journal", |run| run.log.tamper(|steps| steps.clear())),
        ("step 1 was altered", |run| {
            run.log.tamper(|steps| {
                let text = String::from_utf8(steps["000001.json"].clone()).unwrap();
                let text = text.replace("backup_skipped", "fence_ended");
                steps.insert("000001.json".to_owned(), text.into_bytes());
            });
        }),
        ("step 1 says that it is step 2", |run| {
            run.log.tamper(|steps| {
                let two = steps["000002.json"].clone();
                steps.insert("000001.json".to_owned(), two);
            });
        }),
        ("step 2 does not follow the step before it", |run| {
            run.reseal("000001.json", |body| body["at"] = "2020-01-01T00:00:00Z".into());
        }),
        ("step 1 belongs to another run", |run| {
            let run_id = RunId::new().to_string();
            run.reseal("000001.json", |body| body["run"] = run_id.into());
        }),
        ("step 1 belongs to another database", |run| {
            let lineage = Lineage::new().to_string();
            run.reseal("000001.json", |body| body["lineage"] = lineage.into());
        }),
        ("step 1 has format 2", |run| {
            run.reseal("000001.json", |body| body["format"] = 2.into());
        }),
        ("step 1 is authentic but not understood", |run| {
            run.reseal("000001.json", |body| body["step"] = serde_json::json!({"step": "leap"}));
        }),
        ("it does not begin with the step `opened`", |run| {
            run.reseal("000000.json", |body| {
                body["step"] = serde_json::json!({"step": "fence_began"});
            });
        }),
        ("step 1 opens it a second time", |run| {
            run.reseal("000001.json", |body| {
                body["step"] = serde_json::to_value(opened()).unwrap();
            });
        }),
        ("step 4 comes after it was closed", |run| {
            run.log.tamper(|steps| drop(steps.remove("000004.json")));
            let mut journal = run.resume().unwrap();
            journal.entries.truncate(3);
            journal.last_mac = last_mac(run, "000002.json");
            run.log.tamper(|steps| drop(steps.remove("000003.json")));
            journal.record(closed()).unwrap();
            journal.entries.last_mut().unwrap().step = up("2");
            journal.record(Step::FenceEnded).unwrap();
        }),
        ("step 3 is cut short or is no journal step", |run| {
            run.log.tamper(|steps| steps.get_mut("000003.json").unwrap().clear());
        }),
    ];
    for (expected, change) in cases {
        let run = Run::whole();
        change(&run);
        let text = run.refusal();
        assert!(text.contains(expected), "wanted {expected:?}: {text}");
    }
}

fn last_mac(run: &Run, name: &str) -> [u8; MAC_BYTES] {
    let steps = run.log.load().unwrap();
    let bytes = &steps.iter().find(|step| step.0 == name).unwrap().1;
    let text = std::str::from_utf8(bytes).unwrap();
    hex::decode(text.lines().nth(1).unwrap()).unwrap().try_into().unwrap()
}

#[test]
fn another_key_is_told_at_the_first_step() {
    let run = Run::whole();
    let log = Box::new(run.log.clone());
    let error = Journal::resume_with(log, run.lineage, run.run, mac(2)).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.message().contains("step 0"), "{error}");
    assert!(error.message().contains("another key"), "{error}");
}

#[test]
fn another_run_or_lineage_is_refused() {
    let run = Run::whole();
    for (lineage, id, part) in
        [(Lineage::new(), run.run, "another database"), (run.lineage, RunId::new(), "another run")]
    {
        let log = Box::new(run.log.clone());
        let error = Journal::resume_with(log, lineage, id, mac(1)).err().unwrap();
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn files_that_are_no_steps_are_passed_over() {
    let run = Run::whole();
    run.log.tamper(|steps| {
        for name in [".DS_Store", "000002.json.bak", "2.json", "README", "+00001.json"] {
            steps.insert(name.to_owned(), b"junk".to_vec());
        }
    });
    assert_eq!(run.resume().unwrap().entries().len(), 5);
}

#[test]
fn the_order_of_steps_is_that_of_numbers() {
    assert_eq!(object_name(7), "000007.json");
    assert_eq!(object_name(1_000_000), "1000000.json");
}

#[test]
fn two_that_go_on_with_one_run_collide() {
    let run = Run::empty();
    let mut first = run.begin();
    let mut second = run.resume().unwrap();
    first.record(up("1")).unwrap();
    let error = second.record(up("1")).unwrap_err();
    assert!(error.message().contains("step 1"), "{error}");
    // It stays out for good, and what the first one wrote is whole.
    let error = second.record(closed()).unwrap_err();
    assert!(error.message().contains("by another process"), "{error}");
    assert!(second.record(closed()).is_err());
    first.record(closed()).unwrap();
    assert_eq!(run.resume().unwrap().entries().len(), 3);
}

/// A log whose next append fails, before or after the step is there.
struct Failing {
    log: MemoryLog,
    fail: Arc<Mutex<Option<bool>>>,
}

impl StepLog for Failing {
    fn append(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.fail.lock().unwrap().take() {
            Some(written) => {
                if written {
                    self.log.append(name, bytes)?;
                }
                Err(Error::failed("the disk is gone"))
            }
            None => self.log.append(name, bytes),
        }
    }

    fn load(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.log.load()
    }
}

#[test]
fn after_a_failed_write_the_journal_goes_on() {
    for written in [false, true] {
        let run = Run::empty();
        let fail = Arc::new(Mutex::new(None));
        let log = Box::new(Failing { log: run.log.clone(), fail: Arc::clone(&fail) });
        let mut journal = Journal::begin_with(log, run.lineage, run.run, mac(1), opened()).unwrap();
        *fail.lock().unwrap() = Some(written);
        let error = journal.record(up("1")).unwrap_err();
        assert!(error.one_line().contains("the disk is gone"), "{error}");
        assert_eq!(journal.entries().len(), 1);
        let failed = Step::Failed { error: "no journal".to_owned() };
        journal.record(failed.clone()).unwrap();
        let steps: Vec<_> = run.resume().unwrap().entries().iter().map(|entry| entry.step.clone()).collect();
        let expected = if written { vec![opened(), up("1"), failed] } else { vec![opened(), failed] };
        assert_eq!(steps, expected);
    }
}
