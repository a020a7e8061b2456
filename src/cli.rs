//! The command line: what can be asked, and which file answers it. Exit codes: 0 done, 1 failed, 2 misused.

mod campaigns;
mod check;
mod client;
mod completions;
mod configuration;
mod confirm;
mod contract;
mod dead_letters;
mod demo;
mod doctor;
mod endpoints;
mod event;
mod explain;
mod graph;
mod json_stream;
mod man;
mod openapi;
mod paginate;
mod progress;
mod publish;
mod ready;
mod replays;
mod sanitize;
mod serve;
mod stdio;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Durable webhook delivery: step events from RabbitMQ to customers' webhooks, and none lost.
#[derive(Parser)]
#[command(name = "waypost", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a worker: consume step events and deliver them
    Serve(serve::Serve),
    /// Show a whole journey on a real broker: deliver, fail, retry, give up, and account for every event
    Demo(demo::Demo),
    /// Check settings and campaign files, without a broker
    Check(check::Check),
    /// Look at settings, machine, broker and network, and say what to do about what is wrong
    Doctor(doctor::Doctor),
    /// List, read and change campaigns
    #[command(subcommand)]
    Campaigns(campaigns::Campaigns),
    /// Publish step events, from arguments, a file or standard input
    Publish(publish::Publish),
    /// Say what becomes of a step event and why: what matches, what does not, and what would be sent
    Explain(explain::Explain),
    /// See what could not be delivered, send it again, or give it up
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Erase what dead letters tell of a person
    Erase(dead_letters::erase::Erase),
    /// Follow, pause, resume and cancel replays of dead letters
    #[command(subcommand)]
    Replays(replays::Replays),
    /// See the endpoints in use of late: which are well, which fail, and what waits for them
    Endpoints(endpoints::Endpoints),
    /// Do the numbers add up: what was taken, and what became of it
    Verify(verify::Verify),
    /// Ask a worker whether it consumes and makes progress: a health check that needs no shell
    Ready(ready::Ready),
    /// Print the description of the HTTP API (OpenAPI 3.1), without a server
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    /// Print what others build against: JSON Schemas and the AsyncAPI description, without a server
    Contract(contract::Contract),
    /// Print the script by which a shell completes the commands
    Completions(completions::Completions),
    /// Print the manual page, or write one for each command
    Man(man::Man),
}

/// The settings of a command that runs a worker.
#[derive(Args)]
struct Settings {
    /// The settings file [default: ./waypost.toml where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Overrides a setting, e.g. `--set http.listen=127.0.0.1:9090`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
}

impl Settings {
    /// Loads them again and again: a file that was once read has to be there from then on, so that a worker does not fall back to
    /// defaults because somebody moved it.
    fn load_again(&mut self) -> Result<crate::config::Config, CliError> {
        let config = self.load()?;
        let usual = Path::new(crate::config::FILE);
        self.config = self.config.take().or_else(|| usual.exists().then(|| usual.to_owned()));
        Ok(config)
    }

    fn load(&self) -> Result<crate::config::Config, CliError> {
        let overrides: Vec<(&str, String)> =
            self.overrides.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        crate::config::Config::load(self.config.as_deref(), &overrides)
            .map_err(|error| CliError::Failed(error.to_string()))
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// Why a command did not do what it was asked; the text goes to standard error.
#[derive(Debug)]
enum CliError {
    /// Exit code 1.
    Failed(String),
    /// Exit code 2.
    Usage(String),
}

impl CliError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// With more to say.
    fn and(self, more: &str) -> Self {
        match self {
            Self::Failed(text) => Self::Failed(format!("{text}\n{more}")),
            Self::Usage(text) => Self::Usage(format!("{text}\n{more}")),
        }
    }
}

/// Runs the command line this process was given.
pub fn main() -> ExitCode {
    // One provider of cryptography for all of TLS; a second call finds the first one's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(CliError::new(format!("no runtime: {error}"))),
    };
    let done = runtime.block_on(run(cli.command));
    // A name that is still being resolved, or a read of standard input, is not waited for.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(failure),
    }
}

async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(serve) => Box::pin(serve.run()).await,
        Command::Demo(demo) => Box::pin(demo.run()).await,
        Command::Check(check) => check.run(),
        Command::Doctor(doctor) => Box::pin(doctor.run()).await,
        Command::Campaigns(campaigns) => campaigns.run().await,
        Command::Publish(publish) => publish.run().await,
        Command::Explain(explain) => explain.run().await,
        Command::OpenApi(openapi) => {
            openapi.run();
            Ok(())
        }
        Command::Contract(contract) => {
            contract.run();
            Ok(())
        }
        Command::Man(man) => man.run(),
        Command::Completions(completions) => {
            completions.run();
            Ok(())
        }
        Command::DeadLetters(dead_letters) => dead_letters.run().await,
        Command::Erase(erase) => erase.run().await,
        Command::Replays(replays) => replays.run().await,
        Command::Endpoints(endpoints) => endpoints.run().await,
        Command::Verify(verify) => verify.run().await,
        Command::Ready(ready) => ready.run().await,
    }
}

fn report(failure: CliError) -> ExitCode {
    let (text, code) = match failure {
        CliError::Failed(text) => (text, 1),
        CliError::Usage(text) => (text, 2),
    };
    eprintln!("error: {text}");
    ExitCode::from(code)
}
