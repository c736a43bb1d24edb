//! Opening a connection: versions, names, and the proof of the cluster secret for peers and controllers.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::ids::*;

/// Oldest protocol this release speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// Newest protocol this release speaks: 2 adds explain ([`EXPLAIN_PROTOCOL`](super::EXPLAIN_PROTOCOL)).
pub const PROTOCOL_MAX: u16 = 2;
/// The shard number by which a gateway calls itself in a [`HelloReply`].
pub const GATEWAY_SHARD: ShardId = ShardId(u16::MAX);

/// What the opener of a connection wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// An application.
    Client = 0,
    /// A neighbour in a chain.
    Peer = 1,
    /// The elected gateway.
    Controller = 2,
}

impl Wire for Role {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.take::<u8>()? {
            0 => Ok(Self::Client),
            1 => Ok(Self::Peer),
            2 => Ok(Self::Controller),
            _ => Err(DecodeError::Field { field: "role" }),
        }
    }
}

wire_struct! {
    /// First frame of a connection.
    Hello {
        /// Oldest protocol the opener speaks.
        protocol_min: u16,
        /// Newest protocol the opener speaks.
        protocol_max: u16,
        /// What it wants to be; anything but a client must prove the cluster secret next.
        role: Role,
        /// Random; part of the proof.
        nonce: [u8; 16],
        /// The cluster it believes in; 0: any.
        cluster: ClusterId,
        /// Name of the program, for logs.
        client_name: String,
        /// Version of the client library, for logs.
        client_version: String,
    }
}

wire_struct! {
    /// Answer to [`Hello`]: who is here and what it takes.
    HelloReply {
        /// Protocol to speak from now on.
        protocol: u16,
        /// Random; part of the proof.
        nonce: [u8; 16],
        /// The cluster.
        cluster: ClusterId,
        /// The node; of a gateway, 0.
        node: NodeId,
        /// The shard, or [`GATEWAY_SHARD`].
        shard: ShardId,
        /// Release of the server.
        server_version: String,
        /// Largest batch body taken.
        batch_body_bytes_max: u32,
        /// Largest record taken.
        record_bytes_max: u32,
        /// Requests that may be in flight on this connection.
        in_flight_max: u32,
        /// Without any frame for this long, the server closes the connection.
        idle_deadline_ms: u64,
    }
}

wire_struct! {
    /// Proof of the cluster secret, in both directions.
    Proof {
        /// HMAC-SHA-256, see [`prove`].
        hmac: [u8; 32],
    }
}

/// Which end of a connection proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prover {
    /// The end that sent [`Hello`].
    Opener,
    /// The end that answered.
    Server,
}

fn mac(secret: &[u8], prover: Prover, role: Role, opener_nonce: &[u8; 16], server_nonce: &[u8; 16]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(match prover {
        Prover::Opener => b"minikafka opener",
        Prover::Server => b"minikafka server",
    });
    mac.update(&[role as u8]);
    mac.update(opener_nonce);
    mac.update(server_nonce);
    mac
}

/// Proves knowledge of the cluster secret: HMAC-SHA-256(secret, "minikafka opener" | "minikafka server", role, opener's
/// nonce, server's nonce).
pub fn prove(secret: &[u8], prover: Prover, role: Role, opener_nonce: &[u8; 16], server_nonce: &[u8; 16]) -> Proof {
    Proof { hmac: mac(secret, prover, role, opener_nonce, server_nonce).finalize().into_bytes().into() }
}

/// What a cluster's record keeps of its secret, to tell a wrong one at once: HMAC-SHA-256(secret, "minikafka cluster",
/// cluster id as u64 little-endian) in hexadecimal digits.
pub fn secret_check(secret: &[u8], cluster: ClusterId) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(b"minikafka cluster");
    mac.update(&cluster.0.to_le_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks a proof, in constant time.
pub fn check_proof(
    proof: &Proof,
    secret: &[u8],
    prover: Prover,
    role: Role,
    opener_nonce: &[u8; 16],
    server_nonce: &[u8; 16],
) -> bool {
    mac(secret, prover, role, opener_nonce, server_nonce).verify_slice(&proof.hmac).is_ok()
}

/// The newest protocol both ends speak.
pub fn common_protocol(hello: &Hello) -> Option<u16> {
    let newest = hello.protocol_max.min(PROTOCOL_MAX);
    (newest >= hello.protocol_min.max(PROTOCOL_MIN)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_secret_end_role_and_nonces_only() {
        let (a, b) = ([1; 16], [2; 16]);
        let proof = prove(b"secret", Prover::Opener, Role::Peer, &a, &b);
        assert!(check_proof(&proof, b"secret", Prover::Opener, Role::Peer, &a, &b));
        assert!(!check_proof(&proof, b"other", Prover::Opener, Role::Peer, &a, &b));
        assert!(!check_proof(&proof, b"secret", Prover::Server, Role::Peer, &a, &b));
        assert!(!check_proof(&proof, b"secret", Prover::Opener, Role::Controller, &a, &b));
        assert!(!check_proof(&proof, b"secret", Prover::Opener, Role::Peer, &b, &a));
    }
}
