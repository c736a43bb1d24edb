//! `minikafka cluster create`: once, before any broker or gateway.

use std::fmt;

use clap::Args;
use minikafka_coordinator::CoordinatorClient;
use minikafka_core::coordination::{ClusterRecord, path};
use minikafka_gateway::create_cluster;
use serde::Serialize;

use crate::cluster_secret;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::serve::membership::MembershipOptions;
use crate::serve::{REPLICATION_MAX, one_thread_runtime};

/// Options of `minikafka cluster create`.
#[derive(Clone, Debug, Args)]
pub struct CreateOptions {
    /// Where the cluster shall be. The secret file is written unless it is there.
    #[command(flatten)]
    membership: MembershipOptions,
    /// How many brokers there will be at first: with three and more, the cluster's own state has three copies. More can be
    /// added at any time.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    nodes: u16,
}

/// What was created, or was there already.
#[derive(Debug, Serialize)]
struct Created {
    cluster: String,
    internal_replication: u16,
    coordinator: String,
    secret_file: String,
}

/// Creates a cluster; again, it finds the one that is there.
pub fn run(options: &CreateOptions, output: &mut Output) -> Outcome {
    let (membership, secret_file) = (&options.membership, &options.membership.secret_file);
    one_thread_runtime()?.block_on(async {
        let session = CoordinatorClient::new(membership.open_session()?);
        let there = session.read::<ClusterRecord>(path::CLUSTER).await;
        if let Some((there, _)) = there.map_err(|error| membership.failure(&error.into()))? {
            // A secret drawn now would not be its own.
            let cluster = there.cluster.0;
            cluster_secret::load(secret_file).map_err(|missing| {
                Failure::new(missing.kind, format!("cluster {cluster:016x} exists already, and {}", missing.message))
            })?;
        }
        let secret = cluster_secret::load_or_create(secret_file)?;
        let created = create_cluster(&session, &secret, options.nodes.min(REPLICATION_MAX)).await;
        let record = created.map_err(|error| membership.failure(&error))?;
        session.close();
        output.show(&Created {
            cluster: format!("{:016x}", record.cluster.0),
            internal_replication: record.internal_replication,
            coordinator: membership.coordinator.to_string(),
            secret_file: secret_file.display().to_string(),
        })
    })
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, internal_replication, coordinator, secret_file } = self;
        writeln!(f, "cluster {cluster} at {coordinator}; its own state has {internal_replication} copies")?;
        writeln!(f, "  secret   {secret_file}: copy it, readable by its owner only, to every machine of the cluster")?;
        writeln!(
            f,
            "  next     minikafka broker --node-id 1 --coordinator {coordinator} --secret-file {secret_file} …"
        )?;
        write!(f, "           minikafka gateway --coordinator {coordinator} --secret-file {secret_file} …")
    }
}
