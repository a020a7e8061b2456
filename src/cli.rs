//! The command line: parses the arguments and runs the command. Each command has a file of its own.
//!
//! Exit codes: 0 done, 1 failed, 2 usage error.

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
mod error;
mod event;
mod explain;
mod graph;
mod json_stream;
mod letter_filter;
mod man;
mod openapi;
mod progress;
mod publish;
mod ready;
mod replays;
mod sanitize;
mod serve;
mod settings;
mod stdio;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use error::CliError;

/// Durable webhook delivery: brings step events from RabbitMQ to customers' webhooks, and loses none
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
    /// Run a demonstration on a real broker: deliver, fail, retry, give up, and account for every event
    Demo(demo::Demo),
    /// Check settings and campaign files, without a broker
    Check(check::CheckArgs),
    /// Check settings, machine, broker and network, and say how to fix what is wrong
    Doctor(doctor::Doctor),
    /// List, read and change campaigns
    #[command(subcommand)]
    Campaigns(campaigns::CampaignsCommand),
    /// Publish step events, from arguments, a file or standard input
    Publish(publish::Publish),
    /// Explain which webhooks a step event fires and why, and show what would be sent
    Explain(explain::Explain),
    /// Inspect, replay and discard dead letters
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Erase a person's data from dead letters
    Erase(dead_letters::erase::Erase),
    /// Follow, pause, resume and cancel replays of dead letters
    #[command(subcommand)]
    Replays(replays::ReplaysCommand),
    /// List the endpoints used recently: which work, which fail, and how much waits for them
    Endpoints(endpoints::Endpoints),
    /// Check that every delivery is accounted for
    Verify(verify::Verify),
    /// Check that a worker consumes messages and makes progress (health check)
    Ready(ready::Ready),
    /// Print the OpenAPI 3.1 description of the HTTP API, without a server
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    /// Print the JSON Schemas and the AsyncAPI description, without a server
    Contract(contract::Contract),
    /// Print the completion script for a shell
    Completions(completions::Completions),
    /// Print the manual page, or write one for each command
    Man(man::Man),
}

pub fn main() -> ExitCode {
    // One cryptography provider for all of TLS. A second call fails, because the first provider stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(CliError::new(format!("the async runtime could not be started: {error}"))),
    };
    let result = runtime.block_on(run(cli.command));
    // Does not wait for threads that still resolve a name or read standard input.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(error),
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
        Command::Man(man) => man.run(Cli::command()),
        Command::Completions(completions) => {
            completions.run(Cli::command());
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

fn report(error: CliError) -> ExitCode {
    let (text, code) = match error {
        CliError::Failed(text) => (text, 1),
        CliError::Usage(text) => (text, 2),
    };
    eprintln!("error: {text}");
    ExitCode::from(code)
}
