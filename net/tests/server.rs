//! A server on a real executor, against clients on real sockets.

#[path = "support/mod.rs"]
mod support;

#[path = "server/bulk.rs"]
mod bulk;
#[path = "server/deadlines.rs"]
mod deadlines;
#[path = "server/link.rs"]
mod link;
#[path = "server/malformed.rs"]
mod malformed;
#[path = "server/opening.rs"]
mod opening;
#[path = "server/pressure.rs"]
mod pressure;
#[path = "server/stopping.rs"]
mod stopping;
