//! The network that a cluster's processes have: a namespace each, on one bridge, where root allows it; loopback elsewhere.
//!
//! ```text
//!   host (clients, .254) ──veth── bridge in the namespace mk-N-hub ──veth── mk-N-zookeeper (.2)
//!                                                                 ├─veth── mk-N-gateway-1 (.11), …
//!                                                                 └─veth── mk-N-broker-1 (.101), …
//! ```
//!
//! The bridge has a namespace of its own, so that no rule of the host (Docker's, say) touches what passes. Addresses are of
//! 198.18.0.0/15, which RFC 2544 keeps for such things. Rules are set in the members' namespaces only, never on the host: who
//! is cut off drops what it gets (a sender sees silence, as on a real network), except what it sends to the host.
//!
//! On loopback, members have addresses 127.18.N.x; nothing can be cut or slowed there, and asking for it is an error.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::member::Member;

/// All namespaces begin so.
const PREFIX: &str = "mk-";
/// Networks of a machine at a time.
const NETWORKS_MAX: u16 = 512;
/// What a slowed link may send at once.
const BURST: &str = "64kb";
/// How long what does not fit waits, at most.
const QUEUE: &str = "400ms";

/// A network of one cluster.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Network {
    kind: Kind,
    number: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Namespaces,
    Loopback,
}

impl Network {
    /// Namespaces if this machine allows them, with the bridge and the host on it; otherwise loopback.
    pub fn create() -> Result<Self> {
        let first = rand::random_range(0..NETWORKS_MAX);
        for at in 0..NETWORKS_MAX {
            let network = Self { kind: Kind::Namespaces, number: (first + at) % NETWORKS_MAX };
            match run(Command::new("ip").args(["netns", "add", &network.hub()]), "") {
                Ok(()) => {
                    network.build().inspect_err(|_| network.remove([])).context("building a network")?;
                    return Ok(network);
                }
                Err(error) if format!("{error:#}").contains("File exists") => {}
                Err(_) => return Ok(Self { kind: Kind::Loopback, number: network.number }),
            }
        }
        bail!("all {NETWORKS_MAX} networks are in use: remove leftovers with scripts/cluster down --leftovers");
    }

    /// Why faults of the network cannot be had here, if they cannot.
    pub fn refusal(&self) -> Option<&'static str> {
        let (cut, install) = (in_path("nft") || in_path("iptables"), "needs nft (apt-get install nftables)");
        match self.kind {
            Kind::Loopback => Some("needs network namespaces: run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN"),
            Kind::Namespaces => (!cut).then_some(install),
        }
    }

    /// Where a member is.
    pub fn address(&self, member: Member) -> Ipv4Addr {
        let first = if self.kind == Kind::Loopback { 127 } else { 198 };
        let [high, low] = self.number.to_be_bytes();
        match (self.kind, member) {
            (Kind::Loopback, Member::Clients) => Ipv4Addr::LOCALHOST,
            _ => Ipv4Addr::new(first, 18 + high, low, member.host_number()),
        }
    }

    /// Gives a member its namespace, unless it has one.
    pub fn join(&self, member: Member) -> Result<()> {
        let name = self.namespace(member);
        if self.kind == Kind::Loopback || Path::new("/run/netns").join(&name).exists() {
            return Ok(());
        }
        let (hub, address) = (self.hub(), self.address(member));
        run(Command::new("ip").args(["-batch", "-"]), &format!("netns add {name}\n"))?;
        let links = format!("link add eth0 netns {name} type veth peer name {member} netns {hub}\n");
        run(Command::new("ip").args(["-batch", "-"]), &links)?;
        let inside = format!("addr add {address}/24 dev eth0\nlink set eth0 up\nlink set lo up\n");
        run(Command::new("ip").args(["-n", &name, "-batch", "-"]), &inside)?;
        let port = format!("link set {member} master bridge0 up\n");
        run(Command::new("ip").args(["-n", &hub, "-batch", "-"]), &port)
    }

    /// Takes a member's namespace away.
    pub fn leave(&self, member: Member) {
        if self.kind == Kind::Namespaces {
            // One that is not there need not be taken away.
            let _ = run(Command::new("ip").args(["netns", "del", &self.namespace(member)]), "");
        }
    }

    /// A command that runs where the member is. The process that is started becomes the program's.
    pub fn command(&self, member: Member, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self.kind {
            Kind::Loopback => Command::new(program),
            Kind::Namespaces => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{}", self.namespace(member))).arg("--").arg(program);
                command
            }
        }
    }

    /// A member drops what comes from some addresses, and what it would send to others; both lists replace what was.
    pub fn cut(&self, member: Member, from: &[Ipv4Addr], to: &[Ipv4Addr]) -> Result<()> {
        if let Some(refusal) = self.refusal() {
            bail!("cutting links {refusal}");
        }
        if !in_path("nft") {
            return self.cut_by_iptables(member, from, to);
        }
        let rules = |list: &[Ipv4Addr], what: &str| {
            list.iter().map(|address| format!("ip {what} {address} drop\n")).collect::<String>()
        };
        // Declared, deleted, declared again: one transaction, whether it was there or not.
        let script = format!(
            "table inet chaos\ndelete table inet chaos\ntable inet chaos {{\n\
             chain from {{ type filter hook input priority 0;\n{}}}\nchain to {{ type filter hook output priority 0;\n{}}}\n}}\n",
            rules(from, "saddr"),
            rules(to, "daddr")
        );
        run(self.command(member, "nft").args(["-f", "-"]), &script)
    }

    fn cut_by_iptables(&self, member: Member, from: &[Ipv4Addr], to: &[Ipv4Addr]) -> Result<()> {
        run(self.command(member, "iptables").arg("-F"), "")?;
        for (chain, side, list) in [("INPUT", "-s", from), ("OUTPUT", "-d", to)] {
            for address in list {
                let address = address.to_string();
                run(self.command(member, "iptables").args(["-A", chain, side, &address, "-j", "DROP"]), "")?;
            }
        }
        Ok(())
    }

    /// Bounds what a member sends and gets, in `tc`'s words (`5mbit`); none: as fast as it goes.
    pub fn limit_rate(&self, member: Member, rate: Option<&str>) -> Result<()> {
        if let Some(refusal) = self.refusal() {
            bail!("slowing links {refusal}");
        }
        let (inside, hub, port) = (self.namespace(member), self.hub(), member.to_string());
        for (namespace, device) in [(&inside, "eth0"), (&hub, port.as_str())] {
            let mut command = Command::new("tc");
            command.args(["-n", namespace, "qdisc"]);
            match rate {
                Some(rate) => command.args(["replace", "dev", device, "root", "tbf", "rate", rate]),
                None => command.args(["del", "dev", device, "root"]),
            };
            if rate.is_some() {
                command.args(["burst", BURST, "latency", QUEUE]);
            }
            run(&mut command, "")?;
        }
        Ok(())
    }

    /// Processes that are still where a member is.
    pub fn processes(&self, member: Member) -> Vec<i32> {
        let namespace = self.namespace(member);
        if self.kind == Kind::Loopback { Vec::new() } else { processes_in(&namespace) }
    }

    /// Takes everything away that was made for these members, and the bridge.
    pub fn remove(&self, members: impl IntoIterator<Item = Member>) {
        if self.kind == Kind::Namespaces {
            let namespaces = members.into_iter().map(|member| self.namespace(member)).chain([self.hub()]);
            // What is not there need not be taken away.
            namespaces.for_each(|name| drop(run(Command::new("ip").args(["netns", "del", &name]), "")));
            let _ = run(Command::new("ip").args(["link", "del", &self.host_device()]), "");
        }
    }

    /// The bridge, and the host on it.
    fn build(&self) -> Result<()> {
        let (hub, device, address) = (self.hub(), self.host_device(), self.address(Member::Clients));
        let bridge = "link add bridge0 type bridge\nlink set bridge0 up\n";
        run(Command::new("ip").args(["-n", &hub, "-batch", "-"]), bridge)?;
        let host = format!(
            "link add {device} type veth peer name clients netns {hub}\naddr add {address}/24 dev {device}\n\
             link set {device} up\n"
        );
        run(Command::new("ip").args(["-batch", "-"]), &host)?;
        run(Command::new("ip").args(["-n", &hub, "-batch", "-"]), "link set clients master bridge0 up\n")
    }

    fn hub(&self) -> String {
        format!("{PREFIX}{}-hub", self.number)
    }

    fn host_device(&self) -> String {
        format!("{PREFIX}{}", self.number)
    }

    /// The name of a member's namespace: nobody else's is called so.
    pub(super) fn namespace(&self, member: Member) -> String {
        format!("{PREFIX}{}-{member}", self.number)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let octets = self.address(Member::ZooKeeper).octets();
        let what = match self.kind {
            Kind::Namespaces => "network namespaces",
            Kind::Loopback => "loopback (links cannot be cut or slowed)",
        };
        write!(f, "{}.{}.{}.0/24 by {what}", octets[0], octets[1], octets[2])
    }
}

/// Removes the namespaces of clusters in which no process is left. Returns how many.
pub fn remove_leftovers() -> Result<usize> {
    let list = Command::new("ip").args(["netns", "list"]).output().context("running ip")?;
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut removed = 0;
    for number in names.iter().filter_map(|name| name.strip_prefix(PREFIX)?.strip_suffix("-hub")) {
        let of_network = format!("{PREFIX}{number}-");
        let members: Vec<_> = names.iter().filter(|name| name.starts_with(&of_network)).collect();
        if members.iter().any(|name| !processes_in(name).is_empty()) {
            continue;
        }
        for name in members {
            run(Command::new("ip").args(["netns", "del", name]), "")?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn processes_in(namespace: &str) -> Vec<i32> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a command to its end, with this as its input.
fn run(command: &mut Command, input: &str) -> Result<()> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("telling {shown}"))?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{shown}: {}\n{input}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}
