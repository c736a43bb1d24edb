//! What a cluster of real processes refuses, each with the reason and what to do, told by the exit status and in one line.
//!
//! One cluster with a real ZooKeeper for all cases; what is refused must leave it alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use minikafka_tests::cluster::{Cluster, ClusterSetup, Member, PORT_BASE};
use minikafka_tests::process;

/// A broker that wants to take part, where ZooKeeper is, which listens nowhere near its ports.
struct Newcomer<'a> {
    cluster: &'a Cluster,
    coordinator: String,
    secret: &'a Path,
    data: &'a Path,
    node: u32,
}

impl<'a> Newcomer<'a> {
    /// One that knows where the cluster is.
    fn of(cluster: &'a Cluster, node: u32, secret: &'a Path, data: &'a Path) -> Self {
        Self { cluster, coordinator: cluster.coordinator(), secret, data, node }
    }

    /// Runs it to its end, which must be a refusal.
    fn refused(&self) -> String {
        let address = self.cluster.network().address(Member::ZooKeeper).to_string();
        let mut command = self.cluster.network().command(Member::ZooKeeper, self.cluster.binary());
        command.args(["broker", "--node-id", &self.node.to_string(), "--host", &address, "--advertise", &address]);
        command.args(["--port-base", &(PORT_BASE + 100).to_string(), "--cores", "1", "--memory-per-shard", "64M"]);
        command.args(["--coordinator", &self.coordinator, "--data-dir"]).arg(self.data);
        command.arg("--secret-file").arg(self.secret);
        refusal(&command.output().expect("the binary runs"))
    }
}

/// What a refused command says.
#[track_caller]
fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[track_caller]
fn assert_says(said: &str, words: &[&str]) {
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in: {said}");
}

#[test]
fn what_cannot_work_is_refused_with_the_reason_and_the_fix() {
    let directory = process::directory().expect("a directory beside the build");
    let setup = ClusterSetup { gateways: 1, ..ClusterSetup::new(&directory.path().join("cluster")).expect("a setup") };
    let mut cluster = Cluster::up(&setup).expect("a cluster");
    let secret = cluster.directory().join("secret");
    let fresh = directory.path().join("fresh");
    let wrong_secret = directory.path().join("wrong-secret");
    fs::write(&wrong_secret, "ab".repeat(32)).expect("written");
    let said = Newcomer::of(&cluster, 4, &wrong_secret, &fresh).refused();
    assert_says(&said, &["can be read by others", "chmod 600"]);
    fs::set_permissions(&wrong_secret, Permissions::from_mode(0o600)).expect("it is this test's own");
    let said = Newcomer::of(&cluster, 4, &wrong_secret, &fresh).refused();
    assert_says(&said, &["not the secret of cluster", "--secret-file"]);

    let nowhere = format!("{}-nowhere", cluster.coordinator());
    let said = Newcomer { coordinator: nowhere.clone(), ..Newcomer::of(&cluster, 4, &secret, &fresh) }.refused();
    assert_says(&said, &["knows no cluster here", "minikafka cluster create"]);

    let said = Newcomer::of(&cluster, 1, &secret, &fresh).refused();
    assert_says(&said, &["node id 1 is registered already", "--node-id"]);

    // Data of this cluster, in another one.
    cluster.stop(Member::Broker(3)).expect("an orderly end");
    let other_secret = directory.path().join("other-secret");
    let mut create = cluster.network().command(Member::ZooKeeper, cluster.binary());
    create.args(["cluster", "create", "--nodes", "3", "--coordinator", &nowhere, "--secret-file"]).arg(&other_secret);
    assert!(create.output().expect("the binary runs").status.success(), "a second cluster beside the first one");
    let data = cluster.data_directory(3);
    let said = Newcomer { coordinator: nowhere, ..Newcomer::of(&cluster, 3, &other_secret, &data) }.refused();
    assert_says(&said, &["belongs to cluster", &data.display().to_string()]);

    // Two nodes are left, and nothing that was refused counts as one.
    let gateways = cluster.gateways().join(",");
    let create = ["topic", "create", "wide", "--partitions", "1", "--replication", "4", "--gateway", &gateways];
    let said = refusal(&process::run(&create, b"").expect("the binary runs"));
    assert_says(&said, &["replication is 4", "2 are live"]);

    cluster.start(Member::Broker(3)).expect("its data are as they were");
    cluster.down().expect("an orderly end");
}
