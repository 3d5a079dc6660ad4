//! `wait`: until the server answers.

use std::time::{Duration, Instant};

use ripcord::Result;
use ripcord::error::Kind;
use ripcord::ops::RunReport;
use ripcord::ops::report::Outcome;
use ripcord::postgres::Session;

use crate::app::{App, Exit};
use crate::args::WaitArgs;

/// Runs it.
pub async fn run(app: &App, args: WaitArgs) -> Result<Exit> {
    let target = app.target()?;
    let deadline = Instant::now() + args.timeout;
    let mut stop = app.stop.clone();
    loop {
        match Session::connect(&target, "wait", Duration::from_secs(5)).await {
            Ok(session) => {
                session.close().await;
                app.out.report(&RunReport::new("wait", Outcome::Done, format!("{} answers", target.redacted())));
                return Ok(Exit::DONE);
            }
            // A wrong password or a missing database does not mend itself.
            Err(error) if error.kind() != Kind::Failed || is_final(&error) || Instant::now() >= deadline => {
                return Err(error);
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            stopped = stop.wait_for(|stop| *stop) => {
                let _ = stopped;
                return Err(ripcord::ops::context::stopped());
            }
        }
    }
}

/// 28: not let in; 3D000: no such database (PostgreSQL, appendix A).
fn is_final(error: &ripcord::Error) -> bool {
    error.sqlstate().is_some_and(|state| state.starts_with("28") || state == "3D000")
}
