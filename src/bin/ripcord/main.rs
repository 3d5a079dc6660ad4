//! The command line of ripcord: what is typed becomes settings, an operation of the library runs with
//! them, and what it tells is printed. Variables, files of configuration, terminals and signals are
//! known here and nowhere else.

mod app;
mod args;
mod commands;
mod config;
mod render;

use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use futures_util::FutureExt;
use ripcord::error::Kind;
use ripcord::{Error, Result};
use tokio::sync::watch;

use app::{App, Exit};
use args::{Cli, Command, Overrides, Reach};
use config::variables::Variables;
use render::scrub::Scrubber;
use render::{Renderer, Style};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage_error(&error)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let exit = match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(run(cli));
            // A blocking read at a dead disk or prompt must not keep a finished process alive.
            runtime.shutdown_background();
            exit
        }
        Err(error) => {
            let style = Style::of(cli.global.json, true, false, false);
            let error = Error::failed("threads cannot be started").because(error);
            Renderer::new(style, Arc::default()).error("ripcord", &error, None);
            Exit(error.kind().exit_code())
        }
    };
    ExitCode::from(exit.0)
}

async fn run(cli: Cli) -> Exit {
    let command = cli.command.clone().unwrap_or_default();
    let reach = command.reach();
    let scrubber = Arc::new(Scrubber::default());
    let global = &cli.global;
    if let Some(url) = &global.database_url {
        scrubber.add(render::scrub::passwords_in(url));
    }
    let mut style = Style::of(global.json, global.no_color, global.quiet, global.verbose);
    let first = Renderer::new(style, Arc::clone(&scrubber));

    if let Some(exit) = without_settings(&cli, &command, &first).await {
        return exit;
    }
    let resolved = std::env::current_dir()
        .map_err(|error| Error::usage("the current folder cannot be found").because(error))
        .and_then(|cwd| config::resolve(&Overrides::of(&cli, &command), Variables::of_process(), &cwd))
        .and_then(|resolved| refuse_dry_run(&command, reach, resolved.dry_run).map(|()| resolved));
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => return fail(&first, &command, &error),
    };
    style.verbosity = resolved.verbosity;
    let out = Arc::new(Renderer::new(style, Arc::clone(&scrubber)));
    tell_panics(Arc::clone(&out));
    // The sender must live as long as the work where nobody takes signals.
    let (_quiet, never) = watch::channel(false);
    let stop = if reach.leaves_something() { app::watch_signals(Arc::clone(&out), reach.changes()) } else { Ok(never) };
    let app = stop.and_then(|stop| App::new(resolved, Arc::clone(&out), scrubber, stop, reach));
    let result = match app {
        Ok(app) => without_panic(reach, dispatch(&app, command.clone())).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(exit) => exit,
        Err(error) => fail(&out, &command, &error),
    }
}

/// A defect of ours must not end in an exit code that means something else. What a panic left of the
/// database is not known where a command changes it.
async fn without_panic(reach: Reach, work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let panicked = match std::panic::AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => return result,
        Err(panicked) => panicked,
    };
    let what = panicked
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panicked.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let kind = match reach.changes() {
        true => Kind::NotRecovered,
        false => Kind::Failed,
    };
    Err(Error::new(kind, "a defect in ripcord ended the command").because(what).hint("ripcord recover"))
}

/// Where a panic happened, through the scrubber like everything else.
fn tell_panics(out: Arc<Renderer>) {
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(place) = panic.location() {
            out.warn(&format!("defect at {}:{}", place.file(), place.line()));
        }
    }));
}

/// `DRY_RUN=true` promises that nothing changes: a command that cannot keep it does not begin.
fn refuse_dry_run(command: &Command, reach: Reach, dry_run: bool) -> Result<()> {
    if dry_run && reach.refuses_dry_run() {
        return Err(Error::usage(format!("`DRY_RUN=true` is set, and `{}` has no dry run", command.name()))
            .hint("unset DRY_RUN"));
    }
    Ok(())
}

fn fail(out: &Renderer, command: &Command, error: &Error) -> Exit {
    let database = match command.reach() {
        Reach::Changes | Reach::ChangesWithDryRun => render::result::database_after(error),
        // Whatever became of the store or a scratch database.
        Reach::Stores | Reach::StoresWithDryRun => Some("unchanged"),
        Reach::Nothing | Reach::Looks => None,
    };
    out.error(command.name(), error, database);
    Exit(error.kind().exit_code())
}

/// The commands that work in a folder whose configuration is broken or missing.
async fn without_settings(cli: &Cli, command: &Command, out: &Renderer) -> Option<Exit> {
    let result = match command {
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
        Command::Init => commands::init::run(out, &cli.global),
        Command::Key { command: args::KeyCommand::Generate { output } } => {
            commands::key::generate(out, output.as_deref())
        }
        _ => return None,
    };
    Some(match result {
        Ok(exit) => exit,
        Err(error) => fail(out, command, &error),
    })
}

async fn dispatch(app: &App, command: Command) -> Result<Exit> {
    match command {
        Command::Doctor => commands::doctor::run(app).await,
        Command::Wait(args) => commands::wait::run(app, args).await,
        Command::New(args) => commands::new::run(app, args),
        Command::Validate(args) => commands::validate::run(app, args).await,
        Command::Graph(args) => commands::graph::run(app, &args),
        Command::Analyze(args) => commands::analyze::run(app, args).await,
        Command::Cancel(args) => commands::cancel::run(app, args).await,
        Command::Status(args) => commands::status::run(app, args).await,
        Command::Run { command } => commands::run::run(app, command).await,
        Command::History(args) => commands::history::run(app, args).await,
        Command::Audit(args) => commands::audit::run(app, args).await,
        Command::Plan(args) => commands::plan::run(app, args).await,
        Command::Apply(args) => commands::apply::run(app, args).await,
        Command::Rollback(args) => commands::rollback::run(app, args).await,
        Command::Recover(args) => commands::recover::run(app, args).await,
        Command::Backup { command } => commands::backup::run(app, command).await,
        Command::Restore(args) => commands::restore::run(app, args).await,
        Command::Prune(args) => commands::prune::run(app, args).await,
        Command::Aside { command } => commands::aside::run(app, command).await,
        Command::Salvage(args) => commands::salvage::run(app, args).await,
        Command::Rehearse(args) => commands::rehearse::run(app, args).await,
        Command::Drill(args) => commands::drill::run(app, args).await,
        Command::Key { command } => commands::key::run(app, command).await,
        Command::Lock { command } => commands::lock::run(app, command).await,
        Command::Renumber(args) => commands::renumber::run(app, args).await,
        Command::Repair(args) => commands::repair::run(app, args).await,
        Command::Baseline(args) => commands::baseline::run(app, args).await,
        Command::Adopt(args) => commands::adopt::run(app, args).await,
        Command::Tag(args) => commands::releases::tag(app, args).await,
        Command::Release(args) => commands::releases::release(app, args).await,
        Command::Changelog(args) => commands::releases::changelog(app, args).await,
        Command::ResetFailed => commands::reset_failed::run(app).await,
        Command::Fresh(args) => commands::fresh::run(app, args).await,
        Command::Health => commands::health::run(app).await,
        Command::VerifyDb => commands::verify_db::run(app).await,
        Command::Config => commands::config::run(app),
        Command::Init | Command::Completions(_) | Command::Man(_) => {
            Err(Error::usage(format!("`{}` needs no settings", command.name())))
        }
    }
}

/// A wrong command line, in the form of every other error. Help and version are no errors.
fn usage_error(error: &clap::Error) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return 0;
    }
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let style = Style::of(
        words.iter().any(|word| word == "--json"),
        words.iter().any(|word| word == "--no-color"),
        false,
        false,
    );
    let scrubber = Scrubber::default();
    scrubber.add(words.iter().flat_map(|word| render::scrub::passwords_in(word)));
    let text = error.render().to_string();
    let typed = command_typed(&words);
    let help = format!("{typed} --help");
    let mut wrong = Error::usage(usage_fact(error, &text));
    for line in text.lines().skip(1) {
        if let Some(tip) = line.trim().strip_prefix("tip: ") {
            wrong = wrong.because(tip.replace('\'', "`"));
        } else if let Some(values) = line.trim().strip_prefix("[possible values: ") {
            wrong = wrong.because(format!("possible values are {}", values.trim_end_matches(']')));
        }
    }
    let wrong = wrong.hint(help);
    Renderer::new(style, Arc::new(scrubber)).error(typed.trim_start_matches("ripcord "), &wrong, None);
    wrong.kind().exit_code()
}

fn usage_fact(error: &clap::Error, text: &str) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a subcommand is missing".to_owned();
    }
    let mut lines = text.lines();
    let mut fact = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    if error.kind() == ErrorKind::MissingRequiredArgument || fact.ends_with(':') {
        // The list of what is missing stands on lines of its own.
        let more: Vec<&str> =
            lines.map(str::trim).take_while(|line| !line.is_empty()).filter(|line| !line.starts_with('[')).collect();
        fact = format!("{} {}", fact, more.join(", "));
    }
    fact.replace('\'', "`")
}

/// `ripcord backup create` of `ripcord -e dev backup create --nonsense`.
fn command_typed(words: &[String]) -> String {
    let mut command = Cli::command();
    let mut typed = "ripcord".to_owned();
    for word in words.iter().skip(1) {
        let Some(next) = command.find_subcommand(word).cloned() else {
            continue;
        };
        typed = format!("{typed} {}", next.get_name());
        command = next;
    }
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_as_what_it_leaves() {
        for (reach, code) in [(Reach::ChangesWithDryRun, 4), (Reach::Looks, 1)] {
            let error = without_panic(reach, async { panic!("a broken promise") }).await.unwrap_err();
            assert_eq!(error.kind().exit_code(), code);
            assert_eq!(error.causes(), ["a broken promise"]);
        }
        let fine = without_panic(Reach::Looks, async { Ok(Exit::DONE) }).await;
        assert_eq!(fine.unwrap(), Exit::DONE);
    }

    #[test]
    fn the_command_is_found_among_the_words() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(command_typed(&words("x -e dev up --nope")), "ripcord apply");
        assert_eq!(command_typed(&words("x backup create --nope")), "ripcord backup create");
        assert_eq!(command_typed(&words("x nope")), "ripcord");
    }
}
