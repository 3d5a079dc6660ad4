//! The sign of life of a run: the row of the lock is renewed while the run lasts.

use std::time::Duration;

use crate::control;
use crate::ids::RunId;
use crate::postgres::{Session, Target};

/// Several beats fall into the time after which a silent holder counts as dead.
const INTERVAL: Duration = Duration::from_secs(10);

/// Beats until it is dropped.
pub struct Heartbeat(tokio::task::JoinHandle<()>);

impl Heartbeat {
    /// Begins. Each beat has a connection of its own: one that idled in the target would be in the way of a
    /// swap. A beat that fails is left out, since the lock itself does not depend on it; the next one tells.
    pub fn begin(target: Target, run: RunId, limit: Duration) -> Heartbeat {
        Heartbeat(tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                if let Ok(session) = Session::connect(&target, "heartbeat", limit).await {
                    let _ = control::beat(session.client(), run).await;
                    session.close().await;
                }
            }
        }))
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}
