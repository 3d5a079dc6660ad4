//! The command lines of the examples for schedulers are ones that the binary takes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every file below the folder of examples.
fn files() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The arguments of every ripcord command in a file: `ExecStart=` of a unit, the command of a cron line, `args:`
/// of a container.
fn commands(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let words = |command: &str| -> Vec<String> { command.split_whitespace().map(str::to_owned).collect() };
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| match path.extension().and_then(|extension| extension.to_str()) {
            Some("service") => line.strip_prefix("ExecStart=/usr/local/bin/ripcord ").map(words),
            // Five fields of time, the user, the program.
            Some("cron") => {
                let words = words(line);
                (words.get(6).is_some_and(|program| program == "ripcord")).then(|| words[7..].to_vec())
            }
            Some("yaml") => line
                .trim_start()
                .strip_prefix("args: ")
                .map(|list| serde_json::from_str(list).expect("args are one line of JSON")),
            _ => None,
        })
        .collect()
}

fn help(arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ripcord"))
        .args(arguments)
        .arg("--help")
        .env_clear()
        .output()
        .expect("the binary starts")
}

#[test]
fn every_command_of_the_examples_is_accepted() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for path in files() {
        for arguments in commands(&path) {
            let output = help(&arguments);
            assert!(
                output.status.success(),
                "{}: ripcord {}\n{}",
                path.display(),
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
            let extension = path.extension().unwrap().to_str().unwrap();
            for verb in ["backup", "prune", "drill"] {
                if arguments.iter().any(|argument| argument == verb) {
                    *seen.entry(format!("{extension} {verb}")).or_default() += 1;
                }
            }
        }
    }
    // Each of the three, in each kind of file: a file that is not understood would otherwise pass unseen.
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn the_parser_refuses_what_it_does_not_know_even_before_help() {
    for wrong in ["no-such-command", "prune --no-such-option", "backup create --purpose weekly"] {
        let arguments: Vec<String> = wrong.split(' ').map(str::to_owned).collect();
        assert!(!help(&arguments).status.success(), "`ripcord {wrong} --help` was accepted");
    }
}

#[test]
fn every_timer_starts_a_service_that_is_there() {
    let timers: Vec<PathBuf> =
        files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "timer")).collect();
    assert_eq!(timers.len(), 3);
    for timer in timers {
        assert!(timer.with_extension("service").exists(), "{} starts nothing", timer.display());
        assert!(std::fs::read_to_string(&timer).unwrap().contains("\nOnCalendar="), "{}", timer.display());
    }
}
