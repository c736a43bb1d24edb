//! What a test must know to run ZooKeeper: where its jars are, how java is called, what it is told, when it answers.
//!
//! Only the standard library is used, because the clusters of `tests/src/cluster` include this very file.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Jars of an unpacked ZooKeeper, where it is none of the distribution's.
const CLASSPATH_VARIABLE: &str = "MINIKAFKA_ZOOKEEPER_CLASSPATH";
const JAR: &str = "/usr/share/java/zookeeper.jar";
const LOGGING_JAR: &str = "/usr/share/java/slf4j-simple.jar";
/// A server that is there answers at once.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// What to do where there is none.
pub const HOW_TO_INSTALL: &str = "install it (apt-get install libzookeeper-java default-jre-headless; scripts/test does), or \
     unpack a release and set MINIKAFKA_ZOOKEEPER_CLASSPATH='DIRECTORY/lib/*'";
/// Small, and quick to start. Nothing survives a power failure, and need not.
pub const JAVA_OPTIONS: [&str; 5] = [
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.preAllocSize=64",
];
/// The server's program. It takes the path of a configuration.
pub const MAIN_CLASS: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";

/// Where java finds the server, or what is missing.
pub fn classpath() -> Result<String, String> {
    match std::env::var(CLASSPATH_VARIABLE) {
        Ok(classpath) => Ok(classpath),
        Err(_) if Path::new(JAR).exists() => Ok(format!("{JAR}:{LOGGING_JAR}")),
        Err(_) => Err(format!("ZooKeeper is not installed: {HOW_TO_INSTALL}")),
    }
}

/// What the server's configuration says. Sessions are granted between two ticks and the last number.
pub fn configuration(data: &Path, listen: SocketAddr, tick_ms: u32, session_timeout_ms_max: u32) -> String {
    format!(
        "tickTime={tick_ms}\ndataDir={}\nclientPort={}\nclientPortAddress={}\nadmin.enableServer=false\n\
         maxSessionTimeout={session_timeout_ms_max}\nmaxClientCnxns=0\n4lw.commands.whitelist=srvr\n",
        data.display(),
        listen.port(),
        listen.ip()
    )
}

/// Whether a server is there and serves.
pub fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
        // A connection that came while it started may never be answered.
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("Mode: standalone"))
}
