//! The one binary of MiniKafka: broker, tools and doctor. Wiring only; what it wires lives in the crates below.

use std::process::ExitCode;

mod allocator;
mod bench;
mod cli;
mod client;
mod cluster;
mod cluster_secret;
mod config;
mod consume;
mod doctor;
mod exit;
mod explain;
mod group;
mod log;
mod logging;
mod output;
mod process_limits;
mod produce;
mod quantity;
mod serve;
mod shutdown;
mod topic;

use cli::{Cli, Command};
use exit::{Exit, Failure, Outcome};
use logging::Logs;
use output::Output;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    allocator::configure();
    let read = config::command_line(std::env::args_os());
    // Before the line is read, nobody knows better.
    let json = read.as_ref().map_or_else(|_| std::env::args_os().any(|word| word == "--json"), |cli| cli.global.json);
    match read.and_then(|cli| run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            failure.exit_code()
        }
    }
}

fn run(cli: &Cli) -> Outcome {
    let serves = matches!(cli.command, Command::Dev(_) | Command::Server(_) | Command::Broker(_) | Command::Gateway(_));
    // What an inspection finds is its answer; recovery's own log lines would say it twice.
    let inspects = matches!(cli.command, Command::Log(_));
    let level = if serves { "info" } else { "warn" };
    let logs = logging::start(&cli.global.log, if inspects { "off" } else { level }, serves);
    let ended = run_command(cli, &logs);
    logs.finish();
    ended
}

fn run_command(cli: &Cli, logs: &Logs) -> Outcome {
    let mut output = Output::new(cli.global.json);
    match &cli.command {
        Command::Dev(options) => serve::run(&options.to_plan()?, logs, &mut output),
        Command::Server(options) => serve::run(&options.to_plan()?, logs, &mut output),
        Command::Broker(options) => serve::broker::run(options, logs, &mut output),
        Command::Gateway(options) => serve::gateway::run(options, logs, &mut output),
        Command::Topic(command) => client::block_on(topic::run(command, &cli.global, &mut output))?,
        Command::Group(command) => client::block_on(group::run(command, &cli.global, &mut output))?,
        Command::Cluster(command) => cluster::run(command, &cli.global, &mut output),
        Command::Produce(options) => client::block_on(produce::run(options, &cli.global, &mut output))?,
        Command::Consume(options) => client::block_on(consume::run(options, &cli.global, &mut output))?,
        Command::Bench(command) => bench::run(command, &cli.global, &mut output),
        Command::Sim(command) if minikafka_sim::command::run(command) => Ok(()),
        Command::Sim(_) => Err(Failure::new(Exit::Failed, "the simulation broke a promise; see above")),
        Command::Log(command) => log::run(command, &mut output),
        Command::Config(command) => config::run(command, &mut output),
        Command::Doctor(options) => run_doctor(options, &mut output),
    }
}

fn run_doctor(options: &cli::DoctorOptions, output: &mut Output) -> Outcome {
    let diagnosis = doctor::examine(&options.data_dir, process_limits::raise());
    output.show(&diagnosis)?;
    if diagnosis.ok {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, "this machine lacks something; see the fixes above"))
    }
}
