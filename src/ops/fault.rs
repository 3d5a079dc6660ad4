//! Points at which the tests make the process die or wait, so that every step is interrupted for real.
//! Outside tests the list is empty: the release binary never fills it.

use std::path::PathBuf;
use std::time::Duration;

/// What happens at which points.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    points: Vec<(String, Action)>,
}

#[derive(Clone, Debug)]
enum Action {
    /// SIGKILL to ourselves.
    Kill,
    /// A file appears, and the process waits until it is gone.
    Wait(PathBuf),
}

impl Faults {
    /// From `name=kill,name=wait:/path`. Unknown words are ignored.
    pub fn parse(text: &str) -> Faults {
        let points = text
            .split(',')
            .filter_map(|part| {
                let (name, action) = part.split_once('=')?;
                let action = match action.split_once(':') {
                    Some(("wait", path)) => Action::Wait(PathBuf::from(path)),
                    _ if action == "kill" => Action::Kill,
                    _ => return None,
                };
                Some((name.to_owned(), action))
            })
            .collect();
        Faults { points }
    }

    /// Does what was asked for at this point.
    pub async fn at(&self, name: &str) {
        for (point, action) in &self.points {
            if point != name {
                continue;
            }
            match action {
                Action::Kill => {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                Action::Wait(path) => {
                    if std::fs::write(path, name).is_ok() {
                        while path.exists() {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
            }
        }
    }
}
