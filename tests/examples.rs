//! The command lines of the examples for schedulers are ones that the binary takes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use yaml_rust2::{Yaml, YamlLoader};

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
            // What a step of a workflow runs, one command a line.
            Some("yml") => line.trim_start().strip_prefix("ripcord ").map(words),
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
                if extension != "yml" && arguments.iter().any(|argument| argument == verb) {
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

fn of<'a>(yaml: &'a Yaml, path: &[&str]) -> &'a Yaml {
    path.iter().fold(yaml, |at, key| &at[*key])
}

/// The commands of a job's steps, as the runner's shell gets them.
fn runs(job: &Yaml) -> Vec<String> {
    let steps = job["steps"].as_vec().unwrap();
    let lines = steps.iter().filter_map(|step| step["run"].as_str()).flat_map(str::lines);
    lines.filter(|line| line.starts_with("ripcord ")).map(str::to_owned).collect()
}

#[test]
fn the_workflow_is_what_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/github/migrations.yml");
    let documents = YamlLoader::load_from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let jobs = &documents[0]["jobs"];

    // Each waits for the one before.
    for (job, needs) in [("test", "validate"), ("staging", "test"), ("production", "staging")] {
        assert_eq!(of(jobs, &[job, "needs"]).as_str(), Some(needs));
    }
    // Where somebody must approve, and nothing runs for a pull request.
    for name in ["staging", "production"] {
        let job = &jobs[name];
        assert_eq!(job["environment"].as_str(), Some(name));
        assert_eq!(job["if"].as_str(), Some("github.event_name == 'push'"));
        assert_eq!(of(job, &["concurrency", "cancel-in-progress"]).as_bool(), Some(false));
        assert!(runs(job).iter().all(|line| line.starts_with(&format!("ripcord --env {name} "))), "{:?}", runs(job));
        assert!(runs(job).contains(&format!("ripcord --env {name} apply --yes")), "{:?}", runs(job));
        // The key and the database are the environment's secrets, the store outlives the job.
        for secret in ["DATABASE_URL", "BACKUP_ENCRYPTION_KEY"] {
            assert_eq!(of(job, &["env", secret]).as_str(), Some(&*format!("${{{{ secrets.{secret} }}}}")));
        }
        assert_eq!(job["runs-on"].as_str(), Some("self-hosted"));
        assert!(of(job, &["env", "RIPCORD_STORE"]).as_str().unwrap().starts_with('/'));
    }
    // What is written is what is uploaded, findings or none.
    let validate = &jobs["validate"];
    assert!(runs(validate)[0].ends_with(" validate --format sarif --output ripcord.sarif"), "{:?}", runs(validate));
    let upload = validate["steps"].as_vec().unwrap().last().unwrap();
    assert_eq!(of(upload, &["with", "sarif_file"]).as_str(), Some("ripcord.sarif"));
    assert!(upload["if"].as_str().unwrap().starts_with("always() && "));
    assert_eq!(of(validate, &["permissions", "security-events"]).as_str(), Some("write"));
    // Every command was parsed by the other test: none is hidden in a longer line.
    let text = std::fs::read_to_string(&path).unwrap();
    let all: usize = ["validate", "test", "staging", "production"].iter().map(|job| runs(&jobs[*job]).len()).sum();
    assert_eq!((all, commands(&path).len()), (16, 16), "{text}");
}
