//! The client that the tools use, set up as the command line says.

use std::future::Future;
use std::time::Duration;

use minikafka_client::{Client, ClientOptions};

use crate::cli::GlobalOptions;
use crate::exit::{Failure, Outcome};

/// A gateway that does not take a connection within this is tried no longer.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Connects to the cluster that the command line names. `create_missing` lets the cluster create a topic that a
/// producer asks for, where the cluster does that.
pub async fn connect(global: &GlobalOptions, create_missing: bool) -> Outcome<Client> {
    let options = ClientOptions {
        client_name: "minikafka".into(),
        connect_timeout: global.timeout.min(CONNECT_TIMEOUT_MAX),
        request_timeout: global.timeout,
        create_missing_topics: create_missing,
        ..ClientOptions::default()
    };
    Ok(Client::builder(&global.gateway).options(options).connect().await?)
}

/// Runs a tool on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("starting threads", &error))?;
    let result = runtime.block_on(future);
    // A thread that still waits for a line of standard input must not hold the process.
    runtime.shutdown_background();
    Ok(result)
}
