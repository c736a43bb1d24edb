//! The gateway from outside: real frames, the embedded coordinator, fake nodes.

mod alterations;
mod chains_and_topics;
mod hostile_clients;
mod http;
mod operations;
mod support;
