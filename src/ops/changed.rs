//! What a run committed: what the ladder has to take back.

use super::run::Run;
use crate::control;
use crate::error::Result;
use crate::journal::Step;
use crate::migration::label;

/// What a run committed to the target, as the target itself tells, and the journal where it cannot.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Applied and recorded, newest first.
    pub(super) applied: Vec<control::MigrationRow>,
    /// Begun outside a transaction and not recorded: some of it may stand.
    pub(super) partial: Option<(String, String)>,
    /// Whether a statement of that one is done for certain.
    partial_done: bool,
    /// A script that ended its own transaction: what stands is not known.
    pub(super) escaped: Option<String>,
    /// Hooks whose SQL changed something.
    pub(super) hooks: Vec<String>,
    /// Of a rollback: what its DOWNs have undone, or begun to undo outside a transaction.
    pub(super) undone: Vec<String>,
    /// Versions whose DOWN the ladder has begun: what it brought back is still to be proved.
    pub(super) downs_begun: Vec<String>,
}

impl Changed {
    /// Nothing of the run stands, and nothing that did was taken back by a DOWN, which may have lied.
    pub(super) fn is_empty(&self) -> bool {
        self.applied.is_empty()
            && self.partial.is_none()
            && self.escaped.is_none()
            && self.hooks.is_empty()
            && self.undone.is_empty()
            && self.downs_begun.is_empty()
    }

    /// A migration outside a transaction has statements that are done.
    pub(super) fn stands_in_part(&self) -> bool {
        self.partial.is_some() && self.partial_done
    }

    /// `` `001_a` applied, `002_b` applied in part``; `whose` stands before the first `applied`.
    pub(super) fn tell(&self, whose: &str) -> String {
        let applied: Vec<String> =
            self.applied.iter().rev().map(|row| format!("`{}`", label(&row.version, &row.name))).collect();
        let mut parts = Vec::new();
        if !applied.is_empty() {
            parts.push(format!("{}{whose} applied", applied.join(", ")));
        }
        parts.extend(self.partial.iter().map(|(version, name)| format!("`{}` applied in part", label(version, name))));
        parts.extend(self.undone.iter().map(|label| format!("`{label}` rolled back")));
        parts.extend(self.hooks.iter().map(|hook| format!("what the hook `{hook}` changed")));
        if parts.is_empty() {
            parts.extend(self.escaped.iter().map(|_| "a script that ended its own transaction in part".to_owned()));
        }
        if parts.is_empty() && !self.downs_begun.is_empty() {
            parts.push("the run's migrations are undone by their DOWN, which is not proved".to_owned());
        }
        parts.join(", ")
    }
}

/// What a run committed: the target's own rows decide, so that a COMMIT whose answer was lost is known too.
pub(super) async fn changed_by(run: &Run<'_>) -> Result<Changed> {
    let rows = control::applied(run.live.session.client()).await?;
    let applied: Vec<_> = rows.into_iter().filter(|row| row.run == Some(run.id)).rev().collect();
    let undone = undone_by(run).await?;
    let mut downs_begun = Vec::new();
    let mut begun: Option<(String, String)> = None;
    let (mut partial, mut partial_done, mut escaped, mut hooks) = (None, false, None, Vec::new());
    for entry in run.journal.entries() {
        match &entry.step {
            Step::UpBegan { version, name, transactional: false, .. } => {
                begun = Some((version.clone(), name.clone()));
                (partial, partial_done) = (None, false);
            }
            // Sent, or about to be committed.
            Step::StatementBegan { .. } => partial = begun.clone(),
            Step::StatementDone { .. } | Step::Round { .. } => {
                partial = begun.clone();
                partial_done = true;
            }
            Step::StatementUndone { .. } if !partial_done => partial = None,
            Step::UpDone { version, .. } | Step::DownDone { version, .. }
                if begun.as_ref().is_some_and(|(begun, _)| begun == version) =>
            {
                (begun, partial, partial_done) = (None, None, false);
            }
            Step::DownBegan { version, .. } if run.row.command != "rollback" && !downs_begun.contains(version) => {
                downs_begun.push(version.clone());
            }
            Step::HookChanged { hook, .. } if !hooks.contains(hook) => hooks.push(hook.clone()),
            Step::Failed { error } if error.contains("ended the transaction that it ran in") => {
                escaped = Some(error.clone())
            }
            _ => {}
        }
    }
    // The last statement may be recorded by the row and not yet by the journal.
    if let Some((version, _)) = &partial
        && applied.iter().any(|row| row.version == *version)
    {
        partial = None;
    }
    Ok(Changed { applied, partial, partial_done, escaped, hooks, undone, downs_begun })
}

/// What the DOWNs of a rollback have undone. Those of the ladder are no change: they take the run's own back.
async fn undone_by(run: &Run<'_>) -> Result<Vec<String>> {
    if run.row.command != "rollback" {
        return Ok(Vec::new());
    }
    let rows = control::rollbacks(run.live.session.client()).await?;
    let of_run = rows.iter().filter(|row| row.run == Some(run.id));
    let mut undone: Vec<String> = of_run.map(|row| label(&row.version, &row.name)).collect();
    for entry in run.journal.entries() {
        if let Step::DownBegan { version, name, transactional: false } = &entry.step {
            let label = label(version, name);
            if !undone.contains(&label) {
                undone.push(label);
            }
        }
    }
    Ok(undone)
}
