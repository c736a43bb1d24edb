//! `deploy/rolling-upgrade` on a real cluster, whose machines are stood in for: a good binary reaches all nodes; one that
//! does not start is taken back, and the cluster is whole with what was there before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use minikafka_tests::cluster::Cluster;
use minikafka_tests::{process, source, stand_ins};

/// The nodes of a cluster, as the script wants to be told of them.
fn inventory(cluster: &Cluster) -> String {
    let brokers = cluster.brokers().into_iter().map(|number| format!("broker {number} broker-{number}\n"));
    let gateways = (1..).zip(cluster.http());
    let gateways = gateways.map(|(number, http)| format!("gateway {number} gateway-{number} http://{http}/healthz\n"));
    brokers.chain(gateways).collect()
}

fn upgrade(cluster: &Cluster, programs: &Path, binary: &Path, inventory: &Path) -> Result<Output> {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(source::repository().join("deploy/rolling-upgrade"));
    command.args([binary, inventory]).env("PATH", path).env("MINIKAFKA_HTTP", cluster.http().join(","));
    Ok(command.env("MINIKAFKA_WITHIN", "2m").output()?)
}

#[test]
fn a_good_binary_reaches_all_and_a_bad_one_nobody() -> Result<()> {
    let directory = process::directory()?;
    let (cluster, programs) = stand_ins::cluster(directory.path())?;
    let members: Vec<_> = fs::read_dir(cluster.directory())?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let is_node = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("broker-") || name.starts_with("gateway-")
    };
    let places: Vec<_> = members.iter().filter(is_node).map(|member| member.join("bin/minikafka")).collect();
    ensure!(places.len() == 5, "three brokers and two gateways, not {places:?}");
    let version = |name: &str, exit: u8| -> Result<PathBuf> {
        let path = directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n# {name}\nexit {exit}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let (old, new, broken) = (version("old", 0)?, version("new", 0)?, version("broken", 1)?);
    for place in &places {
        fs::create_dir_all(place.parent().expect("bin"))?;
        fs::copy(&old, place)?;
    }
    let told = directory.path().join("inventory");
    fs::write(&told, inventory(&cluster))?;
    let all_are = |binary: &Path| -> Result<bool> {
        let wanted = fs::read(binary)?;
        Ok(places.iter().all(|place| fs::read(place).is_ok_and(|found| found == wanted)))
    };

    let output = upgrade(&cluster, &programs, &broken, &told)?;
    ensure!(!output.status.success(), "a binary that does not start was taken: {output:?}");
    ensure!(String::from_utf8_lossy(&output.stdout).contains("nothing is upgraded"), "{output:?}");
    ensure!(all_are(&old)?, "somebody has the broken one: {output:?}");

    let output = upgrade(&cluster, &programs, &new, &told)?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(all_are(&new)?, "somebody has another one: {output:?}");
    Ok(())
}
