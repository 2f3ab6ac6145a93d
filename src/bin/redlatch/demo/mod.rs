//! The flash sale: buyers race for a stock, without a lock and with one.

mod nginx;
mod report;
mod sale;

use clap::Args;
use redlatch::private_server::PrivateServer;
use redlatch::{Client, call::Endpoint};

use report::{Race, Report};
use sale::{Sale, Shop};

use crate::{
    opt::{Format, Global},
    outcome::{Cause, Failure, Outcome, Verdict},
    signals::Signals,
};

/// Options of `demo`.
#[derive(Args)]
pub struct DemoOptions {
    /// How many buyers come at once: half of them Rust tasks, half requests to nginx
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// How many pieces there are; may be given several times
    #[arg(long, value_name = "N", default_values_t = [1, 50], value_parser = clap::value_parser!(u32).range(1..))]
    pub stock: Vec<u32>,
}

/// nginx workers that serve the other half of the buyers.
const WORKERS: usize = 2;

/// Runs a race without and a race with the lock for each stock. Only `--url` itself makes it use a server of the
/// user's, so that a variable in the environment cannot send the crowd to production. What it made is gone when it ends,
/// also after Ctrl-C.
pub async fn run(options: &DemoOptions, global: &Global) -> Result<Outcome, Failure> {
    let progress = global.format == Format::Human && !global.quiet;
    let endpoint = match &global.url {
        Some(_) => Some(global.endpoint()?),
        None => None,
    };
    let report = hold_sales(options, endpoint, progress).await?;
    let verdict = if report.exact() { Verdict::Fine } else { Verdict::Different };
    Ok(Outcome::new(report.to_string(), report.to_json()).rows("races").verdict(verdict))
}

async fn hold_sales(options: &DemoOptions, endpoint: Option<Endpoint>, progress: bool) -> Result<Report, DemoError> {
    let mut signals = Signals::listen()?;
    let private = match &endpoint {
        Some(_) => None,
        None => Some(PrivateServer::start(&[]).map_err(DemoError::NoServer)?),
    };
    let url = private.as_ref().map(PrivateServer::url).unwrap_or_default();
    let endpoint = endpoint.map_or_else(|| Endpoint::parse(&url), Ok)?;
    let namespace = format!("redlatch-demo-{}", uuid::Uuid::new_v4().simple());
    let client = Client::builder().namespace(&namespace).label("flash sale").connect_to(&endpoint).await?;
    let shop = Shop::open(client, &endpoint, &namespace).await?;
    let (nginx, without_nginx) = match nginx::Nginx::start(WORKERS, &shop.settings_for_nginx()).await {
        Ok(nginx) => (Some(nginx), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let outcome = tokio::select! {
        races = all_races(options, &shop, nginx.as_ref(), progress) => races,
        signal = signals.next() => Err(DemoError::Interrupted(signal as u8)),
    };
    drop(nginx);
    shop.close().await?;
    Ok(Report {
        buyers: usize::from(options.clients),
        nginx_workers: if without_nginx.is_some() { 0 } else { WORKERS },
        without_nginx,
        server: shop.server_version().to_owned(),
        private_server: private.is_some(),
        races: outcome?,
    })
}

async fn all_races(
    options: &DemoOptions,
    shop: &Shop,
    nginx: Option<&nginx::Nginx>,
    progress: bool,
) -> Result<Vec<Race>, DemoError> {
    let mut races = Vec::new();
    for &stock in &options.stock {
        for locked in [false, true] {
            let sale = Sale { shop, nginx, buyers: usize::from(options.clients), stock, locked };
            races.push(sale.run(progress).await?);
        }
    }
    Ok(races)
}

/// Why the demo could not run to its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// There is no redis-server to start.
    #[error("redis-server cannot be started: {0}")]
    NoServer(std::io::Error),
    /// A call of the lock failed.
    #[error(transparent)]
    Lock(#[from] redlatch::Error),
    /// The verb itself failed.
    #[error("{}", .0.problem.message)]
    Verb(Failure),
    /// A buyer failed.
    #[error("a buyer failed: {0}")]
    Buyer(String),
    /// A signal came.
    #[error("interrupted: everything that the demo made is gone again")]
    Interrupted(u8),
}

impl From<Failure> for DemoError {
    fn from(failure: Failure) -> Self {
        Self::Verb(failure)
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        let message = error.to_string();
        match error {
            DemoError::NoServer(_) => Self::new(Cause::Unavailable, message)
                .hint("install it (Debian: apt-get install redis-server) or name a server with --url"),
            DemoError::Lock(error) => error.into(),
            DemoError::Verb(failure) => failure,
            DemoError::Buyer(_) => Self::new(Cause::Unavailable, message),
            DemoError::Interrupted(signal) => Self::new(Cause::Interrupted(signal), message),
        }
    }
}
