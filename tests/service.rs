//! The daemon as a service: what systemd hands it and is told by it, and what the files in `config/` for
//! systemd, Debian and containers say.

mod common;

#[path = "service/activation.rs"]
mod activation;
#[path = "service/containers.rs"]
mod containers;
#[path = "service/credentials.rs"]
mod credentials;
#[path = "service/liveness.rs"]
mod liveness;
#[path = "service/notices.rs"]
mod notices;
#[path = "service/packages.rs"]
mod packages;
#[path = "service/reload.rs"]
mod reload;
#[path = "service/status.rs"]
mod status;
#[path = "cluster/support.rs"]
mod support;
#[path = "service/systemd.rs"]
mod systemd;
#[path = "service/units.rs"]
mod units;
