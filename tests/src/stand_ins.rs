//! Programs that stand in for those of machines, where a test runs commands that are meant for several of them: `ssh`, `scp`
//! and `systemctl` act on the processes and directories of one [`Cluster`].
//!
//! A host is called like its member (`broker-1`, `gateway-2`). Its data directory stands for `/var/lib/minikafka`, and a
//! directory `bin` beside that for `/usr/bin`: a unit is only started when the binary there, if there is one, can be run.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Cluster, ClusterSetup};
use crate::process;

/// A cluster below this directory, and the directory of the programs, for `PATH`.
pub fn cluster(directory: &Path) -> Result<(Cluster, PathBuf)> {
    let setup =
        ClusterSetup { session_timeout: Duration::from_secs(4), ..ClusterSetup::new(&directory.join("cluster"))? };
    let cluster = Cluster::up(&setup)?;
    let programs = put(directory, &cluster)?;
    Ok((cluster, programs))
}

/// Puts the programs, and `minikafka`, into a directory below this one.
fn put(directory: &Path, cluster: &Cluster) -> Result<PathBuf> {
    let programs = directory.join("programs");
    fs::create_dir_all(&programs)?;
    symlink(cluster.binary(), programs.join("minikafka"))?;
    let here = cluster.directory().display();
    let control = format!("'{}' --directory '{here}'", process::program("cluster")?.display());
    let ssh = format!(
        "#!/bin/sh\n# ssh HOST COMMAND…: here, with that host's directories.\nexport MEMBER=\"$1\"\nshift\n\
         exec sh -c \"$(printf '%s' \"$*\" | sed -e \"s#/var/lib/minikafka#{here}/$MEMBER/data#g\" \
         -e \"s#/usr/bin/minikafka#{here}/$MEMBER/bin/minikafka#g\")\"\n"
    );
    let scp = format!(
        "#!/bin/sh\n# scp -q FILE HOST:/usr/bin/NAME\nhost=${{3%%:*}}\nexec cp \"$2\" '{here}'/\"$host/bin/${{3##*/}}\"\n"
    );
    let systemctl = format!(
        "#!/bin/sh\n# systemctl ACTION UNIT, where ssh has led.\nexec >&2\nset -e\nbinary='{here}'/\"$MEMBER\"/bin/minikafka\n\
         may_start() {{ [ ! -e \"$binary\" ] || \"$binary\" --version; }}\n\
         case $1 in\n\
         stop) {control} stop \"$MEMBER\" ;;\n\
         restart) {control} stop \"$MEMBER\" || :; may_start; {control} start \"$MEMBER\" ;;\n\
         start) if [ -d '{here}'/\"$MEMBER\" ]; then may_start; {control} start \"$MEMBER\"; else {control} add; fi ;;\n\
         *) echo \"systemctl $1 has no stand-in\"; exit 1 ;;\nesac\n"
    );
    for (name, text) in [("ssh", ssh), ("scp", scp), ("systemctl", systemctl)] {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(programs.join(name));
        file?.write_all(text.as_bytes())?;
    }
    Ok(programs)
}
